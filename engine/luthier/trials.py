"""The comparison of a search's candidates, and what a run's record says of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from luthier.formatting import format_number, format_seconds
from luthier.nodes import dump_scalar
from luthier.search import Candidate, Rung, Space, label


def find_best(space: Space, measure: Callable[[Rung, Candidate], float | None]) -> Candidate | None:
    """Compare the candidates rung by rung.

    A candidate that fails gives its place to the next best of the rung before. Of equal ones, the first wins.

    Args:
        measure: the metric of a candidate at a rung's budget; None if it failed.

    Returns:
        The best of the last rung; None if all failed there.
    """
    sign = 1 if space.search.better == "lower" else -1
    ranked: list[Candidate] = list(space.candidates)
    for rung in space.rungs:
        measured: list[tuple[float, Candidate]] = []
        for candidate in ranked:
            if len(measured) == rung.candidates:
                break
            value = measure(rung, candidate)
            if value is not None:
                measured.append((sign * value, candidate))
        ranked = [candidate for _, candidate in sorted(measured, key=lambda each: each[0])]
    return ranked[0] if ranked else None


@dataclass
class Trial:
    """What became of one candidate at one rung.

    Attributes:
        candidate, rung: their numbers, from 1.
        values: the candidate's values.
        budget: what it got; None where there was no budget.
        state: `failed` where the component refused to go on.
        value: the metric.
        seconds: how long it took, in whichever run that was.
        key, report: of its step, as that of any other.
        error: why it failed.
    """

    candidate: int
    rung: int
    values: dict[str, Any]
    budget: float | None
    state: Literal["done", "failed"] = "done"
    value: float | None = None
    cached: bool = False
    seconds: float = 0.0
    key: str = ""
    report: str = ""
    error: str = ""

    @property
    def label(self) -> str:
        """The candidate's values for people."""
        return label(self.values)


@dataclass
class SearchResult:
    """What a run says of the search of a step.

    Attributes:
        metric, better: what the candidates are compared by.
        budget, unit: the parameter that gives the budget, and what it counts; empty where there is none.
        lists: the values that were given for each parameter.
        rungs: the budget of each rung.
        trials: in the order in which they were done.
        chosen: the values that won; None as long as it is not decided.
    """

    metric: str
    better: str
    budget: str
    unit: str
    lists: dict[str, list[Any]]
    rungs: list[float | None]
    trials: list[Trial] = field(default_factory=list)
    chosen: dict[str, Any] | None = None

    @classmethod
    def of(cls, space: Space) -> SearchResult:
        """The record of a search that has not begun."""
        search = space.search
        return cls(
            search.metric,
            search.better,
            space.budget,
            search.budgets.get(space.budget, ""),
            {name: list(values) for name, values in space.lists.items()},
            [rung.budget for rung in space.rungs],
        )

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> SearchResult:
        """Read it from `run.json`."""
        return cls(**{**record, "trials": [Trial(**trial) for trial in record["trials"]]})

    def table(self) -> tuple[list[str], list[tuple[str, ...]]]:
        """The candidates with their metrics by rung, as text: the names of the columns, and the rows, best first.

        A candidate that came further is better than one that did not, whatever it had before.
        """
        heads = [f"{self.metric} at {format_number(each)} {self.unit}" if each else self.metric for each in self.rungs]
        trials: dict[int, dict[int, Trial]] = {}
        for trial in self.trials:
            trials.setdefault(trial.candidate, {})[trial.rung] = trial
        sign = 1 if self.better == "lower" else -1

        def standing(of: dict[int, Trial]) -> tuple[bool, int, float]:
            done = [rung for rung, trial in of.items() if trial.value is not None]
            last = of[max(done)].value if done else None
            return not self._is_chosen(of), -max(done, default=0), sign * last if last is not None else math.inf

        rows = [self._row(of) for of in sorted(trials.values(), key=standing)]
        return ["", *self.lists, *heads, "time"], rows

    def _is_chosen(self, trials: Mapping[int, Trial]) -> bool:
        return next(iter(trials.values())).values == self.chosen

    def _row(self, trials: Mapping[int, Trial]) -> tuple[str, ...]:
        """One candidate: a mark for the chosen one, its values, its metric at each rung, its time in all."""
        values = next(iter(trials.values())).values
        cells = []
        for rung in range(1, len(self.rungs) + 1):
            trial = trials.get(rung)
            value = trial.value if trial else None
            cells.append("failed" if trial and value is None else format_number(value) if value is not None else "")
        seconds = format_seconds(sum(trial.seconds for trial in trials.values()))
        return ("✓" if self._is_chosen(trials) else "", *map(dump_scalar, values.values()), *cells, seconds)

    def failures(self) -> list[str]:
        """Each failed trial, and why."""
        return [f"{trial.label}: {trial.error}" for trial in self.trials if trial.state == "failed"]
