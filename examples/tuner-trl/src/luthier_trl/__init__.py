"""The tuner `trl-sft`: supervised fine-tuning with an older trl, as a third party would wrap it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

from annotated_types import Interval

from luthier import component, hookimpl

if TYPE_CHECKING:
    from luthier import Context, Dataset, Model

Positive = Annotated[int, Interval(ge=1)]


@component(needs={"model": {"causal-lm"}, "data": {"prompt-completion"}})
def trl_sft(
    model: Model,
    data: Dataset,
    ctx: Context,
    *,
    rank: Positive = 16,
    learning_rate: Annotated[float, Interval(gt=0)] = 5e-4,
    batch_size: Positive = 4,
    max_steps: Positive = 50,
    max_length: Positive = 512,
) -> None:
    """Tune with LoRA through trl's SFTTrainer (trl 0.24 on transformers 4.57), and merge.

    Args:
        rank: of the adapters, which sit on every linear layer.
        learning_rate: at the start; it falls linearly.
        batch_size: examples in one step.
        max_steps: optimizer steps.
        max_length: longer examples are cut to so many tokens.
    """
    from luthier_trl.tuning import Settings, tune

    tune(model.path, data, ctx, Settings(rank, learning_rate, batch_size, max_steps, max_length))


@hookimpl
def luthier_tuners() -> list[Callable[..., Any]]:
    """Give the tuner."""
    return [trl_sft]
