"""The live display of a notebook: one output of the cell, replaced as the run goes on.

It needs nothing but IPython, which every kernel has; rich's own display of notebooks would need ipywidgets.
"""

from __future__ import annotations

import contextlib
import io
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.console import Console, RenderableType
from rich.terminal_theme import TerminalTheme
from rich.text import Text

from luthier.display.drawing import line_of, repeating, running
from luthier.display.progress import Progress
from luthier.display.wording import outcome
from luthier.events import Event, RunStarted

if TYPE_CHECKING:
    from luthier.runs import Run

WIDTH = 96
"""Columns of what runs now; finished lines are as long as they are, and wrap where the page ends."""

FONT = "var(--jp-code-font-family,monospace)"
"""The notebook's font for code where it says which; some show `<pre>` in that of texts."""

COLOURS = TerminalTheme(
    (255, 255, 255),
    (0, 0, 0),
    # Black, red, green, yellow, blue, magenta, cyan, white.
    [
        (0, 0, 0),
        (208, 64, 47),
        (46, 139, 61),
        (168, 123, 0),
        (47, 111, 208),
        (160, 72, 176),
        (17, 138, 143),
        (128, 128, 128),
    ],
)
"""Colours that can be read on light pages and on dark ones."""

LINES_OF_AN_OUTPUT = 100
"""After so many lines the next output begins: each update sends an output as a whole."""


@contextlib.contextmanager
def in_notebook() -> Iterator[NotebookDisplay]:
    """A live display below the running cell until the block ends."""
    display = NotebookDisplay()
    try:
        with repeating(display.draw):
            yield display
    finally:
        display.close()


@dataclass(frozen=True)
class Drawn:
    """Something to show, as HTML and as plain text for frontends without it."""

    html: str
    text: str


class NotebookDisplay:
    """The state of a notebook's live display. Events change it; only `draw` sends, and only what changed."""

    def __init__(self) -> None:
        self._progress = Progress()
        self._lock = threading.Lock()
        self._lines: list[Drawn] = []
        self._handle: Any = None
        self._sent: Drawn | None = None

    @property
    def run(self) -> str:
        """The id of the run that began."""
        return self._progress.run

    def __call__(self, event: Event) -> None:
        """Take in an event, and keep what stays."""
        with self._lock:
            self._progress.take(event)
            if isinstance(event, RunStarted):
                self._keep(Text(f"run {event.run}: {len(event.steps)} steps", style="dim"))
            line = line_of(event, self._progress)
            if line is not None:
                self._keep(line)

    def tell_outcome(self, run: Run) -> None:
        """Let what came out of a run take the place of what was going on."""
        with self._lock:
            self._progress.running.clear()
            for style, text in outcome(run, began=bool(self.run)):
                self._keep(Text(text, style=style))
        self.draw()

    def close(self) -> None:
        """Show the last state, and nothing as going on."""
        with self._lock:
            self._progress.running.clear()
        self.draw()

    def draw(self) -> None:
        """Bring the cell's output up to date."""
        with self._lock:
            drawn = running(self._progress, Text("●", style="cyan"))
            self._send(_page(self._lines, _drawn(drawn) if drawn else None))

    def _keep(self, line: Text) -> None:
        if len(self._lines) == LINES_OF_AN_OUTPUT:
            self._send(_page(self._lines))
            self._handle, self._lines = None, []
        self._lines.append(_drawn(line, soft_wrap=True))

    def _send(self, page: Drawn | None) -> None:
        if page is None or page == self._sent:
            return
        from IPython.display import display

        self._sent = page
        bundle = {"text/html": page.html, "text/plain": page.text}
        if self._handle is None:
            self._handle = display(bundle, raw=True, display_id=True)
        else:
            self._handle.update(bundle, raw=True)


def _drawn(content: RenderableType, *, soft_wrap: bool = False) -> Drawn:
    # rich must not take this console for the notebook's, where it would print by itself.
    console = Console(file=io.StringIO(), record=True, width=WIDTH, force_jupyter=False, legacy_windows=False)
    console.print(content, soft_wrap=soft_wrap)
    html = console.export_html(theme=COLOURS, inline_styles=True, code_format="{code}", clear=False)
    return Drawn(_encodable(html), _encodable(console.export_text()))


def _encodable(text: str) -> str:
    """Text that the kernel can send: a message may hold half of a surrogate pair."""
    return text.encode("utf-8", errors="backslashreplace").decode()


def _page(lines: list[Drawn], now: Drawn | None = None) -> Drawn | None:
    if not lines and not now:
        return None
    html = _block("pre-wrap", "".join(line.html for line in lines)) if lines else ""
    html += _block("pre", now.html) if now else ""
    return Drawn(html, "".join(part.text for part in [*lines, *([now] if now else [])]))


def _block(wrap: str, content: str) -> str:
    style = f"margin:0;line-height:1.4;font-family:{FONT};white-space:{wrap};word-break:normal;overflow-x:auto"
    return f'<pre style="{style}">{content}</pre>'
