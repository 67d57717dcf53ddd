"""What a run shows while it goes on: a live display in terminals and notebooks, plain lines elsewhere.

Both are fed by the run's events. rich is imported for the live display only.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from typing import IO, TYPE_CHECKING, Any

from luthier.events import (
    Event,
    GateDecided,
    Listener,
    PluginHookFailed,
    RunStarted,
    StepFailed,
    StepFinished,
    StepLog,
    StepProgress,
    StepStarted,
    StepWaits,
)

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.live import Live
    from rich.text import Text

PLAIN_INTERVAL = 10.0
"""Seconds between two progress lines of one step where the display is not live."""

REFRESH_SECONDS = 0.125
RATE_WINDOW = 30.0
KEY_METRICS = 3
RIGHT_MARGIN = 4


@contextlib.contextmanager
def show(*, quiet: bool = False, console: Console | None = None) -> Iterator[Listener]:
    """Show a run's progress on stderr, or in the notebook, until the block ends.

    Args:
        quiet: show nothing.
        console: a rich console for a live display; otherwise chosen by where we run.

    Yields:
        The listener to give to a run.
    """
    if quiet:
        yield lambda event: None
    elif console is None and not _can_be_live():
        yield PlainDisplay(sys.stderr)
    else:
        with _live(console) as listener:
            yield listener


def _can_be_live() -> bool:
    return (sys.stderr.isatty() and os.environ.get("TERM") != "dumb") or _in_notebook()


def _in_notebook() -> bool:
    # ipykernel's shell displays rich output; a plain IPython terminal is a terminal.
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return type(shell).__name__ == "ZMQInteractiveShell"


# --- numbers ------------------------------------------------------------------------------------------


def format_seconds(seconds: float) -> str:
    """`0.4 s`, `12 s`, `3m05s`, `2h07m`."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"


def format_count(value: float) -> str:
    """A number of units: whole ones with thousands separated, else three digits."""
    return f"{value:,.0f}" if value == int(value) or value >= 100 else f"{value:.3g}"


def format_metrics(metrics: Mapping[str, float], limit: int = KEY_METRICS) -> str:
    """The first few metrics: `loss 2.314  tokens/s 910`."""
    return "  ".join(f"{name} {format_number(value)}" for name, value in list(metrics.items())[:limit])


def format_number(value: float) -> str:
    """Four significant digits, without an exponent where that is readable."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def describe_counts(counts: Mapping[str, int]) -> str:
    """What became of a step's documents: `24,013 in, 23,900 kept, 113 dropped`."""
    parts = [f"{counts['documents_in']:,} in", f"{counts['kept']:,} kept"] if counts.get("documents_in") else []
    parts += [f"{counts[name]:,} {name}" for name in ("added", "changed", "dropped", "quarantined") if counts.get(name)]
    return ", ".join(parts)


class Meter:
    """How far a step is, how fast it goes, and how long it will still take.

    The rate is that of the last `RATE_WINDOW` seconds: a slow start does not spoil it for long.
    """

    def __init__(self, began: float) -> None:
        self.began = began
        self.done = 0.0
        self.total: float | None = None
        self.metrics: dict[str, float] = {}
        # From the first report on: what comes before it is mostly libraries that are imported.
        self._marks: deque[tuple[float, float]] = deque()

    def advance(self, event: StepProgress) -> None:
        """Take in a progress event; work that begins again (a validator's next subject) restarts the rate."""
        if event.done < self.done:
            self._marks.clear()
        self.done, self.total = event.done, event.total
        self.metrics.update(event.metrics)
        self._marks.append((event.time, event.done))
        while len(self._marks) > 2 and event.time - self._marks[0][0] > RATE_WINDOW:
            self._marks.popleft()

    @property
    def rate(self) -> float | None:
        """Units a second; None until two points in time are known."""
        if not self._marks:
            return None
        (then, before), (now, done) = self._marks[0], self._marks[-1]
        return (done - before) / (now - then) if now > then and done > before else None

    @property
    def left(self) -> float | None:
        """Seconds that the rest will take."""
        rate = self.rate
        return (self.total - self.done) / rate if rate and self.total is not None else None

    @property
    def fraction(self) -> float | None:
        """How much is done, from 0 to 1."""
        return min(1.0, self.done / self.total) if self.total else None

    def describe(self) -> str:
        """`120 of 300 (40%), 3.1/s, 58 s left`; empty before the first report."""
        if not self.done and self.total is None:
            return ""
        parts = [format_count(self.done)]
        if self.total is not None:
            percent = f" ({self.fraction:.0%})" if self.fraction is not None else ""
            parts = [f"{format_count(self.done)} of {format_count(self.total)}{percent}"]
        if self.rate:
            parts.append(f"{self.rate:,.3g}/s" if self.rate < 1000 else f"{self.rate:,.0f}/s")
        if self.left is not None:
            parts.append(f"{format_seconds(self.left)} left")
        return ", ".join(parts)


