"""How much feedback is new: rows that can be learnt from now, and that a run did not use."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Set
from datetime import datetime
from typing import Any

from luthier import Run
from luthier_feedback.frames import count_held_out, usable_rows
from luthier_feedback.quarantine import Rules
from luthier_feedback.seen import rows_used


def usable_now(steps: Iterable[Any]) -> dict[str, Hashable]:
    """The ids of the rows that any of the recipe's `feedback` steps would use now, each with its comparison.

    Raises:
        InputError: if there is no log.
    """
    found: dict[str, Hashable] = {}
    for step in steps:
        config = step.config
        found |= usable_rows(config["log"], config["kind"], _rules(config), config["max_per_source"])
    return found


def held_out_since(steps: Iterable[Any], time: datetime) -> int:
    """How many documents of the recipe's `feedback` steps are held out now, and came since a time.

    Raises:
        InputError: if there is no log.
    """
    return sum(
        count_held_out(
            step.config["log"],
            step.config["kind"],
            _rules(step.config),
            step.config["max_per_source"],
            held_out=step.config["held_out"],
            since=time,
        )
        for step in steps
    )


def _rules(config: Mapping[str, Any]) -> Rules:
    return Rules(config["reviewed"], config["max_daily_per_source"], config["max_daily_per_person"])


def new_since(usable: Set[str], run: Run | None) -> Set[str] | None:
    """Of these rows those that a run did not use: all without a run; None where its record is gone, so nobody knows."""
    used = rows_used(run) if run else {}
    return None if used is None else usable - used.keys()
