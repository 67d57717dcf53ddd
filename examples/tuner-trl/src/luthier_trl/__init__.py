"""The tuner `trl-sft`: supervised fine-tuning with an older trl, as a third party would wrap it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

from annotated_types import Ge, Gt

from luthier import InputError, component, hookimpl

if TYPE_CHECKING:
    from luthier import Context, Dataset, Model


def _one_budget(*, max_steps: int | None, max_minutes: float | None, **others: object) -> None:
    if (max_steps is None) == (max_minutes is None):
        raise InputError("a training budget is max_steps or max_minutes", "Give one of them.")


@component(needs={"model": {"causal-lm"}, "data": {"prompt-completion"}}, check=_one_budget)
def trl_sft(
    model: Model,
    data: Dataset,
    ctx: Context,
    *,
    rank: Annotated[int, Ge(1)] = 16,
    learning_rate: Annotated[float, Gt(0)] = 5e-4,
    batch_size: Annotated[int, Ge(1)] = 4,
    max_steps: Annotated[int, Ge(1)] | None = None,
    max_minutes: Annotated[float, Gt(0)] | None = None,
    max_length: Annotated[int, Ge(1)] = 512,
    valid_examples: Annotated[int, Ge(0)] = 0,
) -> None:
    """Tune with LoRA through trl's SFTTrainer (trl 0.24 on transformers 4.57), and merge.

    Metrics: `train_loss` (the mean over training), `steps`, and with `valid_examples` `valid_loss_before` and
    `valid_loss`.

    Args:
        rank: of the adapters, which sit on every linear layer.
        learning_rate: at the start; it falls linearly to zero.
        batch_size: examples in one step.
        max_steps: optimizer steps; this or `max_minutes`.
        max_minutes: as many steps as fit, by the time that the first five take.
        max_length: longer examples are cut to so many tokens.
        valid_examples: how many examples of the validation split the loss is measured on, before and after.
    """
    from luthier_trl.tuning import Settings, tune

    settings = Settings(rank, learning_rate, batch_size, max_steps, max_minutes, max_length, valid_examples)
    tune(model.path, data, ctx, settings)


@hookimpl
def luthier_tuners() -> list[Callable[..., Any]]:
    """Give the tuner."""
    return [trl_sft]
