"""Tuners on packed sequences: `lora`, low-rank adapters, and `full`, all weights.

Importing this module loads no heavy library; the components import their implementations.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, Literal

from annotated_types import Ge, Gt, Interval, MinLen

from luthier import component, hookimpl
from luthier_tune.options import BY_VALID_LOSS, Training, check_budget

if TYPE_CHECKING:
    from luthier import Context, Dataset, Model

LEARNABLE = {"prompt-completion", "chat", "language-modelling"}


@component(needs={"model": {"causal-lm"}, "data": LEARNABLE}, check=check_budget, search=BY_VALID_LOSS)
def lora(
    model: Model,
    data: Dataset,
    ctx: Context,
    *,
    rank: Annotated[int, Ge(1)] = 16,
    alpha: Annotated[float, Gt(0)] | None = None,
    dropout: Annotated[float, Interval(ge=0, lt=1)] = 0.0,
    targets: Literal["all-linear"] | Annotated[list[str], MinLen(1)] = "all-linear",
    training: Training = Training(),
) -> None:
    """Train low-rank adapters (LoRA) on the completions, and merge them into the model.

    Sequences are packed, the loss covers the completion's tokens, and the result holds the merged
    model with the adapter beside it. `max_steps` and `max_epochs` give the same bytes again at a fixed
    number of threads, also after a kill; `max_minutes` ends after a number of steps, which is
    recorded as the metric `steps`, and `max_steps` of that number gives the same bytes.

    Args:
        rank: the adapters' rank.
        alpha: their scale, divided by `rank`; twice the rank if not given.
        dropout: the share of an adapter's inputs that is dropped in training.
        targets: the layers that get an adapter: all linear ones but the output layer, or those of these names.
    """
    from luthier_tune.adapters import AdapterSettings, tune

    adapter = AdapterSettings(rank=rank, alpha=2.0 * rank if alpha is None else alpha, dropout=dropout, targets=targets)
    tune(model, data, ctx, adapter, training)


@component(needs={"model": {"causal-lm"}, "data": LEARNABLE}, check=check_budget, search=BY_VALID_LOSS)
def full(
    model: Model,
    data: Dataset,
    ctx: Context,
    *,
    training: Training = Training(learning_rate=5e-5, warmup_steps=20, weight_decay=0.01, checkpoint_minutes=5.0),
) -> None:
    """Train all weights: a fresh model from scratch, or a pretrained one in full.

    A fresh model wants a learning rate of about 1e-3. Packing, budgets, checkpoints and reproducibility are
    those of `lora`. Memory: four times the weights, for the gradients and AdamW's two moments, besides the
    activations; a checkpoint takes three times the weights.
    """
    from luthier_tune.whole import tune

    tune(model, data, ctx, training)


@hookimpl
def luthier_tuners() -> list[Callable[..., Any]]:
    """Give the tuners."""
    return [lora, full]
