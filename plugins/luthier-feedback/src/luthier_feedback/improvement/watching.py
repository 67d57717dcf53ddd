"""Rounds on a schedule, and evaluations of the champion: one after another, each logged, whatever becomes of one."""

from __future__ import annotations

import json
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from luthier import InputError, LuthierError
from luthier_feedback.improvement.evaluating import evaluate
from luthier_feedback.improvement.outcome import Outcome
from luthier_feedback.improvement.place import alone, directory_for, home_of, name_of
from luthier_feedback.improvement.round import Wanted, improve, look, plan_of
from luthier_feedback.improvement.terminal import headline

LOG = "watch.jsonl"
YEAR = 366 * 86400


@dataclass(frozen=True)
class Schedule:
    """When rounds are.

    Attributes:
        every: seconds from the beginning of one to that of the next; one that takes longer is followed at once.
        min_feedback: acts of feedback that no round decided on yet; with fewer a round does nothing.
        once: end after the first.
        evaluate_every: seconds from the beginning of one evaluation of the champion to that of the next; None for
            none.
    """

    every: float
    min_feedback: int = 1
    once: bool = False
    evaluate_every: float | None = None


@dataclass
class Task:
    """What is done again and again: `do` gives what the log keeps of it.

    Attributes:
        every: seconds from the beginning of one time to that of the next.
        due: when the next time is, by the clock.
    """

    do: Callable[[], dict[str, Any]]
    every: float
    due: float


def watch(
    wanted: Wanted,
    schedule: Schedule,
    tell: Callable[[str], None],
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> list[dict[str, Any]]:
    """Do rounds, and evaluations where they are asked for, until somebody interrupts it.

    Args:
        wanted: what is asked for in each.
        schedule: when.
        tell: is told in a line what became of each.
        clock: seconds that only grow, whatever the wall clock is set to.
        sleep: waits for so many seconds.

    Returns:
        What the log keeps of what was done `once`.

    Raises:
        InputError: if the recipe or the log cannot be used at the beginning, or the recipe is watched already.
    """
    home = home_of(wanted.recipe, wanted.home)
    plan_of(wanted, home)  # What is wrong from the beginning stays wrong.
    name = name_of(wanted.recipe)
    directory = directory_for(home, name)
    what = f"{name!r} in {home} is watched already"
    # Rounds by hand come between those of the schedule.
    wanted = replace(wanted, wait=True)
    with alone(directory / "watch.lock", what, "End the other `luthier watch` first."):
        tasks = _tasks(wanted, schedule, clock())
        while True:
            done = []
            for task in tasks:
                began = clock()
                if task.due <= began:
                    task.due = began + task.every
                    done.append(_whatever_becomes_of_it(task.do))
                    tell(f"{done[-1]['time']} {done[-1]['told']}")
                    _append(directory / LOG, done[-1], tell)
            if schedule.once:
                return done
            sleep(max(0.0, min(task.due for task in tasks) - clock()))


def _tasks(wanted: Wanted, schedule: Schedule, now: float) -> list[Task]:
    """The evaluation comes first: it is of the champion that the round may replace."""
    rounds = Task(lambda: one_round(wanted, schedule.min_feedback), schedule.every, now)
    if schedule.evaluate_every is None:
        return [rounds]
    return [Task(lambda: one_evaluation(wanted), schedule.evaluate_every, now), rounds]


def one_round(wanted: Wanted, min_feedback: int) -> dict[str, Any]:
    """What became of a round, as the log keeps it."""
    known = look(wanted)
    undecided = known.undecided_acts()
    if undecided is not None and undecided < min_feedback:
        told = f"waiting: {undecided:,} acts of feedback are new, {min_feedback:,} are wanted"
        return _record("waiting", told, rows=known.rows())
    return _record_of(improve(wanted))


def one_evaluation(wanted: Wanted) -> dict[str, Any]:
    """What measuring the champion again came to, as the log keeps it."""
    found = asdict(evaluate(wanted))
    return _record(found.pop("state"), f"evaluation: {found.pop('told')}", **found)


def _whatever_becomes_of_it(do: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What was done, as the log keeps it: an error is told there and ends nothing else."""
    try:
        return do()
    except LuthierError as error:
        return _record("failed", f"failed: {error.message}", remedy=error.remedy)
    except Exception as error:  # A bug in one round must not end all that come after it.
        return _record("failed", f"failed: {type(error).__name__}: {error}", traceback=traceback.format_exc())


def _record_of(outcome: Outcome) -> dict[str, Any]:
    told = outcome.reasons[0] if outcome.verdict == "unchanged" else f"{headline(outcome)}: {outcome.reasons[0]}"
    return _record(
        outcome.verdict,
        told,
        rows=outcome.rows,
        run=outcome.run,
        number=outcome.number,
        champion={each.name: each.champion for each in outcome.comparisons},
        challenger={each.name: each.challenger for each in outcome.comparisons},
        page=outcome.page,
    )


def _record(state: str, told: str, **more: Any) -> dict[str, Any]:
    return {"time": datetime.now(UTC).isoformat(timespec="seconds"), "state": state, "told": told, **more}


def _append(path: Path, record: dict[str, Any], tell: Callable[[str], None]) -> None:
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record, ensure_ascii=False) + "\n")
    except OSError as error:
        # A full disk may have room again by the next round.
        tell(f"{path} cannot be written: {error.strerror}")


def read_interval(text: str, option: str = "--every") -> float:
    """Seconds of a time as an option gives it: `90s`, `30m`, `12h`, `1d`.

    Raises:
        InputError: if it is none, or no time at all.
    """
    units = {"s": 1, "m": 60, "h": 3600, "d": 86400}
    number, unit = text.strip()[:-1], text.strip()[-1:]
    if unit not in units or not number.isascii() or not number.isdigit() or not 0 < int(number) * units[unit] <= YEAR:
        raise InputError(f"{option}: {text!r} is no time up to a year", "Write 30m, 12h or 1d.")
    return float(int(number) * units[unit])
