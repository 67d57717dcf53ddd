"""What every pruner of a decoder does: calibrate, choose a size, prune, write, and measure what was written."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

import polars as pl

from luthier_models.batching import batched
from luthier_models.loading import load_causal_lm
from luthier_models.prompts import PromptEncoder
from luthier_prune.calibration import read_calibration
from luthier_prune.damage import Damage, Yardstick
from luthier_prune.rebuilding import count_parameters
from luthier_prune.sizing import Units, largest_within, settled
from luthier_tune.task import copy_companions

if TYPE_CHECKING:
    from pathlib import Path

    from transformers import PreTrainedModel

    from luthier import Context, Dataset, Model
    from luthier_models.batching import Batch, BatchedModel
    from luthier_prune.options import Pruning

QUALITY_BY_SIZE = "quality-by-size"
"""The table that the report draws."""


class Cut(Units, Protocol):
    """One way to make a model smaller: its units in an order, which importance gives.

    Attributes:
        title: what its table is called.
    """

    title: str

    def rank(self, packed: BatchedModel, rows: Sequence[Batch]) -> None:
        """Measure importance on the rows; `pruned` may be called afterwards."""

    def pruned(self, removed: int) -> PreTrainedModel:
        """The model without the `removed` least important units; the model that it is made of stays as it is."""

    def table(self, removed: int) -> pl.DataFrame:
        """What went and what it mattered."""


def prune(model: Model, data: Dataset, ctx: Context, settings: Pruning, make: Callable[[PreTrainedModel], Cut]) -> None:
    """Write the pruned model to `ctx.output`.

    Raises:
        InputError: if the model cannot be cut like that, the target cannot be reached, or there is too little data.
    """
    whole = load_causal_lm(model.path, device=ctx.device)
    cut = make(whole)
    removed = settled(cut, settings)
    calibration = read_calibration(data, PromptEncoder.from_directory(model.path), settings, ctx)
    packed = batched(whole)
    cut.rank(packed, [row for _, row in packed.rows(calibration.pairs, packed.row_tokens)])
    yardstick = Yardstick(whole, calibration.held_out)
    trials = Trials(cut, yardstick, ctx)
    if removed is None:
        assert settings.max_kl is not None
        removed = largest_within(cut, settings.max_kl, lambda count: trials[count].mean_kl)
    else:
        for count in on_the_way(removed, settings.curve):
            trials.measure(count)
    made = cut.pruned(removed)
    write(made, model.path, ctx.output)
    del made
    # Believed is what was written, not what is in memory.
    trials.note(removed, yardstick.damage(load_causal_lm(ctx.output, device=ctx.device)))
    trials[removed].record(ctx, before=yardstick.before)
    ctx.table(cut.title, cut.table(removed))
    ctx.table(QUALITY_BY_SIZE, trials.table())
    ctx.metric(removed_name(cut), removed)
    record_sizes(model.path, ctx, count_parameters(whole), cut.parameters(removed))


class Trials:
    """Cuts that were measured, each once."""

    def __init__(self, cut: Cut, yardstick: Yardstick, ctx: Context) -> None:
        self._cut = cut
        self._yardstick = yardstick
        self._ctx = ctx
        self._found: dict[int, Damage] = {0: yardstick.before}

    def __getitem__(self, removed: int) -> Damage:
        return self._found[removed] if removed in self._found else self.measure(removed)

    def measure(self, removed: int) -> Damage:
        """Make the model without so many units, and measure it."""
        self.note(removed, self._yardstick.damage(self._cut.pruned(removed)))
        return self._found[removed]

    def note(self, removed: int, damage: Damage) -> None:
        """Keep what was measured of a model without so many units."""
        self._found[removed] = damage
        self._ctx.progress(len(self._found) - 1, mean_kl=damage.mean_kl, perplexity=damage.perplexity)
        told = (removed, self._cut.total, self._cut.unit, damage.mean_kl, damage.perplexity)
        self._ctx.log.info("without %d of %d %s: KL %.4g nats a token, perplexity %.4g", *told)

    def table(self) -> pl.DataFrame:
        """The curve of quality against size."""
        rows = [
            {
                removed_name(self._cut): removed,
                "parameters": self._cut.parameters(removed),
                "mean_kl": damage.mean_kl,
                "perplexity": damage.perplexity,
            }
            for removed, damage in sorted(self._found.items())
        ]
        return pl.DataFrame(rows)


def removed_name(units: Units) -> str:
    """What the number of removed units is called, as a metric and in a table."""
    return f"removed_{units.unit.replace(' ', '_')}"


def on_the_way(removed: int, points: int) -> list[int]:
    """Smaller cuts, evenly spread."""
    return sorted({round(removed * (point + 1) / (points + 1)) for point in range(points)} - {0, removed})


def write(model: PreTrainedModel, source: Path, output: Path) -> None:
    """Write a pruned model beside the tokenizer, template and generation settings of the model as it was."""
    model.save_pretrained(output)
    copy_companions(source, output)


def record_sizes(source: Path, ctx: Context, before: int, after: int) -> None:
    """The metrics of size."""
    sizes: Mapping[str, tuple[Path, int]] = {"_before": (source, before), "": (ctx.output, after)}
    for suffix, (directory, parameters) in sizes.items():
        weights = sum(path.stat().st_size for path in directory.glob("*.safetensors"))
        ctx.metric(f"parameters{suffix}", parameters)
        ctx.metric(f"megabytes{suffix}", weights / 1e6)
