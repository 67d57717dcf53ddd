"""Each validator's numbers, of the candidate beside those of the models that it is to beat."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from luthier import Run, StepResult
from luthier_report._lineage import configuration_of
from luthier_report._notes import SUBJECTS, FigureView, TableView, figures_of, notes_of, records_of, tables_of
from luthier_report._values import displayable

CONFIDENCE = 0.95
GENERATIONS = "generations"

Direction = Literal["higher", "lower", ""]
Verdict = Literal["better", "worse", "same", ""]

SUBJECT_TITLES: Mapping[str, str] = {
    "candidate": "this model",
    "base": "base model",
    "reference": "before export",
    "champion": "champion",
}
BASELINES = ("lead_", "xz_", "ngram_", "majority_")
"""How the names begin of what copying would reach: it says something of the data, and nothing of any model."""

LOWER_IS_BETTER = ("perplexity", "loss", "kl", "error", "latency", "seconds", "toxicity", "bits_per")
HIGHER_IS_BETTER = (
    "rouge",
    "bleu",
    "chrf",
    "accuracy",
    "agreement",
    "f1",
    "recall",
    "precision",
    "per_second",
    "exact_match",
)


@dataclass(frozen=True)
class Difference:
    """The candidate's number minus another's, with its interval where the examples were recorded.

    `verdict` needs to know which direction is good; with an interval that holds zero it is `same`.
    """

    value: float
    interval: tuple[float, float] | None
    examples: int
    verdict: Verdict

    @property
    def may_be_chance(self) -> bool:
        """Whether there is a difference, and its interval holds zero."""
        return self.interval is not None and self.verdict == "same" and self.interval != (0, 0)


@dataclass(frozen=True)
class MetricRow:
    """One metric of all subjects; a baseline, which is the same of all, has no differences."""

    name: str
    direction: Direction
    values: dict[str, float]
    differences: dict[str, Difference]
    examples: int

    @property
    def is_baseline(self) -> bool:
        """Whether it is what copying would reach, and not what a model does."""
        return self.name.startswith(BASELINES)


@dataclass(frozen=True)
class Comparison:
    """What one validator measured. `subjects` begins with the candidate; `split` is empty where unknown."""

    step: str
    component: str
    state: str
    split: str
    subjects: list[str]
    rows: list[MetricRow]
    tables: list[tuple[str, TableView]] = field(default_factory=list)
    figures: list[tuple[str, FigureView]] = field(default_factory=list)


def comparisons(run: Run) -> list[Comparison]:
    """Every validator's comparison, in the order of the recipe."""
    return [_comparison(run, step) for step in run.steps if step.stage == "validate"]


def _comparison(run: Run, step: StepResult) -> Comparison:
    measured = {node.subject or "candidate" for node in step.nodes} or {"candidate"}
    known = [subject for subject in SUBJECTS if subject in measured]
    subjects = known + sorted(measured - set(known))
    records = records_of(notes_of(run, step))
    values = _by_subject(step.metrics, subjects)
    rows = [_row(run, step, name, values, records) for name in values["candidate"]]
    tables, figures = [], []
    for subject in subjects:
        notes = notes_of(run, step, subject)
        tables += [(subject, table) for table in tables_of(notes, but=(GENERATIONS,))]
        figures += [(subject, figure) for figure in figures_of(notes)]
    return Comparison(step.id, step.component, step.state, split_of(step), subjects, rows, tables, figures)


def split_of(step: StepResult) -> str:
    """The split of the data that a validator measured on, as its configuration names it."""
    split = configuration_of(step).get("split")
    return displayable(split) if isinstance(split, str) else ""


def _by_subject(metrics: Mapping[str, float], subjects: list[str]) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = {subject: {} for subject in {"candidate", *subjects}}
    for name, value in metrics.items():
        subject, dot, rest = name.partition(".")
        if dot and subject in found and subject != "candidate":
            found[subject][rest] = value
        else:
            found["candidate"][name] = value
    return found


def _row(
    run: Run,
    step: StepResult,
    name: str,
    values: Mapping[str, Mapping[str, float]],
    records: Mapping[str, Mapping[str, Any]],
) -> MetricRow:
    direction = direction_of(run, step.id, name)
    of_subjects = {subject: found[name] for subject, found in values.items() if name in found}
    examples = len(records.get(name, {}).get("per_example") or ())
    differences = {}
    for subject, value in of_subjects.items():
        if subject != "candidate" and not name.startswith(BASELINES):
            difference = of_subjects["candidate"] - value
            interval = run.interval(step.id, name, subject, confidence=CONFIDENCE)
            verdict = _verdict(difference, interval, direction)
            differences[subject] = Difference(difference, interval, examples, verdict)
    return MetricRow(name, direction, of_subjects, differences, examples)


def _verdict(difference: float, interval: tuple[float, float] | None, direction: Direction) -> Verdict:
    low, high = interval or (difference, difference)
    if math.isnan(difference):
        return ""
    if low <= 0 <= high:
        return "same"
    if not direction:
        return ""
    return "better" if (difference > 0) == (direction == "higher") else "worse"


def direction_of(run: Run, step: str, metric: str) -> Direction:
    """Which direction is good: as the recipe's gates say, else as the metric's name tells."""
    for gate in run.gates:
        if gate.step == step and gate.metric == metric:
            return "higher" if gate.bound.startswith("at least") else "lower"
    if metric.startswith(BASELINES):
        return ""
    name = f"_{metric.lower()}"
    if any(f"_{word}" in name for word in HIGHER_IS_BETTER):
        return "higher"
    return "lower" if any(f"_{word}" in name for word in LOWER_IS_BETTER) else ""
