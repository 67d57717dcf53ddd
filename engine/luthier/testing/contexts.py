"""A context to call a component with, outside of any run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from luthier.context import Context


def make_context(directory: Path, *, seed: int = 0, device: str = "cpu", name: str = "component") -> Context:
    """A context to call a component with, outside of any run.

    Its directories lie below `directory`; `events` collects what the component emits, as an attribute.
    """
    for part in ("output", "checkpoint", "notes"):
        (directory / part).mkdir(parents=True, exist_ok=True)
    events: list[Mapping[str, Any]] = []
    context = Context(
        seed=seed,
        output=directory / "output",
        checkpoint=directory / "checkpoint",
        notes=directory / "notes",
        emit=events.append,
        fetch=_fetch,
        device=device,
        name=name,
    )
    context.events = events  # type: ignore[attr-defined]
    return context


def _fetch(location: str) -> Path:
    from luthier.locations import fetch

    return fetch(location)