# --- what is going on ---------------------------------------------------------------------------------


class Progress:
    """The state of a run as its events tell it: which steps run now, how far they are, what is done."""

    def __init__(self) -> None:
        self.steps: list[str] = []
        self.running: dict[str, StepStarted] = {}
        self.meter: Meter | None = None
        self.subject = ""

    def take(self, event: Event) -> None:
        """Take in an event."""
        if isinstance(event, RunStarted):
            self.steps = list(event.steps)
        elif isinstance(event, StepStarted):
            if event.step in self.running:
                self.running.clear()
            self.running[event.step] = event
            self.meter, self.subject = Meter(event.time), ""
        elif isinstance(event, StepProgress) and self.meter:
            self.subject = event.step.partition("@")[2]
            self.meter.advance(event)
        elif isinstance(event, StepFinished):
            self.running.pop(event.step, None)
        elif isinstance(event, StepFailed):
            self.running.clear()

    def place(self, step: str) -> str:
        """Where a step stands among all: ` 3/10`."""
        if step not in self.steps:
            return ""
        total = str(len(self.steps))
        return f"{self.steps.index(step) + 1:>{len(total)}}/{total}"

    def title(self) -> str:
        """What runs now: `tune lora`; a fused pass names its steps."""
        names = list(self.running)
        last = next(reversed(self.running.values()))
        return f"{last.stage} {' + '.join(names)}" + (f" @{self.subject}" if self.subject else "")


def named(event: StepStarted | StepFinished) -> str:
    """A step for people: its stage and component, and its id where that is another: `bias representation (before)`."""
    own = f" ({event.step})" if event.step != event.component else ""
    return f"{event.stage} {event.component}{own}"


def time_taken(event: StepFinished) -> str:
    """How long a step took; empty where it was cached, or inside a fused pass, whose last step tells the time."""
    return format_seconds(event.seconds) if event.artifact and not event.cached else ""


def finished_detail(event: StepFinished) -> str:
    """What a finished step has to show: its documents, or its key metrics."""
    counts = describe_counts(event.counts.get(event.step, {}))
    return "  ".join(filter(None, [counts, format_metrics(event.metrics)]))


# --- plain lines --------------------------------------------------------------------------------------


