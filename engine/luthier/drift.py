"""Drift: what a champion measures now, held against what it measured when it was promoted."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from luthier.core_stages import CHAMPION
from luthier.gates import ROUNDING, Bound, Decision, judge
from luthier.plans import bounds
from luthier.runrecord import GateResult
from luthier.runs import Run
from luthier.steps import StepSpec


def drift_gate(step: StepSpec, confidence: float) -> dict[str, Any]:
    """The gate of a step that measures the champion again: its own metrics, none to be worse than they were.

    A metric that is bounded on both sides has no worse side, so it is left out.
    """
    relations: dict[str, set[str]] = {}
    for bound in bounds(step):
        relations.setdefault(bound.metric, set()).add(bound.relation)
    return {
        metric: {next(iter(each)): CHAMPION, "confidence": confidence}
        for metric, each in relations.items()
        if len(each) == 1
    }


def decide(step: StepSpec, now: Run, then: Run) -> Iterator[GateResult]:
    """Hold each metric of an evaluation's step against what the run that was promoted measured of the same model.

    One is refused if the whole interval of its difference lies on the worse side: what chance may make is no drift.
    The interval is paired where the validator saw the same data, else each side is drawn by itself. What cannot be
    compared is skipped, with the reason.

    Args:
        step: with the gate that `drift_gate` makes.
        now: the run that has just measured the champion.
        then: the run that was promoted.

    Raises:
        InputError: if a gate names a metric that was not measured.
    """
    mine, theirs = _measured(now, step.id, now.data.champion), _measured(then, step.id, now.data.champion)
    assert mine is not None
    for bound in bounds(step):
        value = judge(replace(bound, subject=None, confidence=None), [*mine.records.values()], None).value
        why_not = _incomparable(bound, mine, theirs, then)
        if why_not or theirs is None:
            yield GateResult.skip(step.id, bound, value, why_not)
        else:
            yield GateResult.of(step.id, _compare(bound, mine, theirs, now.data.seed, then.id))


@dataclass(frozen=True)
class _Measured:
    """What a run measured of a model by one step: its metric records by name, and what they depend on."""

    records: Mapping[str, Mapping[str, Any]]
    ingredients: Mapping[str, Any]

    def examples(self, metric: str) -> int:
        return len(self.records[metric].get("per_example") or ())

    @property
    def configuration(self) -> object:
        part = self.ingredients["parts"][-1]
        return part["stage"], part["component"], part["config"]

    @property
    def data(self) -> object:
        return {name: each for name, each in self.ingredients["inputs"].items() if name != "subject"}


def _measured(run: Run, step: str, model: str) -> _Measured | None:
    """What a run measured of a model, whichever subject that was; None where it did not, or it is no longer known."""
    for node in next((each.nodes for each in run.steps if each.id == step), ()):
        if node.ingredients.get("inputs", {}).get("subject") == model:
            report = run.report(step, node.subject)
            if report is not None:
                return _Measured({each["name"]: each for each in report.metric_records()}, node.ingredients)
    return None


def _incomparable(bound: Bound, mine: _Measured, theirs: _Measured | None, then: Run) -> str:
    """Why a metric cannot be held against what it was; empty where it can."""
    if theirs is None or bound.metric not in theirs.records:
        return f"the run {then.id} did not measure it of this model, or its report is no longer in the store"
    if mine.configuration != theirs.configuration:
        return f"the step is not configured as it was in the run {then.id}"
    if not (mine.examples(bound.metric) and theirs.examples(bound.metric)):
        return "it is recorded without examples, so nobody can tell whether a difference is chance"
    return ""


def _compare(bound: Bound, mine: _Measured, theirs: _Measured, seed: int, then: str) -> Decision:
    sizes = mine.examples(bound.metric), theirs.examples(bound.metric)
    paired = mine.data == theirs.data and sizes[0] == sizes[1]
    judged = judge(bound, [*mine.records.values()], [*theirs.records.values()], seed, paired=paired)
    assert judged.interval is not None
    low, high = judged.interval
    least = ROUNDING * max(1.0, abs(judged.bound))
    worse = high < -least if bound.relation == "at_least" else low > least
    worse = worse or not math.isfinite(judged.value)
    over = f"over the same {sizes[0]:,} examples" if paired else f"over {sizes[0]:,} examples against {sizes[1]:,}"
    reason = (
        f"{bound.metric} is {judged.value:.4g}, and was {judged.bound:.4g} in the run {then}; the interval of the "
        f"difference {over} is {low:.4g} to {high:.4g}: {'worse' if worse else 'not surely worse'}"
    )
    return Decision(
        bound.metric, judged.value, judged.bound, bound.text(), not worse, judged.interval, reason, CHAMPION
    )
