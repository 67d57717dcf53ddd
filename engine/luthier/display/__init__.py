"""What a run shows while it goes on, and at its end: in terminals, in notebooks, plain lines elsewhere.

All are fed by the run's events. rich is imported for the live displays only.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol

from luthier.display.plain import PlainDisplay
from luthier.display.progress import Progress
from luthier.events import Event

if TYPE_CHECKING:
    from rich.console import Console

    from luthier.runs import Run


class Display(Protocol):
    """A listener for a run's events that shows them to people."""

    @property
    def run(self) -> str:
        """The id of the run that began; empty before that, and where every step is cached."""

    def __call__(self, event: Event) -> None:
        """Take in an event."""

    def tell_outcome(self, run: Run) -> None:
        """Say what came out of a run: its state, its gates, where the report is."""


class Silent:
    """Shows nothing."""

    def __init__(self) -> None:
        self._progress = Progress()

    @property
    def run(self) -> str:
        """See `Display`."""
        return self._progress.run

    def __call__(self, event: Event) -> None:
        """Take in an event."""
        self._progress.take(event)

    def tell_outcome(self, run: Run) -> None:
        """Say nothing."""


@contextlib.contextmanager
def show(*, quiet: bool = False, console: Console | None = None) -> Iterator[Display]:
    """Show a run's progress on stderr, or in the notebook, until the block ends.

    Args:
        quiet: show nothing.
        console: a rich console for a live display; otherwise chosen by where we run.

    Yields:
        The display: the listener to give to a run, to be told the outcome within the block.
    """
    with contextlib.ExitStack() as stack:
        yield _chosen(stack, quiet, console)


def _chosen(stack: contextlib.ExitStack, quiet: bool, console: Console | None) -> Display:
    if quiet:
        return Silent()
    if console is None and _in_notebook():
        from luthier.display.notebook import in_notebook

        return stack.enter_context(in_notebook())
    if console is None and not _in_terminal():
        return PlainDisplay(sys.stderr)
    from luthier.display.terminal import in_terminal

    return stack.enter_context(in_terminal(console))


def _in_terminal() -> bool:
    return sys.stderr.isatty() and os.environ.get("TERM") != "dumb"


def _in_notebook() -> bool:
    # The shells of all Jupyter kernels have a kernel (Colab's is a class of its own); IPython's in a terminal has none.
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return getattr(shell, "kernel", None) is not None
