"""The live display of a terminal: finished steps are printed for good, the running one is drawn below them."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich.console import Console, RenderableType
from rich.constrain import Constrain
from rich.live import Live
from rich.spinner import Spinner
from rich.text import Text

from luthier.display.drawing import line_of, repeating, running
from luthier.display.progress import Progress
from luthier.display.wording import outcome
from luthier.events import Event

if TYPE_CHECKING:
    from luthier.runs import Run

RIGHT_MARGIN = 4


@contextlib.contextmanager
def in_terminal(console: Console | None = None) -> Iterator[TerminalDisplay]:
    """A live display on a console, by default stderr, until the block ends."""
    chosen = console or Console(stderr=True)
    display = TerminalDisplay(chosen)
    live = Live(get_renderable=display.__rich__, console=chosen, auto_refresh=False, transient=True)
    with live:
        try:
            with repeating(lambda: display.redraw(live)):
                yield display
        finally:
            display.close()


class TerminalDisplay:
    """The state of a terminal's live display."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._progress = Progress()
        self._lock = threading.Lock()
        self._screen = threading.Lock()
        self._spinner = Spinner("dots", style="cyan")

    @property
    def run(self) -> str:
        """The id of the run that began."""
        return self._progress.run

    def __call__(self, event: Event) -> None:
        """Take in an event, and print what stays."""
        with self._lock:
            self._progress.take(event)
            line = line_of(event, self._progress)
        if line is not None:
            with self._screen:
                self._console.print(line, no_wrap=True, overflow="ellipsis", crop=True)

    def tell_outcome(self, run: Run) -> None:
        """Print what came out of a run, whole: a path that is cut is of no use."""
        self.close()
        with self._screen:
            for style, text in outcome(run, began=bool(self.run)):
                self._console.print(Text(text, style=style), soft_wrap=True)

    def redraw(self, live: Live) -> None:
        """Draw the running step again, never while a line is printed.

        rich's own refreshing is not held off by a print: it may draw between a line's rendering and its
        writing, at the old height, and so wipe out a line or leave a stale one behind.
        """
        with self._screen:
            live.refresh()

    def close(self) -> None:
        """Draw nothing any more: what was going on when a run was interrupted must not stay on the screen."""
        with self._lock:
            self._progress.running.clear()

    def __rich__(self) -> RenderableType:
        """The part that is drawn again and again."""
        with self._lock:
            drawn = running(self._progress, self._spinner)
        # Room at the right: a Ctrl-C that the terminal echoes there must not begin a new line.
        return Constrain(drawn, max(1, self._console.width - RIGHT_MARGIN)) if drawn else Text("")
