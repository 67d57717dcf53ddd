"""How a champion's metrics went from round to round: what the registry's history, and the runs that it names, tell.

Only what is measured on data that no feedback enters is told: held-back feedback is another test set in each round.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import luthier
from luthier import HistoryEntry, InputError
from luthier_feedback.improvement.measures import Measure, Relation, frozen_steps
from luthier_feedback.improvement.place import champion_of

OF_A_MODEL = ("promoted", "refused", "rolled back", "evaluated")
"""The events of a history that are of a model: of the last one, of the champion that there was."""


@dataclass(frozen=True)
class Line:
    """A metric that was measured in the same way in each round.

    Attributes:
        step: the validator's step.
        metric: its name there.
        values: for each happening in order; None where the run is gone or did not measure it.
    """

    step: str
    metric: str
    values: Sequence[float | None]

    @property
    def name(self) -> str:
        """As `--metric` names it."""
        return f"{self.step}.{self.metric}"


@dataclass(frozen=True)
class Happening:
    """An entry of the history that is of a model.

    Attributes:
        number: of the entry.
        event: `promoted`, `refused`, `rolled back` or `evaluated`.
        run: whose model it is, or that evaluated it.
        rows: of feedback that could be learnt from then; None where `improve` did not decide it.
        why: the reason, as the history has it.
    """

    number: int
    event: str
    run: str
    rows: int | None
    why: str


@dataclass(frozen=True)
class Rounds:
    """Everything that happened under a name, oldest first, with the metrics that can be followed.

    Attributes:
        happenings: in the order of the history; of evaluations, those that measured what is followed.
        lines: the metrics that gates name, of each step that measures them on data without feedback.
        better: of each metric, which way is better; None where gates bound it on both sides.
    """

    happenings: Sequence[Happening]
    lines: Sequence[Line]
    better: dict[str, Relation | None]

    @property
    def metrics(self) -> list[str]:
        """The names of the metrics that there are lines of."""
        return list(dict.fromkeys(line.metric for line in self.lines))


def look_back(name: str, home: Path, planned: Iterable[Any], measures: Sequence[Measure]) -> Rounds:
    """Read what happened under a name.

    A validator without a gate is followed too where another step's gate names its metric: so a recipe may have a test
    set that decides nothing.

    Args:
        name: the champion's; one that has none has no rounds.
        home: the store.
        planned: the recipe's plan.
        measures: the metrics of its gates.
    """
    champion = champion_of(name, home)
    entries = [each for each in (champion.history() if champion else []) if each.event in OF_A_MODEL]
    followed = frozen_steps(planned)
    measured = {run: _metrics(run, home) for run in dict.fromkeys(entry.run for entry in entries)}
    better: dict[str, Relation | None] = {}
    for measure in measures:
        better.setdefault(measure.metric, measure.relation)
    entries = [each for each in entries if each.event != "evaluated" or _measures(measured[each.run], followed, better)]
    lines = [
        Line(step, metric, [measured[entry.run].get(step, {}).get(metric) for entry in entries])
        for metric in better
        for step in followed
    ]
    known = [line for line in lines if any(value is not None for value in line.values)]
    return Rounds([_happening(entry) for entry in entries], known, better)


def _measures(measured: Mapping[str, Mapping[str, float]], steps: Sequence[str], metrics: Iterable[str]) -> bool:
    """Whether a run measured any of the metrics in any of the steps."""
    return any(metric in measured.get(step, {}) for metric in metrics for step in steps)


def _metrics(run: str, home: Path) -> dict[str, dict[str, float]]:
    try:
        return luthier.find_run(run, home=home).metrics
    except InputError:
        return {}  # Somebody removed a run that was refused, or was let go.


def _happening(entry: HistoryEntry) -> Happening:
    rows = entry.decision.get("rows")
    usable = rows.get("usable") if isinstance(rows, dict) else None
    return Happening(entry.number, entry.event, entry.run, usable, entry.why)
