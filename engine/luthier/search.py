"""Lists of values for a step's parameters: the candidates they stand for, and the rungs of their comparison.

The candidates are compared by successive halving (Jamieson and Talwalkar 2016, "Non-stochastic best arm
identification and hyperparameter optimization"), with the numbers of Hyperband's inner loop (Li et al. 2018, JMLR
18(185), algorithm 1): all of them at a part of the budget, the best third at three times that, and so on up to the
whole budget. A trial is one candidate at the budget of one rung. It is a step like any other, with a key of its own:
nothing goes on from one rung to the next but the ranking, since a learning rate's schedule is of one budget.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from luthier.components import Component, ConfigurationError, Problem, plain_value
from luthier.errors import InputError, LuthierError
from luthier.formatting import format_number
from luthier.nodes import dump_scalar
from luthier.schema_walk import branches
from luthier.searchable import Search

ETA = 3
"""One in so many candidates goes on, to so many times the budget; Hyperband's authors advise 3 or 4."""

MAX_CANDIDATES = 100


@dataclass(frozen=True, eq=False)
class Candidate:
    """One choice of a value from each list.

    Attributes:
        number: its place among all, from 1.
        values: the values chosen, by parameter, as the recipe has them.
        config: the whole configuration, as that of a step that had these values alone.
    """

    number: int
    values: Mapping[str, Any]
    config: dict[str, Any]

    @property
    def label(self) -> str:
        """The values for people: `rank=8 learning_rate=0.0001`."""
        return label(self.values)


@dataclass(frozen=True)
class Rung:
    """A round of the comparison: how many candidates get how much.

    Attributes:
        number: from 1; the last rung has the whole budget.
        candidates: how many are compared.
        budget: what each of them gets; None where the recipe gives no budget, so that each does all it does.
    """

    number: int
    candidates: int
    budget: float | None


@dataclass(frozen=True)
class Space:
    """What a step with lists is searched for.

    Attributes:
        search: what its component compares by.
        lists: the values of each parameter that has a list, as the recipe has them.
        candidates: every combination of them, the last list's values varying fastest.
        budget: the parameter that gives the budget; empty where none does.
        rungs: the rounds of the comparison.
    """

    search: Search
    lists: Mapping[str, Sequence[Any]]
    candidates: tuple[Candidate, ...]
    budget: str
    rungs: tuple[Rung, ...]

    @property
    def size(self) -> int:
        """The number of trials, if none fails."""
        return sum(rung.candidates for rung in self.rungs)

    def config(self, candidate: Candidate, rung: Rung) -> dict[str, Any]:
        """The configuration of a trial; in the last rung it is the candidate's own."""
        return candidate.config if rung is self.rungs[-1] else {**candidate.config, self.budget: rung.budget}

    def amount(self, rung: Rung) -> str:
        """A rung's budget for people: `1.33 minutes`; empty where there is none."""
        return _amount(rung.budget, self.search.budgets[self.budget]) if rung.budget is not None else ""

    def describe(self) -> str:
        """The search in a line: how many candidates get how much, and what that is in all."""
        many = "candidate" if len(self.candidates) == 1 else "candidates"
        what = f"search of {len(self.candidates)} {many} by {self.search.metric}"
        if not self.budget:
            return f"{what}, each in full"
        unit = self.search.budgets[self.budget]
        rungs = ", ".join(f"{rung.candidates} at {format_number(rung.budget or 0)}" for rung in self.rungs)
        total = sum(rung.candidates * (rung.budget or 0) for rung in self.rungs)
        return f"{what}: {rungs} {unit}, {_amount(total, unit)} in all"


def label(values: Mapping[str, Any]) -> str:
    """A choice of values for people: `rank=8 learning_rate=0.0001`."""
    return " ".join(f"{name}={dump_scalar(value)}" for name, value in values.items())


def _amount(budget: float, unit: str) -> str:
    return f"{format_number(budget)} {unit}"


# --- from lists to candidates -------------------------------------------------------------------------


def lists_in(component: Component, configuration: Mapping[str, Any]) -> dict[str, list[Any]]:
    """The parameters that were given a list of values to choose from, rather than a value that is a list.

    Where a parameter's type has lists, only a list that is no such value, and has a list in it, is one of values:
    `targets: [[q_proj], [q_proj, v_proj]]`. A component that declares no search has none.
    """
    if component.declared.search is None:
        return {}
    schema = component.model.model_json_schema()
    refused = _refused(component, configuration)
    found = {}
    for name, value in configuration.items():
        prop = schema.get("properties", {}).get(name)
        if prop is None or not isinstance(value, list) or name not in refused:
            continue
        if not takes_lists(schema, prop) or any(isinstance(each, list) for each in value):
            found[name] = value
    return found


def takes_lists(root: Mapping[str, Any], schema: Mapping[str, Any]) -> bool:
    """Whether values of a schema may be lists; `root` holds its definitions."""
    return any(branch.get("type") == "array" for branch in branches(root, schema))


def _refused(component: Component, configuration: Mapping[str, Any]) -> set[str]:
    """The keys whose values the component's signature refuses as they stand."""
    try:
        component.configure(configuration)
    except ConfigurationError as error:
        return {str(problem.key[0]) for problem in error.problems if problem.key}
    return set()


