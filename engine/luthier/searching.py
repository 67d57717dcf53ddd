"""What is known of a step's search now, and how a run does the rest of it, trial by trial."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from functools import partial

from luthier.artifacts import Artifact, Report
from luthier.errors import InputError
from luthier.events import Listener, StepLog, TrialFinished, TrialStarted
from luthier.formatting import format_metrics
from luthier.keys import History, Planned, PlannedTrial, resolve
from luthier.plans import Node, Plan
from luthier.search import Candidate, Rung, Space
from luthier.steps import StepSpec
from luthier.store import StepRecord, Store
from luthier.trials import SearchResult, Trial, find_best


@dataclass(frozen=True)
class Done:
    """A node's result: its artifact and what was noted on the way."""

    artifact: Artifact
    report: Artifact
    record: StepRecord
    cached: bool


class _Undecided(Exception):
    """A rung has trials that were not done yet, so nobody knows who goes on to the next."""


def resolve_step(
    plan: Plan,
    node: Node,
    outputs: Mapping[str, str],
    store: Store,
    history: History,
    *,
    ignore_force: Collection[str] = (),
) -> Planned:
    """What is known of a node: as `luthier.keys.resolve`, and of a search what its trials so far say."""
    look = partial(resolve, plan, outputs=outputs, store=store, history=history, ignore_force=ignore_force)
    space = node.step.space
    if space is None:
        return look(node)
    planned = _resolve_search(node, space, look, store)
    first = planned.trials[0].planned
    return replace(first, node=node, trials=planned.trials) if first.state == "depends" else planned


def _resolve_search(node: Node, space: Space, look: Callable[[Node], Planned], store: Store) -> Planned:
    known: dict[tuple[Rung, Candidate], PlannedTrial] = {}
    open_rung: Rung | None = None

    def measure(rung: Rung, candidate: Candidate) -> float | None:
        nonlocal open_rung
        if open_rung and rung is not open_rung:
            raise _Undecided
        planned = look(node.trial_of(rung, candidate))
        value = _measured(store, planned.record, space.search.metric) if planned.record else None
        result = format_metrics({space.search.metric: value}) if value is not None else ""
        known[rung, candidate] = PlannedTrial(candidate.label, space.amount(rung), planned, result)
        if planned.record or planned.failed:
            return value
        open_rung = rung
        return 0.0

    try:
        best = find_best(space, measure)
    except _Undecided:
        best = None
    trials = tuple(known.values())
    if best and not open_rung:
        return replace(known[space.rungs[-1], best].planned, node=node, trials=trials)
    cached = sum(trial.planned.record is not None for trial in trials)
    told = f"; {cached} of {space.size} trials cached" if cached else ""
    return Planned(node, None, None, None, f"{space.describe()}{told}", trials)


def _measured(store: Store, record: StepRecord, metric: str) -> float | None:
    artifact = store.get(record.report)
    return _metric_of(artifact, metric) if artifact else None


def _metric_of(report: Artifact, metric: str) -> float | None:
    return Report.at(report.path / "0", "report", report.hash).metrics.get(metric)


@dataclass(frozen=True)
class Attempt:
    """What came of a trial: its result, or why its component refused to go on."""

    key: str
    done: Done | None
    error: str = ""


def search(node: Node, result: SearchResult, attempt: Callable[[Node], Attempt], listen: Listener) -> tuple[Node, Done]:
    """Do the trials of a step's search, one after the other: each has the whole machine.

    Args:
        result: the record, which is filled in on the way.
        attempt: does a trial, or takes it from the store.
        listen: told of each trial.

    Returns:
        The trial that won, and its result with the seconds of all trials.

    Raises:
        InputError: if all candidates failed, or one does not report the metric.
    """
    space, step = node.step.space, node.step
    assert space is not None
    done: dict[tuple[Rung, Candidate], Done] = {}

    def measure(rung: Rung, candidate: Candidate) -> float | None:
        number, amount = len(result.trials) + 1, space.amount(rung)
        of = max(number, space.size)
        listen(TrialStarted(step=step.id, trial=candidate.label, budget=amount, number=number, of=of))
        made = attempt(node.trial_of(rung, candidate))
        trial = Trial(candidate.number, rung.number, dict(candidate.values), rung.budget, key=made.key)
        if made.done:
            done[rung, candidate] = made.done
            _enter(trial, made.done, step, space.search.metric)
        else:
            trial.state, trial.error = "failed", made.error
        result.trials.append(trial)
        listen(
            TrialFinished(
                step=step.id,
                trial=trial.label,
                budget=amount,
                metric=space.search.metric,
                value=trial.value,
                cached=trial.cached,
                seconds=trial.seconds,
                error=trial.error,
            )
        )
        return trial.value

    best = find_best(space, measure)
    if best is None:
        raise InputError(
            f"every candidate of its search failed: {'; '.join(dict.fromkeys(result.failures()))}",
            f"Give it other values. Trials that failed are done again with --force {step.id} only.",
        )
    result.chosen = dict(best.values)
    last, winner = space.rungs[-1], done[space.rungs[-1], best]
    told = f"the best of {len(space.candidates)} candidates is {best.label}"
    listen(StepLog(step=step.id, level="info", message=told))
    seconds = round(sum(trial.seconds for trial in result.trials), 3)
    cached = all(each.cached for each in done.values())
    return node.trial_of(last, best), replace(winner, record=replace(winner.record, seconds=seconds), cached=cached)


def _enter(trial: Trial, done: Done, step: StepSpec, metric: str) -> None:
    trial.value = _metric_of(done.report, metric)
    trial.cached, trial.seconds, trial.report = done.cached, done.record.seconds, done.report.hash
    if trial.value is None:
        raise InputError(
            f"{step.component} reported no {metric}, by which its candidates are compared",
            "See what it needs to measure it, or give each parameter one value.",
        )
