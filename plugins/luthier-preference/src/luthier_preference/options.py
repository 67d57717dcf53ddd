"""The settings that tuners on preferences share. Light: loaded while planning."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated

from annotated_types import Ge, Gt

from luthier import InputError, settings
from luthier_tune.options import BY_VALID_LOSS


@settings
@dataclass(frozen=True, kw_only=True)
class Training:
    """How a tuner trains: the optimizer, the batches, the budget, what is measured.

    Attributes:
        learning_rate: at its peak; it falls linearly to zero over the last three tenths of the steps.
        warmup_steps: steps over which it rises to the peak.
        weight_decay: of AdamW.
        max_gradient_norm: gradients are scaled down to this norm.
        batch_size: examples of one step.
        max_length: tokens of one example; a longer prompt loses the end of its text, never an answer.
        max_steps: the budget, in optimizer steps. At most one budget may be given.
        max_epochs: the budget, in passes over the training split; one, if no budget is given.
        max_minutes: the budget, in minutes of training and validation on this machine.
        evaluate_every: steps between measurements on the validation split, besides the first and the last.
        valid_examples: how many examples of the split `valid` are measured.
        checkpoint_minutes: minutes between checkpoints, from which a killed step goes on.
    """

    learning_rate: Annotated[float, Gt(0)] = 5e-5
    warmup_steps: Annotated[int, Ge(0)] = 5
    weight_decay: Annotated[float, Ge(0)] = 0.0
    max_gradient_norm: Annotated[float, Gt(0)] = 1.0
    batch_size: Annotated[int, Ge(1)] = 4
    max_length: Annotated[int, Ge(8)] = 512
    max_steps: Annotated[int, Ge(1)] | None = None
    max_epochs: Annotated[float, Gt(0)] | None = None
    max_minutes: Annotated[float, Gt(0)] | None = None
    evaluate_every: Annotated[int, Ge(1)] | None = None
    valid_examples: Annotated[int, Ge(0)] = 64
    checkpoint_minutes: Annotated[float, Ge(0)] = 1.0


def check_batch(*, batch_size: int, **_: object) -> None:
    """Refuse batches of one for KTO; takes the tuner's whole configuration.

    Raises:
        InputError: saying why.
    """
    if batch_size < 2:
        raise InputError(
            f"batch_size is {batch_size}: KTO estimates how far the model has moved by giving each prompt of a batch "
            "another one's answer",
            "Give a batch_size of 2 at the least, better 4 or more.",
        )


BY_ACCURACY = replace(BY_VALID_LOSS, metric="reward_accuracy", better="higher")
"""How these tuners compare: losses and rewards of different `beta` are of different scales, accuracies are not."""
