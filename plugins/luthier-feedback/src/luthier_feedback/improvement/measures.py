"""What of a recipe can be compared with the champion: the metrics of its gates, and on which data they are taken."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from luthier import InputError, parse_gate
from luthier.suggest import did_you_mean

CHAMPION = "champion"
HELD_BACK = "held-back feedback"
FROZEN = "frozen test set"
BOTH = "test set with held-back feedback"

Relation = Literal["at_least", "at_most"]


@dataclass(frozen=True)
class Measure:
    """A metric that a gate of the recipe names.

    Attributes:
        step: the validator's step.
        metric: its name there.
        relation: `at_least` where more is better, `at_most` where less is; None where gates bound it on both sides.
        data: what it is taken on: held-back feedback, the frozen test set, or both in one.
        compared: whether the step measures the champion too.
    """

    step: str
    metric: str
    relation: Relation | None
    data: str
    compared: bool

    @property
    def name(self) -> str:
        """As `--metric` names it."""
        return f"{self.step}.{self.metric}"


def is_feedback(step: Any) -> bool:
    """Whether a checked step (of `luthier.plan`) reads the feedback log."""
    return (step.stage.name, step.component.name) == ("source", "feedback")


def feedback_steps(planned: Iterable[Any]) -> list[Any]:
    """The steps of a plan that read the feedback log."""
    return [step for each in planned for step in each.node.parts if is_feedback(step)]


def gated_measures(planned: Iterable[Any]) -> list[Measure]:
    """The metrics that a plan's gates name, in the recipe's order."""
    nodes: dict[str, list[Any]] = {}
    for each in planned:
        if each.node.parts and each.node.step.gate:
            nodes.setdefault(each.node.step.id, []).append(each.node)
    found = []
    for step, those in nodes.items():
        relations: dict[str, set[Relation]] = {}
        for bound in parse_gate(those[0].step.gate):
            relations.setdefault(bound.metric, set()).add(bound.relation)
        compared = any(node.subject == CHAMPION for node in those)
        for metric, known in relations.items():
            relation = next(iter(known)) if len(known) == 1 else None
            found.append(Measure(step, metric, relation, _data_of(those[0]), compared))
    return found


def frozen_steps(planned: Iterable[Any]) -> list[str]:
    """The validators' steps, with or without a gate, that measure on data which no feedback enters."""
    validators = (each.node for each in planned if each.node.task == "validate")
    return list(dict.fromkeys(node.step.id for node in validators if _data_of(node) == FROZEN))


def choose(measures: Sequence[Measure], name: str | None) -> Measure:
    """The metric that the challenger has to be better in: the one of that name, else the first that can be compared.

    Raises:
        InputError: if there is none, or it cannot be compared with the champion.
    """
    names = [each.name for each in measures]
    if name is not None:
        found = next((each for each in measures if each.name == name), None)
        if found is None:
            hint = did_you_mean(name, names) or f"Gates name: {', '.join(names) or 'nothing'}."
            raise InputError(f"--metric: no gate names {name!r}, so nobody knows which way is better", hint)
        if found.relation is None:
            raise InputError(f"--metric: {name} is bounded on both sides, so neither way is better", _another(measures))
        if not found.compared:
            raise InputError(f"--metric: {found.step} does not measure the champion", _another(measures))
        return found
    chosen = next((each for each in measures if each.relation and each.compared), None)
    if chosen is None:
        raise InputError(
            "no gate of the recipe names a metric that is measured of the champion too",
            "Give a validator a gate: gate: {METRIC: {at_least: NUMBER}}, and `champion` among its `subjects` if it "
            "lists them.",
        )
    return chosen


def _another(measures: Sequence[Measure]) -> str:
    names = [each.name for each in measures if each.relation and each.compared]
    return f"Name one of these: {', '.join(names)}." if names else "No other metric of a gate can be compared."


def _data_of(validator: Any) -> str:
    data = validator.inputs.get("data")
    waiting = [data] if data else []
    reads = set()
    while waiting:
        node = waiting.pop()
        reads |= {is_feedback(step) for step in node.parts if step.stage.name == "source"}
        waiting += node.inputs.values()
    return FROZEN if True not in reads else HELD_BACK if False not in reads else BOTH
