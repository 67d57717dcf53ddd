"""Keeps in a champion's history that a challenger was compared with it and refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from luthier.champion_history import HistoryEntry
from luthier.errors import InputError
from luthier.registry import Champions, who_is_this
from luthier.runs import Run, now


def refuse(run: Run, *, name: str | None = None, why: str, decision: Mapping[str, Any] | None = None) -> HistoryEntry:
    """Note in the history that the model of a run was not promoted; the champion stays what it is.

    Args:
        run: a run that is done, or that its gates refused.
        name: of what it was to be champion; the recipe's name, if None.
        why: the reason, for the history.
        decision: what it was decided by, as JSON values, for the history.

    Returns:
        The entry of the history.

    Raises:
        InputError: if the run is not finished, or the history cannot be written.
    """
    if run.state not in ("done", "refused"):
        raise InputError(f"the run {run.id} is {run.state}", "Run the recipe to its end: luthier run RECIPE")

    def decide(champion: HistoryEntry | None, past: Sequence[HistoryEntry]) -> HistoryEntry:
        return HistoryEntry(
            0,
            "refused",
            now(),
            who_is_this(),
            why,
            run=run.id,
            recipe=run.data.recipe,
            gates=[asdict(gate) for gate in run.gates],
            decision=dict(decision or {}),
        )

    entry = Champions(run.store).change(name or run.data.recipe, decide)
    assert entry is not None
    return entry
