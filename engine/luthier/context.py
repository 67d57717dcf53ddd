"""What a component may ask of the engine, as its `ctx` parameter."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from luthier.errors import PluginError

if TYPE_CHECKING:
    from luthier.artifacts import Frame

Aggregate = Literal["mean", "exp-mean"]


@dataclass(frozen=True)
class Metric:
    """A measured number, with the numbers of the single examples where there are any.

    `value` equals the (`weights`-weighted) mean of `per_example`, or its exponential where
    `aggregate` is `exp-mean` (a perplexity): so a gate can resample the examples.
    """

    name: str
    value: float
    per_example: tuple[float, ...] | None = None
    weights: tuple[float, ...] | None = None
    aggregate: Aggregate = "mean"

    def recomputed(self) -> float:
        """The value that the examples give."""
        assert self.per_example is not None
        weights = self.weights or (1.0,) * len(self.per_example)
        mean = math.fsum(w * x for w, x in zip(weights, self.per_example, strict=True)) / math.fsum(weights)
        return math.exp(mean) if self.aggregate == "exp-mean" else mean


class Context:
    """A component's view of the engine: seeded randomness, directories, progress, measurements.

    Args:
        seed: the recipe's seed; randomness of a row comes from `rng(row_id)`.
        output: an empty directory; what a model, export or report component writes here is its result.
        checkpoint: a directory that outlives a kill of this step, and only this step sees.
        emit: where progress and log events go, as JSON-like mappings.
        fetch: turns a location into a local path.
        device: `cpu`, `cuda`, `cuda:1`, `mps`: where torch code should run.
        notes: a directory for metrics, tables, figures and quarantined rows.
        rank: which of the `processes` that an executor has call the component at once this one is, from 0. What
            the first writes into `output`, measures and reports counts; `checkpoint` is the same directory for all.
        processes: how many there are.
    """

    def __init__(
        self,
        *,
        seed: int,
        output: Path,
        checkpoint: Path,
        notes: Path,
        emit: Callable[[Mapping[str, Any]], None],
        fetch: Callable[[str], Path],
        device: str = "cpu",
        name: str = "component",
        rank: int = 0,
        processes: int = 1,
    ) -> None:
        self.seed = seed
        self.output = output
        self.checkpoint = checkpoint
        self.device = device
        self.rank = rank
        self.processes = processes
        self.log = logging.getLogger(f"luthier.component.{name}")
        self.notes = notes
        self._emit = emit
        self._fetch = fetch
        self._metrics: dict[str, Metric] = {}
        self._quarantined: set[str] = set()

    def rng(self, row_id: str) -> random.Random:
        """A generator for one row: the same for the same seed and id, whatever shard the row is in."""
        digest = hashlib.sha256(f"{self.seed}\0{row_id}".encode()).digest()
        return random.Random(int.from_bytes(digest[:8], "big"))  # noqa: S311 - sampling, not secrecy

    def progress(self, done: float, total: float | None = None, **metrics: float) -> None:
        """Say how far the work is (`done` of `total` units) and what is measured on the way."""
        self._emit({"type": "progress", "done": done, "total": total, "metrics": metrics})

    def metric(
        self,
        name: str,
        value: float,
        *,
        per_example: Sequence[float] | None = None,
        weights: Sequence[float] | None = None,
        aggregate: Aggregate = "mean",
    ) -> None:
        """Record a number; with `per_example`, a gate can give it a paired confidence interval.

        In a frame component the numbers of the shards are added up.

        Raises:
            PluginError: if `value` is not finite, or `per_example` (and `weights`) do not give it.
        """
        metric = Metric(
            name,
            float(value),
            tuple(map(float, per_example)) if per_example is not None else None,
            tuple(map(float, weights)) if weights is not None else None,
            aggregate,
        )
        if not math.isfinite(metric.value):
            raise PluginError(
                f"metric {name!r} is {metric.value}", "Record finite numbers; leave out what has no value."
            )
        if metric.per_example and not math.isclose(metric.recomputed(), metric.value, rel_tol=1e-6, abs_tol=1e-9):
            raise PluginError(
                f"metric {name!r} is {metric.value}, but its examples give {metric.recomputed()}",
                "Pass the examples (and weights) that the value is the mean of.",
            )
        self._metrics[name] = metric

    def table(self, name: str, frame: Frame) -> None:
        """Keep a table for the report. In a frame component the shards' tables are stacked."""
        path = self.notes / "tables" / f"{name}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        frame.write_parquet(path)

    def figure(self, name: str, svg: str) -> None:
        """Keep a figure, as SVG text, for the report."""
        path = self.notes / "figures" / f"{name}.svg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(svg, encoding="utf-8")

    def quarantine(self, record: str | bytes, reason: str, *, where: str = "", row_id: str | None = None) -> None:
        """Set aside a record that cannot be used, with the reason; it is counted, kept and reported.

        `where` says where it came from (`corpus.jsonl:17`); a frame component passes `row_id`, so that
        the row counts as quarantined and not as dropped.
        """
        if row_id is not None:
            self._quarantined.add(row_id)
        text = record.decode("utf-8", "backslashreplace") if isinstance(record, bytes) else record
        line = {"where": where, "reason": reason, "id": row_id, "record": text}
        with self.quarantine_file.open("a", encoding="utf-8", errors="backslashreplace") as file:
            file.write(json.dumps(line, ensure_ascii=True) + "\n")

    def open(self, location: str) -> Path:
        """The local file or directory that a location (path, `hf:`, `wheel:`, fsspec URI) names.

        Raises:
            InputError: if it cannot be reached; the message says what to do.
        """
        return self._fetch(location)

    def save_metrics(self) -> None:
        """Write what `metric` recorded to the notes; called by the engine when the component is done."""
        text = json.dumps([asdict(metric) for metric in self._metrics.values()], indent=1)
        (self.notes / "metrics.json").write_text(text, encoding="utf-8")

    @property
    def quarantine_file(self) -> Path:
        """Where `quarantine` keeps the records, one JSON object a line."""
        return self.notes / "quarantine.jsonl"

    @property
    def metrics(self) -> Mapping[str, Metric]:
        """The metrics that were recorded so far, by name."""
        return self._metrics

    @property
    def quarantined(self) -> frozenset[str]:
        """The ids of the rows that were quarantined so far."""
        return frozenset(self._quarantined)
