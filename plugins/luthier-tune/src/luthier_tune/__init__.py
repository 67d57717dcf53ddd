"""Tuners on packed sequences: `lora`, low-rank adapters, and `full`, all weights.

Importing this module loads no heavy library; the components import their implementations.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, Literal

from annotated_types import Ge, Gt, Interval, MinLen

from luthier import InputError, component, hookimpl

if TYPE_CHECKING:
    from luthier import Context, Dataset, Model


def check_budget(*, max_steps: int | None, max_epochs: float | None, max_minutes: float | None, **_: object) -> None:
    """Refuse more than one budget; takes a tuner's whole configuration.

    Raises:
        InputError: naming those that were given.
    """
    budgets = {"max_steps": max_steps, "max_epochs": max_epochs, "max_minutes": max_minutes}
    given = [name for name, value in budgets.items() if value is not None]
    if len(given) > 1:
        raise InputError(f"more than one training budget: {', '.join(given)}", "Keep one of them.")


@component(needs={"model": {"causal-lm"}, "data": {"prompt-completion", "language-modelling"}}, check=check_budget)
def lora(
    model: Model,
    data: Dataset,
    ctx: Context,
    *,
    rank: Annotated[int, Ge(1)] = 16,
    alpha: Annotated[float, Gt(0)] | None = None,
    dropout: Annotated[float, Interval(ge=0, lt=1)] = 0.0,
    targets: Literal["all-linear"] | Annotated[list[str], MinLen(1)] = "all-linear",
    learning_rate: Annotated[float, Gt(0)] = 5e-4,
    warmup_steps: Annotated[int, Ge(0)] = 5,
    weight_decay: Annotated[float, Ge(0)] = 0.0,
    max_gradient_norm: Annotated[float, Gt(0)] = 1.0,
    batch_size: Annotated[int, Ge(1)] = 4,
    max_length: Annotated[int, Ge(8)] = 512,
    max_steps: Annotated[int, Ge(1)] | None = None,
    max_epochs: Annotated[float, Gt(0)] | None = None,
    max_minutes: Annotated[float, Gt(0)] | None = None,
    evaluate_every: Annotated[int, Ge(1)] | None = None,
    valid_examples: Annotated[int, Ge(0)] = 64,
    checkpoint_minutes: Annotated[float, Ge(0)] = 1.0,
) -> None:
    """Train low-rank adapters (LoRA) on the completions, and merge them into the model.

    Sequences are packed, the loss covers the completion's tokens, and the result holds the merged
    model with the adapter beside it. `max_steps` and `max_epochs` give the same bytes again at a fixed
    number of threads, also after a kill; `max_minutes` is turned into a number of steps, which is
    recorded as the metric `steps`, and `max_steps` of that number gives the same bytes.

    Args:
        rank: the adapters' rank.
        alpha: their scale, divided by `rank`; twice the rank if not given.
        dropout: the share of an adapter's inputs that is dropped in training.
        targets: the layers that get an adapter: all linear ones but the output layer, or those of these names.
        learning_rate: at its peak; it falls linearly to zero over the budget.
        warmup_steps: steps over which it rises to the peak.
        weight_decay: of AdamW.
        max_gradient_norm: gradients are scaled down to this norm.
        batch_size: examples of one step.
        max_length: tokens of one example; a longer prompt loses the end of its text, never the completion,
            and longer plain text is cut into pieces.
        max_steps: the budget, in optimizer steps. At most one budget may be given.
        max_epochs: the budget, in passes over the training split; one, if no budget is given.
        max_minutes: the budget, in minutes of training and validation on this machine.
        evaluate_every: steps between measurements of the validation loss, besides the first and the last.
        valid_examples: how many examples of the split `valid` that loss is measured on.
        checkpoint_minutes: minutes between checkpoints, from which a killed step goes on.
    """
    from luthier_tune.adapters import AdapterSettings, tune
    from luthier_tune.training import TrainingSettings

    tune(
        model,
        data,
        ctx,
        AdapterSettings(rank=rank, alpha=2.0 * rank if alpha is None else alpha, dropout=dropout, targets=targets),
        TrainingSettings(
            learning_rate=learning_rate,
            warmup_steps=warmup_steps,
            weight_decay=weight_decay,
            max_gradient_norm=max_gradient_norm,
            batch_size=batch_size,
            max_length=max_length,
            max_steps=max_steps,
            max_epochs=max_epochs,
            max_minutes=max_minutes,
            evaluate_every=evaluate_every,
            valid_examples=valid_examples,
            checkpoint_minutes=checkpoint_minutes,
        ),
    )


@component(needs={"model": {"causal-lm"}, "data": {"prompt-completion", "language-modelling"}}, check=check_budget)
def full(
    model: Model,
    data: Dataset,
    ctx: Context,
    *,
    learning_rate: Annotated[float, Gt(0)] = 5e-5,
    warmup_steps: Annotated[int, Ge(0)] = 20,
    weight_decay: Annotated[float, Ge(0)] = 0.01,
    max_gradient_norm: Annotated[float, Gt(0)] = 1.0,
    batch_size: Annotated[int, Ge(1)] = 4,
    max_length: Annotated[int, Ge(8)] = 512,
    max_steps: Annotated[int, Ge(1)] | None = None,
    max_epochs: Annotated[float, Gt(0)] | None = None,
    max_minutes: Annotated[float, Gt(0)] | None = None,
    evaluate_every: Annotated[int, Ge(1)] | None = None,
    valid_examples: Annotated[int, Ge(0)] = 64,
    checkpoint_minutes: Annotated[float, Ge(0)] = 5.0,
) -> None:
    """Train all weights: a fresh model from scratch, or a pretrained one in full.

    Packing, budgets, checkpoints and reproducibility are those of `lora`. Memory: four times the weights, for
    the gradients and AdamW's two moments, besides the activations.

    Args:
        learning_rate: at its peak; it falls linearly to zero over the budget. A fresh model wants about 1e-3.
        warmup_steps: steps over which it rises to the peak.
        weight_decay: of AdamW.
        max_gradient_norm: gradients are scaled down to this norm.
        batch_size: examples of one step.
        max_length: tokens of one example; a longer prompt loses the end of its text, never the completion,
            and longer plain text is cut into pieces.
        max_steps: the budget, in optimizer steps. At most one budget may be given.
        max_epochs: the budget, in passes over the training split; one, if no budget is given.
        max_minutes: the budget, in minutes of training and validation on this machine.
        evaluate_every: steps between measurements of the validation loss, besides the first and the last.
        valid_examples: how many examples of the split `valid` that loss is measured on.
        checkpoint_minutes: minutes between checkpoints, three times the weights each, from which a killed step
            goes on.
    """
    from luthier_tune.training import TrainingSettings
    from luthier_tune.whole import tune

    tune(
        model,
        data,
        ctx,
        TrainingSettings(
            learning_rate=learning_rate,
            warmup_steps=warmup_steps,
            weight_decay=weight_decay,
            max_gradient_norm=max_gradient_norm,
            batch_size=batch_size,
            max_length=max_length,
            max_steps=max_steps,
            max_epochs=max_epochs,
            max_minutes=max_minutes,
            evaluate_every=evaluate_every,
            valid_examples=valid_examples,
            checkpoint_minutes=checkpoint_minutes,
        ),
    )


@hookimpl
def luthier_tuners() -> list[Callable[..., Any]]:
    """Give the tuners."""
    return [lora, full]
