"""Tells what happens: to the log that a run keeps, and to the lifecycle hooks of plugins."""

from __future__ import annotations

from pathlib import Path
from typing import TextIO

from luthier import hookspecs
from luthier.events import Event, Listener, PluginHookFailed
from luthier.files import REMEDY, disk_errors
from luthier.plugins import Registry
from luthier.runs import Run


def log_of(run: Run) -> TextIO:
    """A run's `events.jsonl`, to append to."""
    # What is no Unicode (a file's name may be none) becomes a JSON escape.
    return (run.path / "events.jsonl").open("a", encoding="utf-8", errors="backslashreplace")


def write_to(log: TextIO, root: Path) -> Listener:
    """A listener that writes each event to a log of the store at `root`."""

    def write(event: Event) -> None:
        with disk_errors(root, REMEDY):
            log.write(event.to_json() + "\n")
            log.flush()

    return write


def with_hooks(registry: Registry, record: Run, tell: Listener) -> Listener:
    """Tell the plugins' lifecycle hooks as well; an error in one is told, and stops nothing."""

    def told(event: Event) -> None:
        tell(event)
        hook = f"luthier_{event.type}"
        if not hasattr(hookspecs, hook):
            return
        for plugin, error in registry.notify(hook, run=record, event=event):
            tell(PluginHookFailed(plugin=plugin, hook=hook, error=f"{type(error).__name__}: {error}"))

    return told
