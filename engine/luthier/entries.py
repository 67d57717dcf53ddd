"""Entries for a champion's history, as those write them who promote, refuse, evaluate or let go."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from luthier.champion_history import HistoryEntry, HistoryEvent
from luthier.errors import InputError
from luthier.registry import who_is_this
from luthier.runs import Run, now


def new_entry(event: HistoryEvent, why: str, **more: Any) -> HistoryEntry:
    """An entry of this moment by whoever this is; its number is filled in when it is written."""
    return HistoryEntry(0, event, now(), who_is_this(), why, **more)


def entry_of(run: Run, event: HistoryEvent, why: str, **more: Any) -> HistoryEntry:
    """An entry about a run, with what its gates decided."""
    gates = [asdict(gate) for gate in run.gates]
    return new_entry(event, why, run=run.id, recipe=run.data.recipe, gates=gates, **more)


def check_finished(run: Run) -> None:
    """Refuse a run that did not come to its end: nobody knows what its gates would say."""
    if run.state not in ("done", "refused"):
        end = f": {run.data.error}" if run.data.error else ""
        raise InputError(f"the run {run.id} is {run.state}{end}", "Run the recipe to its end: luthier run RECIPE")
