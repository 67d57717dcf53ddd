"""The champion measured again, by itself: on the frozen test set, and on the held-back feedback that came since."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal

import luthier
from luthier import Champion, InputError, Run
from luthier_feedback.improvement.fresh import held_out_since
from luthier_feedback.improvement.measures import FROZEN, Measure, feedback_steps, gated_measures
from luthier_feedback.improvement.place import champion_of, home_of, name_of
from luthier_feedback.improvement.round import Wanted


@dataclass(frozen=True)
class Evaluation:
    """What measuring the champion again came to.

    Attributes:
        state: `evaluated` where no metric is surely worse than when it was promoted, `worse` where one is, `waiting`
            where there was nothing to measure.
        told: that in a sentence, with the metrics that are worse.
        number: of the champion's entry in the history.
        run: the id of the run that measured it.
        held_back: the documents of held-back feedback that came since it became champion.
        champion: what it measures now, by STEP.METRIC.
        gates: each comparison: `step`, `verdict`, `reason`.
    """

    state: Literal["evaluated", "worse", "waiting"]
    told: str
    number: int = 0
    run: str = ""
    held_back: int = 0
    champion: dict[str, float] = field(default_factory=dict)
    gates: list[dict[str, str]] = field(default_factory=list)


def evaluate(wanted: Wanted) -> Evaluation:
    """Measure the champion of a recipe again, and hold it against what it measured when it was promoted.

    Validators that read feedback measure it on what is held back of the feedback since it became champion, which the
    decision to promote it has not seen; the others on the data that they always had.

    Raises:
        InputError: if the recipe, the log or the champion cannot be used.
        LuthierError: if a validator fails.
    """
    home = home_of(wanted.recipe, wanted.home)
    planned = luthier.plan(wanted.recipe, home=home, plugins=wanted.plugins)
    name = name_of(wanted.recipe)
    champion = champion_of(name, home)
    if champion is None:
        return Evaluation("waiting", f"there is no champion {name!r} to evaluate")
    # The history tells times to the second, rounded down.
    since = datetime.fromisoformat(champion.entry.time) + timedelta(seconds=1)
    steps = feedback_steps(planned)
    count = held_out_since(steps, since)
    only = _measuring(gated_measures(planned), feedback=count > 0)
    if not only:
        return Evaluation(
            "waiting", f"no feedback was held back since number {champion.number} became champion", champion.number
        )
    run = luthier.evaluate(
        wanted.recipe,
        only=only,
        confidence=wanted.confidence,
        overrides={f"{step.id}.held_out_since": since.isoformat() for step in steps},
        home=home,
        plugins=wanted.plugins,
        device=wanted.device,
        display=False,
    )
    return _evaluation(champion, run, count)


def _measuring(measures: Sequence[Measure], *, feedback: bool) -> list[str]:
    """The steps that measure the champion, those that read feedback only where there is some.

    Raises:
        InputError: if there are none in the recipe.
    """
    compared = [each for each in measures if each.relation and each.compared]
    if not compared:
        raise InputError(
            "no gate of the recipe names a metric that is measured of the champion",
            "Give a validator a gate: gate: {METRIC: {at_least: NUMBER}}",
        )
    return list(dict.fromkeys(each.step for each in compared if feedback or each.data == FROZEN))


def _evaluation(champion: Champion, run: Run, held_back: int) -> Evaluation:
    worse = [gate for gate in run.gates if not gate.passed]
    compared = sum(not gate.skipped for gate in run.gates)
    number = f"number {champion.number}"
    if worse:
        told = "; ".join(f"{gate.step}: {gate.reason}" for gate in worse)
        told = f"the champion, {number}, is worse than when it was promoted: {told}"
    else:
        told = f"the champion, {number}: none of {compared} metrics is surely worse than when it was promoted"
        told += f"; {len(run.gates) - compared} could not be compared" if compared < len(run.gates) else ""
    return Evaluation(
        "worse" if worse else "evaluated",
        told,
        champion.number,
        run.id,
        held_back,
        {f"{gate.step}.{gate.metric}": gate.value for gate in run.gates},
        [{"step": gate.step, "verdict": gate.verdict, "reason": gate.reason} for gate in run.gates],
    )
