"""What the live displays draw, as rich renderables: finished steps for good, the running one again and again."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from luthier.display.progress import Meter, Progress
from luthier.display.wording import finished_detail, notice, time_taken
from luthier.events import Event, StepFinished
from luthier.formatting import format_metrics, format_seconds

REFRESH_SECONDS = 0.125


@contextlib.contextmanager
def repeating(draw: Callable[[], None], seconds: float = REFRESH_SECONDS) -> Iterator[None]:
    """Call `draw` every few seconds, in a thread, until the block ends."""
    ended = threading.Event()

    def repeat() -> None:
        while not ended.wait(seconds):
            draw()

    thread = threading.Thread(target=repeat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def line_of(event: Event, progress: Progress) -> Text | None:
    """The line that an event leaves for good, if any."""
    if isinstance(event, StepFinished):
        return _finished(event, progress)
    style, text = notice(event)
    return Text(text, style=style) if text else None


def _finished(event: StepFinished, progress: Progress) -> Text:
    mark = ("· ", "dim") if event.cached else ("✓ ", "green")
    taken = "cached" if event.cached else time_taken(event)
    place = progress.place(event.step)
    return Text.assemble(
        mark,
        (f"{place}  " if place else "", "dim"),
        (f"{event.stage:<12} {event.step:<18}", "" if event.cached else "bold"),
        (f" {taken:>7}", "dim"),
        f"  {finished_detail(event)}",
    )


def running(progress: Progress, mark: RenderableType) -> RenderableType | None:
    """What is going on now, after a `mark` of one column; None between two steps."""
    meter = progress.meter
    if meter is None or not progress.running:
        return None
    heading = Table.grid(padding=(0, 1), expand=True)
    heading.add_column(width=1)
    heading.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
    heading.add_column(justify="right", no_wrap=True)
    last = next(reversed(progress.running))
    title = Text.assemble((f"{progress.place(last)}  ", "dim"), (progress.title(), "bold"))
    metrics = Text(format_metrics(meter.metrics), style="cyan")
    metrics.append(f"  {format_seconds(max(0.0, time.time() - meter.began))}", style="dim")
    heading.add_row(mark, title, metrics)
    known = meter.total is not None or meter.done
    return Group(heading, _bar(meter)) if known else heading


def _bar(meter: Meter) -> RenderableType:
    row = Table.grid(padding=(0, 1), expand=True)
    row.add_column(width=1)
    row.add_column(ratio=1)
    row.add_column(no_wrap=True)
    bar = ProgressBar(total=meter.total, completed=meter.done, pulse=meter.total is None)
    row.add_row("", bar, Text(meter.describe()))
    return row
