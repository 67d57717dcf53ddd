"""The data funnel: what became of the documents at each component, with samples."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from luthier import LuthierError, Run, StepResult
from luthier_report._diff import CUT, Piece, differences, differences_of_cut
from luthier_report._notes import (
    FigureView,
    Quarantined,
    TableView,
    figures_of,
    notes_of,
    quarantined_of,
    samples_of,
    tables_of,
)
from luthier_report._values import displayable

SPLITS = ("train", "valid", "test")


@dataclass(frozen=True)
class Share:
    """One part of a component's bar: what it counts, how many, and its width in percent."""

    name: str
    count: int
    width: float


@dataclass(frozen=True)
class DataStep:
    """A data component and its documents. `documents_out` = kept + added."""

    id: str
    stage: str
    component: str
    counts: dict[str, int]
    documents_out: int
    shares: list[Share]
    dropped: list[str]
    changed: list[list[Piece]]
    quarantined: Quarantined
    metrics: dict[str, float]
    tables: list[TableView]
    figures: list[FigureView]
    missing: bool

    @property
    def samples(self) -> bool:
        """Whether there is a document to show."""
        return bool(self.dropped or self.changed or self.quarantined.total)


def data_steps(run: Run) -> list[DataStep]:
    """The components that counted documents, in order."""
    steps = [step for step in run.steps if step.counts]
    widest = max((max(_documents_in(step.counts), _documents_out(step.counts)) for step in steps), default=0)
    return [_data_step(run, step, widest) for step in steps]


def _documents_in(counts: dict[str, int]) -> int:
    return counts.get("documents_in", 0)


def _documents_out(counts: dict[str, int]) -> int:
    return counts.get("kept", 0) + counts.get("added", 0)


def _data_step(run: Run, step: StepResult, widest: int) -> DataStep:
    notes = notes_of(run, step)
    samples = samples_of(notes)
    return DataStep(
        id=step.id,
        stage=step.stage,
        component=step.component,
        counts=step.counts,
        documents_out=_documents_out(step.counts),
        shares=_shares(step.counts, widest),
        dropped=[displayable(sample["before"]) for sample in samples.get("dropped", [])],
        # A step that redacts shows of a row only what it left.
        changed=[
            _changes(sample.get("before", sample["after"]), sample["after"]) for sample in samples.get("changed", [])
        ],
        quarantined=quarantined_of(notes),
        metrics=step.metrics,
        tables=tables_of(notes),
        figures=figures_of(notes),
        missing=notes is None,
    )


def _changes(before: str, after: str) -> list[Piece]:
    # The engine ends a sample that it cut with an ellipsis.
    cut = before.endswith(CUT) or after.endswith(CUT)
    return differences_of_cut(before, after) if cut else differences(before, after)


def _shares(counts: dict[str, int], widest: int) -> list[Share]:
    changed = counts.get("changed", 0)
    parts = {
        "kept": counts.get("kept", 0) - changed,
        "changed": changed,
        "added": counts.get("added", 0),
        "dropped": counts.get("dropped", 0),
        "quarantined": counts.get("quarantined", 0),
    }
    # The bar of a component that makes several examples of a document may be longer than the widest count.
    total = max(widest, sum(parts.values()), 1)
    return [Share(name, count, 100 * count / total) for name, count in parts.items() if count > 0]


def splits(run: Run) -> dict[str, int]:
    """Examples in each split of the newest dataset that has them; empty where it is not in the store."""
    for step in reversed(run.steps):
        if step.kind != "dataset" or not step.artifact:
            continue
        try:
            rows = run.dataset(step.id).scan()
        except LuthierError:
            return {}
        if "split" not in rows.collect_schema().names():
            return {}
        counted = dict(rows.group_by("split").agg(pl.len()).collect().iter_rows())
        return {name: counted[name] for name in SPLITS if name in counted}
    return {}
