"""Gates: a metric held against a bound, with a paired bootstrap where the recipe asks for confidence.

A bound is a number, `SUBJECT ± number`, or `SUBJECT.METRIC ± number`: another metric, of the candidate or of another
subject, on the same examples, such as that of a baseline. With `confidence` the whole two-sided interval must lie on
the right side of the bound, so `confidence: 0.95` leaves 2.5% on the side that matters.

The interval is the percentile bootstrap's (Efron and Tibshirani, An Introduction to the Bootstrap, 1993,
chapter 13), over examples; a comparison draws the same examples for both sides (Koehn, Statistical
Significance Tests for Machine Translation Evaluation, EMNLP 2004), so what is hard for both cancels out. Where the
two sides were measured on different examples, each is drawn by itself.
"""

from __future__ import annotations

import math
import random
import re
from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from luthier.errors import InputError, PluginError
from luthier.suggest import did_you_mean

Relation = Literal["at_least", "at_most"]
SUBJECTS = ("base", "reference", "champion")
"""What a metric can be compared with; besides, the candidate has other metrics."""
CANDIDATE = "candidate"
RESAMPLES = 2000
ROUNDING = 1e-12
"""Relative and absolute: `0.3 + 0.1` passes `at_least: 0.4`."""

_NUMBER = r"(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?"
_COMPARISON = re.compile(rf"\s*([A-Za-z_][\w-]*?)(?:\.([A-Za-z_][\w-]*?))?\s*(?:([+-])\s*({_NUMBER}))?\s*")


Problem = tuple[tuple[str | int, ...], str]
"""A key path within a gate, and what is wrong there."""


