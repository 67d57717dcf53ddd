"""Tuners on preferences with trl: `dpo` on pairs of answers, `kto` on answers that were liked or not.

Importing this module loads no heavy library; the components import their implementations.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

from annotated_types import Ge, Gt

from luthier import component, hookimpl
from luthier_models.devices import check_device
from luthier_preference.options import BY_ACCURACY, check_kto
from luthier_tune.options import Training, check_budget

if TYPE_CHECKING:
    from luthier import Context, Dataset, Model


@component(
    needs={"model": {"causal-lm"}, "data": {"preference"}},
    check=check_budget,
    check_device=check_device,
    search=BY_ACCURACY,
)
def dpo(
    model: Model,
    data: Dataset,
    ctx: Context,
    *,
    beta: Annotated[float, Gt(0)] = 0.1,
    rank: Annotated[int, Ge(1)] = 16,
    alpha: Annotated[float, Gt(0)] | None = None,
    training: Training = Training(learning_rate=5e-5),
) -> None:
    """Learn from pairs of answers which one is preferred (direct preference optimisation, with trl), by LoRA.

    The model's implicit reward of an answer is `beta` times how much likelier it has become than before. Metrics
    on the validation split: `reward_accuracy`, the share of pairs whose preferred answer has the higher reward
    (before training all rewards are 0), `reward_margin`, by how much on average, and `valid_loss`, DPO's. The result
    holds the merged model with the adapter beside it. Budgets, checkpoints, the best weights and reproducibility are
    those of `lora`.

    Args:
        beta: how strongly the model is held to what it was; the smaller, the freer.
        rank: the adapters' rank.
        alpha: their scale, divided by `rank`; twice the rank if not given.
    """
    from luthier_preference.tuning import Adapters, tune_on_pairs

    tune_on_pairs(model, data, ctx, beta=beta, adapters=Adapters(rank, alpha), settings=training)


@component(
    needs={"model": {"causal-lm"}, "data": {"unpaired-preference"}},
    check=check_kto,
    check_device=check_device,
    search=BY_ACCURACY,
)
def kto(
    model: Model,
    data: Dataset,
    ctx: Context,
    *,
    beta: Annotated[float, Gt(0)] = 0.1,
    liked_weight: Annotated[float, Gt(0)] | None = None,
    disliked_weight: Annotated[float, Gt(0)] | None = None,
    rank: Annotated[int, Ge(1)] = 16,
    alpha: Annotated[float, Gt(0)] | None = None,
    training: Training = Training(learning_rate=5e-5, batch_size=8),
) -> None:
    """Learn from answers that were liked or disliked, each by itself (KTO, with trl), by LoRA.

    The model's implicit reward of an answer is `beta` times how much likelier it has become than before. Metrics
    on the validation split: `reward_accuracy`, the probability that a liked answer has a higher reward than a
    disliked one, `reward_margin`, the difference of their means, and `valid_loss`, DPO's of all pairs of a liked and
    a disliked answer, by which the best weights are told. The result holds the merged model with the adapter beside
    it. Every epoch has the same batches: KTO compares each with answers to its other prompts. Budgets, checkpoints
    and reproducibility are those of `lora`.

    Args:
        beta: how strongly the model is held to what it was; the smaller, the freer.
        liked_weight: how much a liked answer counts; if neither weight is given, both kinds count alike in all.
        disliked_weight: how much a disliked answer counts; 1, if only the other is given.
        rank: the adapters' rank.
        alpha: their scale, divided by `rank`; twice the rank if not given.
    """
    from luthier_preference.tuning import Adapters, tune_on_judgements

    weights = (liked_weight, disliked_weight)
    tune_on_judgements(model, data, ctx, beta=beta, weights=weights, adapters=Adapters(rank, alpha), settings=training)


@hookimpl
def luthier_tuners() -> list[Callable[..., Any]]:
    """Give the tuners."""
    return [dpo, kto]