class PlainDisplay:
    """Single lines, for logs and pipes: progress at most every `PLAIN_INTERVAL` seconds."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._progress = Progress()
        self._last_line = 0.0

    def __call__(self, event: Event) -> None:
        """Write what an event has to tell, if anything."""
        self._progress.take(event)
        line = self._line(event)
        if line:
            print(line, file=self._stream, flush=True)

    def _line(self, event: Event) -> str:
        if isinstance(event, RunStarted):
            return f"run {event.run}: {len(event.steps)} steps"
        if isinstance(event, StepStarted):
            self._last_line = event.time
            return self._about(event.step, f"{named(event)}: {event.why}")
        if isinstance(event, StepProgress):
            return self._progress_line(event)
        if isinstance(event, StepFinished):
            about = f"{named(event)}: {'cached' if event.cached else 'done'}"
            return self._about(event.step, "  ".join(filter(None, [about, time_taken(event), finished_detail(event)])))
        return notice(event)[1]

    def _progress_line(self, event: StepProgress) -> str:
        meter = self._progress.meter
        if meter is None or event.time - self._last_line < PLAIN_INTERVAL or not self._progress.running:
            return ""
        self._last_line = event.time
        detail = "  ".join(filter(None, [meter.describe(), format_metrics(meter.metrics)]))
        return self._about(event.step.partition("@")[0], f"{self._progress.title()}: {detail}")

    def _about(self, step: str, text: str) -> str:
        place = self._progress.place(step)
        return f"[{place}] {text}" if place else text


def notice(event: Event) -> tuple[str, str]:
    """The style and text of an event that is one line in either display; an empty text for the others."""
    if isinstance(event, StepLog):
        style = {"warning": "yellow", "error": "red", "critical": "red"}.get(event.level, "dim")
        level = f"{event.level}: " if event.level not in ("info", "debug") else ""
        return style, f"  {event.step}: {level}{event.message}"
    if isinstance(event, StepWaits):
        return "yellow", f"  {event.step}: another run is doing this step; waiting for its result"
    if isinstance(event, StepFailed):
        return "red", f"✗ {event.step} failed"
    if isinstance(event, GateDecided):
        mark = "✓" if event.passed else "✗"
        return "green" if event.passed else "red", f"{mark} gate {event.step}: {event.reason}"
    if isinstance(event, PluginHookFailed):
        return "yellow", f"  {event.hook} of the plugin {event.plugin} failed: {event.error}"
    return "", ""


# --- live ---------------------------------------------------------------------------------------------


class LiveDisplay:
    """The live display's state: finished steps are printed for good, the running one is drawn below them."""

    def __init__(self, console: Console) -> None:
        from rich.spinner import Spinner

        self._console = console
        self._progress = Progress()
        self._lock = threading.Lock()
        self._screen = threading.Lock()
        self._spinner = Spinner("dots", style="cyan")

    def __call__(self, event: Event) -> None:
        """Take in an event, and print what stays."""
        with self._lock:
            self._progress.take(event)
        line = self._permanent(event)
        if line is not None:
            with self._screen:
                self._console.print(line, no_wrap=True, overflow="ellipsis", crop=True)

    @contextlib.contextmanager
    def refreshing(self, live: Live) -> Iterator[None]:
        """Draw the running step again and again, never while a line is printed.

        rich's own refreshing is not held off by a print: it may draw between a line's rendering and its
        writing, at the old height, and so wipe out a line or leave a stale one behind.
        """
        ended = threading.Event()

        def refresh() -> None:
            while not ended.wait(REFRESH_SECONDS):
                with self._screen:
                    live.refresh()

        thread = threading.Thread(target=refresh, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def close(self) -> None:
        """Draw nothing any more: what was going on when a run was interrupted must not stay on the screen."""
        with self._lock:
            self._progress.running.clear()

    def __rich__(self) -> RenderableType:
        """The part that is drawn again and again."""
        from rich.text import Text

        with self._lock:
            return self._drawn() if self._progress.running else Text("")

    def _permanent(self, event: Event) -> Text | None:
        from rich.text import Text

        if isinstance(event, StepFinished):
            return self._finished(event)
        style, text = notice(event)
        return Text(text, style=style) if text else None

    def _finished(self, event: StepFinished) -> Text:
        from rich.text import Text

        mark = ("· ", "dim") if event.cached else ("✓ ", "green")
        taken = "cached" if event.cached else time_taken(event)
        place = self._progress.place(event.step)
        return Text.assemble(
            mark,
            (f"{place}  " if place else "", "dim"),
            (f"{event.stage:<12} {event.step:<18}", "" if event.cached else "bold"),
            (f" {taken:>7}", "dim"),
            f"  {finished_detail(event)}",
        )

    def _drawn(self) -> RenderableType:
        from rich.console import Group
        from rich.constrain import Constrain
        from rich.table import Table
        from rich.text import Text

        meter = self._progress.meter
        if meter is None:
            return Text("")
        last = next(reversed(self._progress.running))
        heading = Table.grid(padding=(0, 1), expand=True)
        heading.add_column(width=1)
        heading.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
        heading.add_column(justify="right", no_wrap=True)
        title = Text.assemble((f"{self._progress.place(last)}  ", "dim"), (self._progress.title(), "bold"))
        metrics = Text(format_metrics(meter.metrics), style="cyan")
        metrics.append(f"  {format_seconds(max(0.0, time.time() - meter.began))}", style="dim")
        heading.add_row(self._spinner, title, metrics)
        known = meter.total is not None or meter.done
        # Room at the right: a Ctrl-C that the terminal echoes there must not begin a new line.
        drawn = Group(heading, self._bar(meter)) if known else heading
        return Constrain(drawn, max(1, self._console.width - RIGHT_MARGIN))

    def _bar(self, meter: Meter) -> RenderableType:
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        row = Table.grid(padding=(0, 1), expand=True)
        row.add_column(width=1)
        row.add_column(ratio=1)
        row.add_column(no_wrap=True)
        bar = ProgressBar(total=meter.total, completed=meter.done, pulse=meter.total is None)
        row.add_row("", bar, Text(meter.describe()))
        return row


@contextlib.contextmanager
def _live(console: Any) -> Iterator[Listener]:
    from rich.console import Console
    from rich.live import Live

    chosen = console or Console(stderr=True)
    display = LiveDisplay(chosen)
    live = Live(get_renderable=display.__rich__, console=chosen, auto_refresh=False, transient=True)
    with live:
        try:
            with display.refreshing(live):
                yield display
        finally:
            display.close()
