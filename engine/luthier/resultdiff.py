"""What two runs gave: the documents that their data steps counted, metrics with intervals, gates that flipped."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from luthier.errors import LuthierError
from luthier.gates import Bound, judge
from luthier.runrecord import GateResult, NodeResult, StepResult
from luthier.runs import Run

CONFIDENCE = 0.95


def count_changes(step: str, before: StepResult | None, after: StepResult | None) -> list[dict[str, Any]]:
    """The counts of a step that differ: `step`, `name`, `before`, `after`; None where one run lacks the step."""
    was, now = (side.counts if side else {} for side in (before, after))
    return [
        {"step": step, "name": name, "before": one if before else None, "after": other if after else None}
        for name, one, other in paired(was, now)
        if (one or 0) != (other or 0)  # A count of none is as good as no count.
    ]


def metric_changes(step: str, before: StepResult | None, after: StepResult | None) -> list[dict[str, Any]]:
    """The metrics of a step that differ: `step`, `metric`, `before`, `after`; None where one run has none."""
    was, now = (side.metrics if side else {} for side in (before, after))
    return [
        {"step": step, "metric": name, "before": one, "after": other}
        for name, one, other in paired(was, now)
        if one != other
    ]


def intervals(before: Run, after: Run, metrics: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The intervals of those metrics that were measured on the same examples; see `interval`."""
    for each in metrics:
        if each["before"] is None or each["after"] is None:
            continue
        found = interval(before, after, each["step"], each["metric"])
        if found:
            yield {
                "step": each["step"],
                "metric": each["metric"],
                "difference": each["after"] - each["before"],
                "low": found[0],
                "high": found[1],
                "confidence": CONFIDENCE,
            }


def interval(before: Run, after: Run, step: str, metric: str) -> tuple[float, float] | None:
    """The 95% interval of a metric's difference, the later run's minus the earlier one's, by the gates' bootstrap.

    None unless both runs measured single examples, the same ones: with the same validator, code and
    configuration apart from the models, on the same data.
    """
    subject, _, name = metric.rpartition(".") if "." in metric else ("candidate", "", metric)
    try:
        one, other = _node_of(before.step(step), subject), _node_of(after.step(step), subject)
        if one is None or other is None or not _same_examples(one, other):
            return None
        was, now = before.report(step, subject), after.report(step, subject)
        if was is None or now is None:
            return None
        # A bound names one of the gates' subjects; which of them changes nothing in the interval.
        bound = Bound(name, "at_least", "base", 0.0, CONFIDENCE)
        found = judge(bound, now.metric_records(), was.metric_records(), after.data.seed).interval
    except LuthierError:
        return None
    return found if found and not any(map(math.isnan, found)) else None


def _node_of(step: StepResult, subject: str) -> NodeResult | None:
    return next((node for node in step.nodes if (node.subject or "candidate") == subject and node.ingredients), None)


def _same_examples(one: NodeResult, other: NodeResult) -> bool:
    """Whether two measurements are of the same examples in the same order."""

    def what(node: NodeResult) -> tuple[Any, ...]:
        part = own_ingredients(node)
        data = node.ingredients.get("inputs", {}).get("data")
        return part.get("component"), part.get("code"), part.get("config"), data

    return what(one) == what(other)


def own_ingredients(node: NodeResult) -> Mapping[str, Any]:
    """The ingredients that are the step's own, where neighbours are done in one pass with it."""
    parts = node.ingredients.get("parts", [])
    return parts[node.part] if node.part < len(parts) else {}


def flipped(before: Run, after: Run) -> Iterator[dict[str, Any]]:
    """The gates that passed in one run and not in the other."""
    for then, gate in pair_gates(before.gates, after.gates):
        if then.passed != gate.passed:
            yield {
                "step": gate.step,
                "metric": gate.metric,
                "bound": gate.bound,
                "before": then.passed,
                "after": gate.passed,
                "reason": gate.reason,
            }


def pair_gates(before: Sequence[GateResult], after: Sequence[GateResult]) -> list[tuple[GateResult, GateResult]]:
    """The gates of both runs on the same metric of the same step, in the order of the later run.

    Of several on one metric, the same bounds go together, then those of the same relation, then what is left in order.
    """
    alike: tuple[Callable[[GateResult], Any], ...] = (
        lambda gate: gate.bound,
        lambda gate: gate.bound.split()[:2],  # `at least`, `at most`
        lambda gate: None,
    )
    left, found = dict(enumerate(before)), dict[int, GateResult]()
    for likeness in alike:
        for place, gate in enumerate(after):
            if place in found:
                continue
            for index, then in left.items():
                if (then.step, then.metric, likeness(then)) == (gate.step, gate.metric, likeness(gate)):
                    found[place] = left.pop(index)
                    break
    return [(found[place], gate) for place, gate in enumerate(after) if place in found]


def paired(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """The values of both by name, in order; None where one has none."""
    return [(name, before.get(name), after.get(name)) for name in dict.fromkeys([*before, *after])]
