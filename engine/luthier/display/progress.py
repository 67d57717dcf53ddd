"""The state of a run as its events tell it: what runs, how far it is, how fast it goes."""

from __future__ import annotations

from collections import deque

from luthier.events import (
    Event,
    RunStarted,
    StepFailed,
    StepFinished,
    StepProgress,
    StepStarted,
    TrialFinished,
    TrialStarted,
)
from luthier.formatting import format_count, format_seconds

RATE_WINDOW = 30.0
"""Seconds over which the rate is measured."""


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


class Progress:
    """The state of a run as its events tell it: which steps run now, how far they are, what is done."""

    def __init__(self) -> None:
        self.run = ""
        self.steps: list[str] = []
        self.running: dict[str, StepStarted] = {}
        self.meter: Meter | None = None
        self.subject = ""
        self.trial = ""

    def take(self, event: Event) -> None:
        """Take in an event."""
        if isinstance(event, RunStarted):
            self.run, self.steps = event.run, list(event.steps)
        elif isinstance(event, StepStarted):
            if event.step in self.running:
                self.running.clear()
            self.running[event.step] = event
            self.meter, self.subject, self.trial = Meter(event.time), "", ""
        elif isinstance(event, TrialStarted):
            self.meter, self.trial = Meter(event.time), f"trial {event.number} of {event.of}, {event.trial}"
        elif isinstance(event, TrialFinished):
            self.trial = ""
        elif isinstance(event, StepProgress) and self.meter:
            self.subject = "" if self.trial else event.step.partition("@")[2]
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
        about = (f" @{self.subject}" if self.subject else "") + (f": {self.trial}" if self.trial else "")
        return f"{last.stage} {' + '.join(names)}{about}"
