"""Plain lines, for logs and pipes."""

from __future__ import annotations

from typing import IO, TYPE_CHECKING

from luthier.display.progress import Progress
from luthier.display.wording import finished_detail, named, notice, outcome, time_taken
from luthier.events import Event, RunStarted, StepFinished, StepProgress, StepStarted
from luthier.formatting import format_metrics

if TYPE_CHECKING:
    from luthier.runs import Run

INTERVAL = 10.0
"""Seconds between two progress lines of one step."""


class PlainDisplay:
    """Single lines, for logs and pipes: progress at most every `INTERVAL` seconds."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._progress = Progress()
        self._last_line = 0.0

    @property
    def run(self) -> str:
        """The id of the run that began."""
        return self._progress.run

    def __call__(self, event: Event) -> None:
        """Write what an event has to tell, if anything."""
        self._progress.take(event)
        line = self._line(event)
        if line:
            print(line, file=self._stream, flush=True)

    def tell_outcome(self, run: Run) -> None:
        """Write what came out of a run."""
        for _, text in outcome(run, began=bool(self.run)):
            print(text, file=self._stream, flush=True)

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
        if meter is None or event.time - self._last_line < INTERVAL or not self._progress.running:
            return ""
        self._last_line = event.time
        detail = "  ".join(filter(None, [meter.describe(), format_metrics(meter.metrics)]))
        return self._about(event.step.partition("@")[0], f"{self._progress.title()}: {detail}")

    def _about(self, step: str, text: str) -> str:
        place = self._progress.place(step)
        return f"[{place}] {text}" if place else text
