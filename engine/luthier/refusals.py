"""Keeps in a champion's history that a challenger was compared with it and refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from luthier.champion_history import HistoryEntry
from luthier.entries import check_finished, entry_of
from luthier.registry import Champions
from luthier.runs import Run


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
    check_finished(run)
    refusal = entry_of(run, "refused", why, decision=dict(decision or {}))
    entry = Champions(run.store).change(name or run.data.recipe, lambda champion, past: refusal)
    assert entry is not None
    return entry