class GateSyntax(InputError):
    """A gate that cannot be read. `problems` holds (key path within the gate, what is wrong), all of them."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = list(problems)
        super().__init__(
            "; ".join(f"{'.'.join(map(str, path)) or 'gate'}: {message}" for path, message in self.problems)
        )


@dataclass(frozen=True)
class Bound:
    """What one metric of the candidate must keep to: `relation` to `subject` (or to zero) + `offset`.

    `other` is the subject's metric that it is compared with; the same one, if it is empty.
    """

    metric: str
    relation: Relation
    subject: str | None
    offset: float
    confidence: float | None = None
    other: str = ""

    @property
    def compared(self) -> str:
        """What it is compared with, as recipes write it: `base`, `candidate.lead_rougeL`; empty for a number."""
        return ".".join(filter(None, (self.subject, self.other)))

    def text(self) -> str:
        """The bound in words: `at least base + 0.1 (95% confidence)`."""
        if self.subject is None:
            bound = _plain(self.offset)
        elif self.offset == 0:
            bound = self.compared
        else:
            bound = f"{self.compared} {'-' if self.offset < 0 else '+'} {_plain(abs(self.offset))}"
        sure = "" if self.confidence is None else f" ({_plain(100 * self.confidence)}% confidence)"
        return f"{self.relation.replace('_', ' ')} {bound}{sure}"


@dataclass(frozen=True)
class Decision:
    """What a gate decided on one bound.

    `bound` is the number that `value` was held against; `subject` is what it was measured of, empty where the recipe
    gives the number. `interval` is that of the difference from what the bound names, if it names something, else that
    of the value.
    """

    metric: str
    value: float
    bound: float
    bound_text: str
    passed: bool
    interval: tuple[float, float] | None
    reason: str
    subject: str = ""


def parse_gate(gate: Mapping[str, Any]) -> list[Bound]:
    """Read a recipe's gate: `{rougeL: {at_least: "base + 0.10", confidence: 0.95}}`.

    A metric may have a list of such bounds, all of which must hold.

    Raises:
        GateSyntax: with every problem.
    """
    problems: list[Problem] = []
    bounds: list[Bound] = []
    if not isinstance(gate, Mapping) or not gate:
        raise GateSyntax([((), "a gate maps metrics to bounds: {rougeL: {at_least: base + 0.1}}")])
    for metric, given in gate.items():
        several = isinstance(given, list)
        for index, rules in enumerate(given if several else [given]):
            place = (str(metric), index) if several else (str(metric),)
            if isinstance(rules, Mapping):
                bounds.extend(_parse_rules(place, rules, problems))
            else:
                problems.append((place, f"a bound is {{at_least: …}} or {{at_most: …}}, not {rules!r}"))
    if problems:
        raise GateSyntax(problems)
    return bounds


def _parse_rules(place: tuple[str | int, ...], rules: Mapping[str, Any], problems: list[Problem]) -> list[Bound]:
    metric = str(place[0])
    relations = get_args(Relation)
    known = (*relations, "confidence")
    problems.extend(((*place, str(key)), f"unknown key{_hint(str(key), known)}") for key in rules if key not in known)
    confidence = rules.get("confidence")
    if confidence is not None and not (_is_number(confidence) and 0 < confidence < 1):
        problems.append(((*place, "confidence"), f"a number between 0 and 1, such as 0.95, not {confidence!r}"))
    bounds = []
    for relation in relations:
        if relation in rules:
            try:
                subject, other, offset = _parse_bound(metric, rules[relation])
            except ValueError as error:
                problems.append(((*place, relation), str(error)))
            else:
                bounds.append(Bound(metric, relation, subject, offset, confidence, other))
    if not any(relation in rules for relation in relations):
        problems.append((place, "says neither at_least nor at_most"))
    return bounds


def _parse_bound(metric: str, bound: object) -> tuple[str | None, str, float]:
    """The subject, its metric if it is another one, and the offset of a bound as written."""
    if _is_number(bound):
        return None, "", float(bound)  # type: ignore[arg-type]
    match = _COMPARISON.fullmatch(bound) if isinstance(bound, str) else None
    if match is None:
        raise ValueError(f"a bound is a number, `base + 0.1` or `candidate.METRIC + 0.1`, not {bound!r}")
    subject, other, sign, number = match.groups(default="")
    known = (*SUBJECTS, CANDIDATE)
    if subject not in known:
        told = _hint(subject, known) or f": for another metric of the candidate, write `candidate.{subject}`"
        raise ValueError(f"no subject {subject!r}{told} (there are {', '.join(known)})")
    other = "" if other == metric else other
    if subject == CANDIDATE and not other:
        raise ValueError(f"{metric} of the candidate is held against itself; name another metric: `candidate.METRIC`")
    offset = float(f"{sign}{number}") if number else 0.0
    if not math.isfinite(offset):
        raise ValueError(f"{number} is too large")
    return subject, other, offset


def judge(
    bound: Bound,
    candidate: Sequence[Mapping[str, Any]],
    other: Sequence[Mapping[str, Any]] | None,
    seed: int = 0,
    *,
    paired: bool = True,
) -> Decision:
    """Hold the candidate's metric against a bound.

    Args:
        bound: the bound.
        candidate: the candidate's metrics, as `Report.metric_records()` gives them.
        other: those of the bound's subject, which may be the candidate; not looked at where the bound names none.
        seed: of the resampling: the same seed always gives the same decision.
        paired: whether both sides were measured on the same examples, in the same order.

    Raises:
        InputError: if the metric was not measured, or has no examples where confidence is asked for.
        PluginError: if the examples of the two sides cannot be paired.
    """
    measured = _find(candidate, bound.metric, "the candidate")
    value = float(measured["value"])
    compared = None
    if bound.subject is not None:
        compared = _find(other or (), bound.other or bound.metric, bound.subject)
    held = bound.offset + (float(compared["value"]) if compared else 0.0)
    passed = math.isfinite(value) and _keeps(bound.relation, value, held)
    interval = None
    if bound.confidence is not None:
        interval = _interval(bound, bound.confidence, measured, compared, seed, paired=paired)
        passed = passed and _keeps(bound.relation, interval[bound.relation == "at_most"], bound.offset)
    reason = _reason(bound, value, held, passed, interval)
    return Decision(bound.metric, value, held, bound.text(), passed, interval, reason, bound.subject or "")


def _find(records: Sequence[Mapping[str, Any]], metric: str, whose: str) -> Mapping[str, Any]:
    for record in records:
        if record["name"] == metric:
            return record
    names = sorted(record["name"] for record in records)
    raise InputError(
        f"a gate asks for {metric!r}, which was not measured of {whose}{_hint(metric, names)}",
        f"Measured: {', '.join(names) or 'nothing'}.",
    )


def _keeps(relation: Relation, value: float, bound: float) -> bool:
    if math.isclose(value, bound, rel_tol=ROUNDING, abs_tol=ROUNDING):
        return True
    return value > bound if relation == "at_least" else value < bound


def _reason(bound: Bound, value: float, held: float, passed: bool, interval: tuple[float, float] | None) -> str:
    number = "" if bound.subject is None else f" = {held:.4g}"
    text = f"{bound.metric} is {value:.4g}; {'as it must be' if passed else 'it must be'} {bound.text()}{number}"
    if interval is None:
        return text
    what = "its interval" if bound.subject is None else f"the interval of its difference from {bound.compared}"
    return f"{text}; {what} is {interval[0]:.4g} to {interval[1]:.4g}"


# --- the bootstrap ------------------------------------------------------------------------------------


def _interval(
    bound: Bound,
    confidence: float,
    measured: Mapping[str, Any],
    compared: Mapping[str, Any] | None,
    seed: int,
    *,
    paired: bool,
) -> tuple[float, float]:
    sides = [side for side in (measured, compared) if side is not None]
    sizes = [len(side.get("per_example") or ()) for side in sides]
    if 0 in sizes:
        without = next(side["name"] for side in sides if not side.get("per_example"))
        raise InputError(
            f"the gate on {bound.metric} asks for confidence, but {without} was recorded without examples",
            "Leave `confidence` out, or gate on metrics that their validator records for each example.",
        )
    if paired and len(set(sizes)) > 1:
        raise PluginError(
            f"{bound.metric} has {' and '.join(map(str, sorted(sizes)))} examples for candidate and {bound.compared}",
            "A validator must measure every subject on the same examples, in the same order.",
        )
    if paired and len(sides) == 2 and all(_is_plain_mean(side) for side in sides):
        # The difference of two means over the same examples is the mean of the differences: half the work.
        pairs = zip(sides[0]["per_example"], sides[1]["per_example"], strict=True)
        sides = [{"name": bound.metric, "per_example": [one - two for one, two in pairs]}]
    statistics = bootstrap([_statistic(side) for side in sides], sizes[:1] if paired else sizes, seed)
    tail = int((1 - confidence) / 2 * RESAMPLES + ROUNDING * RESAMPLES)
    return statistics[tail], statistics[-1 - tail]


Statistic = Callable[[Sequence[int]], float]


def bootstrap(sides: Sequence[Statistic], examples: Sequence[int], seed: int) -> list[float]:
    """The sorted values that resampling gives: of one side, or of the first side minus the second.

    Args:
        sides: one or two functions from example indices to a value.
        examples: how many examples there are: one number where all sides have the same, which are drawn for all of
            them at once; else one for each side, which is drawn by itself.
        seed: of the draws.
    """
    rng = random.Random(seed)  # noqa: S311 - sampling, not secrecy
    values = []
    for _ in range(RESAMPLES):
        # Four random bytes modulo the size: the bias is below size / 2**32, and it is five times as fast.
        draws = [list(map(size.__rmod__, array("I", rng.randbytes(4 * size)))) for size in examples]
        both = draws if len(draws) == len(sides) else draws * len(sides)
        first, *rest = (side(drawn) for side, drawn in zip(sides, both, strict=True))
        values.append(first - rest[0] if rest else first)
    # Examples whose weights are all zero, or infinities on both sides, leave nothing to be confident of.
    return [math.nan] * RESAMPLES if any(map(math.isnan, values)) else sorted(values)


def _is_plain_mean(record: Mapping[str, Any]) -> bool:
    return record.get("weights") is None and record.get("aggregate", "mean") == "mean"


def _statistic(record: Mapping[str, Any]) -> Statistic:
    """The metric as a function of the examples that it is taken over."""
    values: Sequence[float] = record["per_example"]
    weights: Sequence[float] | None = record.get("weights")
    exponential = record.get("aggregate", "mean") == "exp-mean"
    if weights is not None and len(weights) != len(values):
        raise PluginError(f"metric {record['name']!r} has {len(values)} examples and {len(weights)} weights")
    weighted = values if weights is None else [w * x for w, x in zip(weights, values, strict=True)]

    def statistic(drawn: Sequence[int]) -> float:
        total = sum(map(weighted.__getitem__, drawn))
        size = len(drawn) if weights is None else sum(map(weights.__getitem__, drawn))
        if size == 0:
            return math.nan
        try:
            return math.exp(total / size) if exponential else total / size
        except OverflowError:
            return math.inf

    return statistic


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _hint(word: str, options: Sequence[str]) -> str:
    suggestion = did_you_mean(word, options)
    return f": {suggestion}" if suggestion else ""


def _plain(number: float) -> str:
    return f"{number:.12g}"
