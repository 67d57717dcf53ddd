"""Challenger against champion: one metric at a time, by the paired bootstrap of the gates."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from luthier import Bound, Decision, InputError, Run, judge
from luthier_feedback.improvement.measures import CHAMPION, Measure

ROUNDING = 1e-12
"""Relative: a gain that is smaller is none."""

Records = Sequence[Mapping[str, Any]]
Interval = tuple[float, float] | None


@dataclass(frozen=True)
class Tolerance:
    """By how much a gated metric may be worse than the champion's, at the worse end of the interval.

    Attributes:
        amount: in the metric's unit, or where `relative` as a share of the champion's value.
    """

    amount: float
    relative: bool = True

    def allowed(self, champion: float) -> float:
        """In the metric's unit."""
        return self.amount * abs(champion) if self.relative else self.amount

    def text(self) -> str:
        """As it is written: `5%`, `0.01`."""
        return f"{100 * self.amount:.6g}%" if self.relative else f"{self.amount:.6g}"


TOLERANCE = Tolerance(0.05)
"""Where none is given."""


@dataclass(frozen=True)
class Comparison:
    """One metric of both.

    Attributes:
        step, metric, data: which, and on what.
        role: `asked`: it must be better; `gated`: it must not be worse.
        better: `more` or `less`.
        challenger, champion: the two values.
        examples: over which it was resampled; 0 where it was recorded without examples.
        interval: of the challenger's value minus the champion's; None where nobody knows, as without examples.
        allowed: by how much it may be worse.
        passed: whether it is as it must be.
        reason: in words.
    """

    step: str
    metric: str
    data: str
    role: Literal["asked", "gated"]
    better: Literal["more", "less"]
    challenger: float
    champion: float
    examples: int
    interval: Interval
    allowed: float
    passed: bool
    reason: str

    @property
    def name(self) -> str:
        """As `--metric` names it."""
        return f"{self.step}.{self.metric}"


def compare(run: Run, measure: Measure, tolerance: Tolerance | None, confidence: float) -> Comparison:
    """Hold a metric of a run's candidate against the champion's, as the same run measured both.

    Args:
        run: which measured them, on the same examples.
        measure: what is compared; its relation is known.
        tolerance: of a metric that must not be worse; None for the one that must be better.
        confidence: of the interval, both sides together.

    Raises:
        InputError: if the run has not measured both, or what must be better was recorded without examples.
        PluginError: if the examples of the two cannot be paired.
    """
    mine, theirs = _records(run, measure.step), _records(run, measure.step, CHAMPION)
    examples = min(_examples(mine, measure), _examples(theirs, measure))
    if tolerance is None and not examples:
        raise InputError(
            f"{measure.name} is recorded without examples, so nobody can tell whether a difference is chance",
            "Name another: --metric STEP.METRIC",
        )
    relation = measure.relation or "at_least"
    bound = Bound(measure.metric, relation, CHAMPION, 0.0, confidence if examples else None)
    judged = judge(bound, mine, theirs, seed=run.data.seed)
    # Examples whose weights are all zero leave nothing to be confident of: an interval that is not a number.
    interval = judged.interval if judged.interval and all(map(math.isfinite, judged.interval)) else None
    low, high = judged.interval or (judged.value - judged.bound,) * 2
    worst = low if relation == "at_least" else -high
    allowed = tolerance.allowed(judged.bound) if tolerance else 0.0
    least = ROUNDING * max(1.0, abs(judged.bound))
    # What is not a number is neither better nor good enough.
    passed = worst > least if tolerance is None else worst >= -allowed - least
    return Comparison(
        measure.step,
        measure.metric,
        measure.data,
        "asked" if tolerance is None else "gated",
        "more" if relation == "at_least" else "less",
        judged.value,
        judged.bound,
        examples,
        interval,
        allowed,
        passed and math.isfinite(judged.value),
        _reason(measure, judged, interval, tolerance, passed=passed),
    )


def _records(run: Run, step: str, subject: str = "candidate") -> Records:
    report = run.report(step, subject)
    if report is None:
        raise InputError(
            f"the run {run.id} has no measures of the {subject} by {step}",
            "Its step may have been removed from the store: luthier run RECIPE --force " + step,
        )
    return report.metric_records()


def _examples(records: Records, measure: Measure) -> int:
    found = next((each for each in records if each["name"] == measure.metric), {})
    return len(found.get("per_example") or ())


def _reason(
    measure: Measure, judged: Decision, interval: Interval, tolerance: Tolerance | None, *, passed: bool
) -> str:
    text = f"{measure.name} on the {measure.data} is {judged.value:.4g}, the champion's {judged.bound:.4g}"
    text += (
        f"; the difference is {interval[0]:+.4g} to {interval[1]:+.4g}" if interval else "; its interval is not known"
    )
    if tolerance is None:
        return f"{text}: {'better' if passed else 'not surely better'}"
    return f"{text}: {'not worse' if passed else 'it may be worse'} by more than {tolerance.text()}"
