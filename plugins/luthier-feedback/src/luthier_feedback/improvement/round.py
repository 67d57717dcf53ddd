"""One round: run the recipe with the feedback that there is, compare its model with the champion, promote or refuse."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import luthier
from luthier import Champion, HistoryEntry, InputError, Run
from luthier.errors import GateRefused
from luthier.suggest import did_you_mean
from luthier_feedback.improvement.comparing import TOLERANCE, Comparison, Tolerance, compare
from luthier_feedback.improvement.fresh import new_since, usable_now
from luthier_feedback.improvement.measures import Measure, choose, feedback_steps, gated_measures
from luthier_feedback.improvement.outcome import Against, Outcome, Verdict, read_json, write_json
from luthier_feedback.improvement.page import page_path, write_page
from luthier_feedback.improvement.place import alone, champion_of, directory_for, home_of, name_of, told_plugins
from luthier_feedback.improvement.rounds import look_back
from luthier_feedback.quarantine import count_acts
from luthier_feedback.seen import runs_in

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Wanted:
    """What was asked for.

    Attributes:
        recipe: its file.
        metric: STEP.METRIC that must be better; the first of its gates that can be compared, if None.
        confidence: of the intervals, both sides together.
        tolerance: of every gated metric besides, as long as it has none of its own in `tolerances`, by STEP.METRIC.
        dry_run: decide, and promote nothing.
        wait: for another round of the recipe to end.
        home: the store; LUTHIER_HOME, else `.luthier` beside the recipe, if None.
        plugins: one-file plugins besides those in `plugins.d/`.
        device: where models run.
        display: show the run's progress.
    """

    recipe: Path
    metric: str | None = None
    confidence: float = 0.95
    tolerance: Tolerance = TOLERANCE
    tolerances: Mapping[str, Tolerance] = field(default_factory=dict)
    dry_run: bool = False
    wait: bool = False
    home: Path | None = None
    plugins: Sequence[Path] = ()
    device: str = "auto"
    display: bool = True


@dataclass(frozen=True)
class Known:
    """What is known before anything runs.

    Attributes:
        name: the recipe's, and so the champion's.
        champion: None where there is none.
        taken_back: the models that people rolled back from, by hash, each with its promotion and the rollback.
        planned: the plan.
        measures: the metrics of its gates.
        asked: the one that must be better; None without a champion.
        usable: the ids of the rows of feedback that can be learnt from now, each with its comparison, if it is of one.
        decided: the newest run that a round decided on, and what it decided; None before the first.
    """

    name: str
    champion: Champion | None
    taken_back: Mapping[str, tuple[HistoryEntry, HistoryEntry]]
    planned: Sequence[Any]
    measures: Sequence[Measure]
    asked: Measure | None
    usable: Mapping[str, Hashable]
    decided: tuple[Run, Mapping[str, Any]] | None

    @property
    def against(self) -> Against:
        """The champion, as an outcome tells it."""
        champion = self.champion
        return Against(champion.number, champion.entry.run, champion.hash) if champion else Against()

    def rows(self) -> dict[str, int | None]:
        """How many rows are usable, new since the champion, and not decided on."""
        new, undecided = (None if each is None else len(each) for each in (self._new, self._undecided))
        return {"usable": len(self.usable), "new": new, "undecided": undecided}

    def undecided_acts(self) -> int | None:
        """How many acts of feedback no round decided on: the two votes of a comparison are one."""
        if self._undecided is None:
            return None
        return count_acts(self.usable[row] for row in self._undecided)

    @cached_property
    def _new(self) -> Set[str] | None:
        try:
            return new_since(self.usable.keys(), self.champion.run if self.champion else None)
        except InputError:
            return None  # Somebody removed the run; its model is there all the same.

    @cached_property
    def _undecided(self) -> Set[str] | None:
        last = new_since(self.usable.keys(), self.decided[0] if self.decided else None)
        return None if self._new is None or last is None else self._new & last


def improve(wanted: Wanted, tell: Tell = lambda line: None) -> Outcome:
    """Do a round.

    Args:
        wanted: what was asked for.
        tell: is told what is known before the run.

    Raises:
        InputError: if the recipe, the log or the champion cannot be used, or another round of the recipe goes on.
        LuthierError: if the run fails.
    """
    home = home_of(wanted.recipe, wanted.home)
    luthier.plan(wanted.recipe, home=home, plugins=wanted.plugins)  # What is wrong with a recipe is told first.
    name = name_of(wanted.recipe)
    what = f"another `luthier improve` of {name!r} goes on in {home}"
    lock = directory_for(home, name) / "lock"
    with alone(lock, what, "Wait until it ends: --wait. Nothing was done.", wait=wanted.wait):
        known = look(wanted)
        rows = known.rows()
        tell(told_rows(rows, known.against))
        nothing = _nothing_to_decide(wanted, known)
        if nothing:
            return replace(_outcome(wanted, known, "unchanged", [nothing], rows), number=known.against.number)
        run = _run(wanted)
        return _decide(wanted, known, run, rows)


def plan_of(wanted: Wanted, home: Path) -> Sequence[Any]:
    """The plan of a recipe that reads feedback.

    Raises:
        InputError: if the recipe or the log cannot be used, or the one does not read the other.
    """
    planned = luthier.plan(wanted.recipe, home=home, plugins=wanted.plugins)
    if not feedback_steps(planned):
        raise InputError(
            f"{wanted.recipe}: no step reads feedback",
            "Add one: `source: feedback`. Or only run it: luthier run RECIPE",
        )
    return planned


def look(wanted: Wanted) -> Known:
    """Find out what is known before anything runs.

    Raises:
        InputError: if the recipe, the log or the champion cannot be used, or what is asked for cannot be compared.
    """
    home = home_of(wanted.recipe, wanted.home)
    planned = plan_of(wanted, home)
    steps = feedback_steps(planned)
    name = name_of(wanted.recipe)
    champion = champion_of(name, home)
    measures = gated_measures(planned)
    if not measures:
        raise InputError(f"{wanted.recipe}: no validator has a gate", "Say what a model must keep to: gate: {…}")
    _check_tolerances(wanted.tolerances, measures)
    asked = None
    if champion:
        champion.model(verify=True)
        asked = choose(measures, wanted.metric)
    elif wanted.metric is not None and wanted.metric not in [each.name for each in measures]:
        choose(measures, wanted.metric)
    decided = _last_decided(name, home)
    taken_back = champion.taken_back() if champion else {}
    return Known(name, champion, taken_back, planned, measures, asked, usable_now(steps), decided)


def _check_tolerances(tolerances: Mapping[str, Tolerance], measures: Sequence[Measure]) -> None:
    names = [each.name for each in measures]
    for name in tolerances:
        if name not in names:
            hint = did_you_mean(name, names) or f"Gates name: {', '.join(names)}."
            raise InputError(f"--tolerance: no gate of the recipe names {name!r}", hint)


def _last_decided(name: str, home: Path) -> tuple[Run, Mapping[str, Any]] | None:
    for run in runs_in(home):
        decision = read_json(run) if run.data.recipe == name else None
        if decision:
            return run, decision
    return None


def _question(wanted: Wanted, known: Known) -> dict[str, Any]:
    """What a decision was an answer to: the same question about the same models has the same answer."""
    own = {name: each.text() for name, each in sorted(wanted.tolerances.items())}
    return {
        "metric": known.asked.name if known.asked else "",
        "confidence": wanted.confidence,
        "tolerance": {"": wanted.tolerance.text(), **own},
    }


def _nothing_to_decide(wanted: Wanted, known: Known) -> str:
    """Why there is nothing to decide; empty where there is."""
    made = [each.record for each in known.planned if each.node.kind in ("model", "onnx")]
    model = made[-1].output if made and made[-1] else ""
    if model in known.taken_back:
        return f"nothing is new: {_told_back(known, model)}"
    if not all(each.record for each in known.planned):
        return ""
    if known.champion and model == known.champion.hash:
        return f"nothing is new: the recipe gives the model that is champion, number {known.champion.number}"
    if known.decided is None:
        return ""
    run, decision = known.decided
    keys = {node.key for step in run.steps for node in step.nodes}
    same = keys == {each.key for each in known.planned} and decision["question"] == _question(wanted, known)
    same = same and decision["champion"]["number"] == known.against.number
    return f"nothing is new since the run {run.id}, which was {decision['verdict']}: {decision['page']}" if same else ""


def _told_back(known: Known, model: str) -> str:
    """Why a model that people rolled back from is not promoted, and how it comes to be all the same."""
    promotion, rollback = known.taken_back[model]
    why = f" ({rollback.why})" if rollback.why else ""
    return (
        f"the recipe gives the model of number {promotion.number}, from which {rollback.who} rolled back, number "
        f"{rollback.number}{why}; give other feedback, or promote it by hand: luthier registry promote {promotion.run}"
    )


def _run(wanted: Wanted) -> Run:
    """Run the recipe; a run that its gates refused is given too."""
    home = home_of(wanted.recipe, wanted.home)
    try:
        return luthier.run(
            wanted.recipe, home=home, plugins=wanted.plugins, device=wanted.device, display=wanted.display
        )
    except GateRefused as refusal:
        return luthier.find_run(refusal.run, home=home)


def _decide(wanted: Wanted, known: Known, run: Run, rows: dict[str, int | None]) -> Outcome:
    """Compare, promote or refuse, and keep it."""
    model = run.model().hash
    comparisons, left = _compared(wanted, known, run) if known.champion else ([], {})
    against = [_told_back(known, model)] if model in known.taken_back else []
    against += [f"{gate.step}: {gate.reason}" for gate in run.gates if not gate.passed]
    against += [each.reason for each in comparisons if not each.passed]
    verdict: Verdict = "refused" if against else "promoted"
    if model == known.against.model:
        verdict, reasons = (
            "unchanged",
            [f"the feedback changed nothing: the run {run.id} gave the champion's model again"],
        )
    elif known.champion:
        reasons = against or [each.reason for each in comparisons]
    else:
        reasons = against or ["there was no champion, and every gate passed"]
    outcome = replace(
        _outcome(wanted, known, verdict, reasons, rows),
        number=known.against.number,
        run=run.id,
        model=model,
        comparisons=comparisons,
        not_compared=left,
        gates=[{"step": gate.step, "verdict": gate.verdict, "reason": gate.reason} for gate in run.gates],
        page=str(page_path(run, dry_run=wanted.dry_run)),
    )
    if not wanted.dry_run and verdict != "unchanged":
        outcome = _carry_out(wanted, known, run, outcome)
    write_json(run, outcome)
    home = home_of(wanted.recipe, wanted.home)
    write_page(run, outcome, look_back(known.name, home, known.planned, known.measures))
    return outcome


def _compared(wanted: Wanted, known: Known, run: Run) -> tuple[list[Comparison], dict[str, str]]:
    """The gated metrics of both, and which of them are not compared, with the reason."""
    compared, left = [], {}
    for measure in known.measures:
        if measure.relation is None:
            left[measure.name] = "gates bound it on both sides"
        elif not measure.compared:
            left[measure.name] = "its validator does not measure the champion"
        else:
            tolerance = wanted.tolerances.get(measure.name, wanted.tolerance)
            asked = measure == known.asked
            compared.append(compare(run, measure, None if asked else tolerance, wanted.confidence))
    return sorted(compared, key=lambda each: each.role != "asked"), left


def _carry_out(wanted: Wanted, known: Known, run: Run, outcome: Outcome) -> Outcome:
    """Promote or refuse, with the decision in the registry's history."""
    why = outcome.reasons[0]
    if outcome.verdict == "refused":
        luthier.refuse(run, why=why, decision=outcome.to_json())
        return outcome
    champion = luthier.promote(
        run,
        why=why,
        decision=outcome.to_json(),
        replacing=known.against.number,
        plugins=told_plugins(wanted.recipe, wanted.plugins),
    )
    return replace(outcome, number=champion.number)


def _outcome(
    wanted: Wanted, known: Known, verdict: Verdict, reasons: list[str], rows: dict[str, int | None]
) -> Outcome:
    return Outcome(
        recipe=known.name,
        verdict=verdict,
        dry_run=wanted.dry_run,
        reasons=reasons,
        champion=known.against,
        question=_question(wanted, known),
        rows=rows,
        time=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def told_rows(rows: Mapping[str, int | None], champion: Against) -> str:
    """How much feedback is new, in a sentence."""
    usable = f"{rows['usable']:,} rows of feedback can be learnt from"
    if not champion.number:
        return f"{usable}; there is no champion"
    since = f"the run {champion.run} of the champion, number {champion.number}"
    if rows["new"] is None:
        return f"{usable}; nobody knows how many are new: the record of {since}, is no longer in the store"
    return f"{usable}; {rows['new']:,} are new to {since}"