def read_space(
    component: Component, configuration: Mapping[str, Any], lists: Mapping[str, list[Any]], locate: Callable[[str], str]
) -> Space:
    """The space that a configuration with lists stands for.

    Args:
        lists: those of `lists_in`; not empty.
        locate: makes a location absolute.

    Raises:
        ConfigurationError: with everything that is wrong; the path of a value in a list has its index.
    """
    search = component.declared.search
    assert search is not None
    _check_lists(component, search, lists)
    candidates, problems = [], dict[Problem, None]()
    for number, chosen in enumerate(_choices(lists), 1):
        values = {name: lists[name][index] for name, index in chosen.items()}
        try:
            config = _configured(component, search, {**configuration, **values}, locate)
        except ConfigurationError as error:
            problems |= dict.fromkeys(_with_index(problem, chosen, values) for problem in error.problems)
        else:
            candidates.append(Candidate(number, values, config))
    if not problems:
        problems |= dict.fromkeys(_repeated(lists, candidates))
    if problems:
        raise ConfigurationError(component, list(problems))
    budget = next((name for name in search.budgets if candidates[0].config[name] is not None), "")
    return Space(search, lists, tuple(candidates), budget, _rungs(component, candidates, budget))


def _check_lists(component: Component, search: Search, lists: Mapping[str, Sequence[Any]]) -> None:
    problems = [Problem((name,), "an empty list of values; a search needs some") for name in lists if not lists[name]]
    problems += [
        Problem((name,), "a list, but it is the budget, which all candidates of a search share")
        for name in lists
        if name in search.budgets
    ]
    count = math.prod(len(values) for values in lists.values())
    if count > MAX_CANDIDATES:
        names = ", ".join(lists)
        message = f"{count} combinations of {names}; a search has at most {MAX_CANDIDATES} candidates"
        problems.append(Problem((next(iter(lists)),), message))
    if problems:
        raise ConfigurationError(component, problems)


def _choices(lists: Mapping[str, Sequence[Any]]) -> Iterator[dict[str, int]]:
    """Every combination, as the index of each parameter's value."""
    for indices in itertools.product(*(range(len(values)) for values in lists.values())):
        yield dict(zip(lists, indices, strict=True))


def _configured(
    component: Component, search: Search, configuration: Mapping[str, Any], locate: Callable[[str], str]
) -> dict[str, Any]:
    """A candidate's configuration, checked, as JSON values."""
    values = component.configure(configuration)
    if search.check:
        try:
            search.check(**values)
        except InputError as error:
            message = f"{error.message} ({error.remedy})" if error.remedy else error.message
            raise ConfigurationError(component, [Problem((), message)]) from None
    config, problems = {}, []
    for name, value in values.items():
        try:
            config[name] = plain_value(value, locate)
        except LuthierError as error:
            problems.append(Problem((name,), error.message))
    if problems:
        raise ConfigurationError(component, problems)
    return config


def _with_index(problem: Problem, chosen: Mapping[str, int], values: Mapping[str, Any]) -> Problem:
    """A candidate's problem as one of the recipe: at the value in its list, or naming the candidate it is of."""
    if problem.key and problem.key[0] in chosen:
        name = str(problem.key[0])
        return Problem((name, chosen[name], *problem.key[1:]), problem.message, problem.unknown)
    return problem if problem.key else Problem((), f"{label(values)}: {problem.message}")


def _repeated(lists: Mapping[str, Sequence[Any]], candidates: Sequence[Candidate]) -> Iterator[Problem]:
    """Values that are in a list twice, also where they are written differently: 1 and 1.0, two ways to one file."""
    for name, values in lists.items():
        read = {json.dumps(each.values[name]): json.dumps(each.config[name]) for each in candidates}
        seen: dict[str, int] = {}
        for index, value in enumerate(values):
            first = seen.setdefault(read[json.dumps(value)], index)
            if first != index:
                yield Problem((name, index), f"{dump_scalar(value)} again: it is the same as the value {first + 1}")


def _rungs(component: Component, candidates: Sequence[Candidate], budget: str) -> tuple[Rung, ...]:
    """The rungs of Hyperband's inner loop: at the i-th of s + 1, floor(n / 3^i) candidates get 3^(i - s) of the budget.

    i counts from 0, and s is the largest with 3^s <= n: the last rung has one candidate or two. It is less where
    the budget cannot be divided so far. Without a budget, and for two candidates, that is a plain comparison.
    """
    whole = candidates[0].config[budget] if budget else None
    levels, lowest = 0, whole
    while whole is not None and ETA ** (levels + 1) <= len(candidates):
        share = _share(whole, ETA ** (levels + 1))
        if share == lowest or _refused(component, {**candidates[0].config, budget: share}):
            break
        levels, lowest = levels + 1, share
    return tuple(
        Rung(level + 1, len(candidates) // ETA**level, _share(whole, ETA ** (levels - level)))
        for level in range(levels + 1)
    )


def _share(whole: float | None, parts: int) -> float | None:
    """A part of a budget: whole numbers stay whole, others get three digits, which can be typed again."""
    if whole is None or parts == 1:
        return whole
    return math.ceil(whole / parts) if isinstance(whole, int) else float(f"{whole / parts:.3g}")
