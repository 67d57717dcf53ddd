"""`mixed`: bits and blocks for each group of products by what they cost in KL, within a size or a loss."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from luthier_quantize.calibrated import (
    Calibrated,
    Option,
    by_gptq,
    fitting,
    head_moment,
    rounded,
    rounded_table,
    tables_of,
)
from luthier_quantize.choosing import Candidate, Choice, loss_of, size_of, within_loss, within_size
from luthier_quantize.fisher import Importance, predicted_kl
from luthier_quantize.layerwise import LayerByLayer
from luthier_quantize.weights import as_packed

if TYPE_CHECKING:
    import torch

    from luthier import Context, Dataset, Model
    from luthier_quantize.calibration import Divergence

OPTIONS = (Option(4, 64), Option(4, 32), Option(8, 64))
HEAD = "head"
# Rounds in which the budget of predicted loss is set right by what was measured.
_ROUNDS = 3
# Of the budget of loss: what is nearer to it than this is near enough.
_ENOUGH = 0.85

Parts = dict[str, list[Candidate[Option]]]


@dataclass(frozen=True)
class Budget:
    """What the result must keep to: one of a loss in nats a token and a size of the export in bytes."""

    loss: float | None
    size: int | None


def quantize_mixed(model: Model, data: Dataset, ctx: Context, *, budget: Budget, tokens: int) -> None:
    """The component `mixed`.

    Raises:
        InputError: if the model cannot be made so small, or its layers not be run one by one.
    """
    calibrated = Calibrated(model, data, ctx, tokens)
    importance = calibrated.importances()
    parts = sensitivities(calibrated, importance, ctx)
    predicted = budget.loss
    kept: Choice[Option] | None = None
    for number in range(_ROUNDS):
        choice = _choose(parts, budget.size, calibrated.fixed_bytes, predicted)
        divergence = _quantize(calibrated, choice, importance)
        ctx.log.info(
            "round %d: %d bytes, predicted KL %.4f, measured %.4f",
            number + 1,
            size_of(choice),
            loss_of(choice),
            divergence.mean_kl,
        )
        if budget.loss is None or predicted is None or _ENOUGH * budget.loss <= divergence.mean_kl <= budget.loss:
            break
        if divergence.mean_kl <= budget.loss and (kept is None or size_of(choice) < size_of(kept)):
            kept = choice
        # Errors add up to more or less than their sum; the next choice allows for it.
        predicted = loss_of(choice) * budget.loss / max(divergence.mean_kl, 1e-9)
    if budget.loss is not None and divergence.mean_kl > budget.loss:
        if kept is None:
            told = (divergence.mean_kl, budget.loss)
            ctx.log.warning("the measured KL, %.4g nats a token, is above `max_kl`, %.4g; no choice kept to it", *told)
        else:
            choice, divergence = kept, _quantize(calibrated, kept, importance)
    ctx.metric("predicted_kl", loss_of(choice))
    ctx.table("mixed", _table(parts, choice))
    calibrated.write(divergence)


def _quantize(calibrated: Calibrated, choice: Choice[Option], importance: Mapping[str, Importance]) -> Divergence:
    """Quantize the model as it was with a choice, and measure it."""
    if calibrated.packed:
        calibrated.restore()
    options = {name: each.option for name, each in choice.items()}
    calibrated.quantize(by_gptq(options.__getitem__), options[HEAD], importance)
    return calibrated.measure()


def sensitivities(calibrated: Calibrated, importance: Mapping[str, Importance], ctx: Context) -> Parts:
    """What each option would cost each group of products, and the head, in bytes and in KL."""
    layers = LayerByLayer(calibrated.model, calibrated.windows)
    weights = {name: each.tokens for name, each in importance.items()}
    parts: Parts = {}
    for number in range(len(layers)):
        ctx.progress(number, len(layers))
        for group in layers.groups(weights):
            parts[group.name] = [
                _candidate(
                    option,
                    {name: module.weight for name, module in group.weights.items()},
                    group.second_moment,
                    importance,
                )
                for option in OPTIONS
            ]
        layers.advance()
    tables = tables_of(calibrated.model)
    weight = tables.weights[tables.head_weight]
    moment = head_moment(layers, weights.get(tables.head_name))
    fits = {fitted for option in OPTIONS if (fitted := fitting(option, weight)) is not None}
    parts[HEAD] = [
        _candidate(option, {tables.head_name: weight}, moment, importance, table=True, lookups=tables.is_tied)
        for option in sorted(fits)
    ]
    return parts


def _candidate(
    option: Option,
    weights: Mapping[str, torch.Tensor],
    second_moment: torch.Tensor,
    importance: Mapping[str, Importance],
    *,
    table: bool = False,
    lookups: bool = False,
) -> Candidate[Option]:
    """An option for matrices of one input; a `table` is the head, with `lookups` where it is the embedding, too."""
    size, loss = 0, 0.0
    for name, weight in weights.items():
        quantized = (rounded_table if table else rounded)(weight, second_moment, option)
        size += as_packed(quantized).size
        error = quantized.values() - weight
        loss += predicted_kl(error, second_moment, importance[name].rows)
        if lookups:
            # Every token is looked up about as often as any: a mean over rows stands for the mean over tokens.
            loss += 0.5 * float(error.square().mean(0).double() @ importance["embedding"].rows.double())
    return Candidate(option, size, loss)


def _choose(parts: Parts, size: int | None, fixed: int, loss: float | None) -> Choice[Option]:
    if size is not None:
        return within_size(parts, size, fixed=fixed)
    assert loss is not None
    return within_loss(parts, loss)


def _table(parts: Parts, choice: Choice[Option]) -> pl.DataFrame:
    """A row a part: what was chosen, and what every option would have cost."""
    rows = []
    for name, candidates in parts.items():
        costs = {f"kl_{each.option}": each.loss for each in candidates}
        chosen = choice[name]
        rows.append({"part": name, "chosen": str(chosen.option), "bytes": chosen.size, "kl": chosen.loss} | costs)
    return pl.DataFrame(rows)
