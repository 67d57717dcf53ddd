"""What is said of an event, and of a run at its end; the same words in every display."""

from __future__ import annotations

from typing import TYPE_CHECKING

from luthier.events import (
    Event,
    GateDecided,
    PluginHookFailed,
    StepFailed,
    StepFinished,
    StepLog,
    StepStarted,
    StepWaits,
    TrialFinished,
)
from luthier.formatting import describe_counts, format_metrics, format_seconds, gate_mark

if TYPE_CHECKING:
    from luthier.runrecord import GateResult
    from luthier.runs import Run


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
    if isinstance(event, TrialFinished | GateDecided):
        return _trial_line(event) if isinstance(event, TrialFinished) else _gate_line(event)
    if isinstance(event, PluginHookFailed):
        return "yellow", f"  {event.hook} of the plugin {event.plugin} failed: {event.error}"
    return "", ""


def headline(run: Run, *, began: bool) -> str:
    """How a run ended, in one line; where it never `began`, that its result was there already."""
    if not began:
        return f"nothing to do: every step is cached; run {run.id}"
    return f"{run.id}  {run.state} after {format_seconds(run.data.seconds)}"


def outcome(run: Run, *, began: bool) -> list[tuple[str, str]]:
    """The style and text of each line that says what came out of a run.

    The gates of a run that `began` were told when they were decided: the first line only marks them.
    """
    first = headline(run, began=began)
    if began:
        first = "  ".join([first, *(f"{_mark(gate)} {gate.step} {gate.metric}" for gate in run.gates)])
    style = {"done": "bold green", "interrupted": "bold yellow"}.get(run.state, "bold red")
    lines = [(style, first), *(_gate_line(gate) for gate in run.gates if not began)]
    if run.state in ("failed", "interrupted"):
        lines.append(("", "run it again to go on from what is finished"))
    if run.report_path.exists():
        lines.append(("", f"report: {run.report_path}"))
    return lines


def _mark(gate: GateDecided | GateResult) -> str:
    return gate_mark(passed=gate.passed, skipped=gate.skipped)


def _gate_line(gate: GateDecided | GateResult) -> tuple[str, str]:
    style = "dim" if gate.skipped else "green" if gate.passed else "red"
    return style, f"{_mark(gate)} gate {gate.step}: {gate.reason}"


def _trial_line(event: TrialFinished) -> tuple[str, str]:
    about = f"  {event.step}: {event.trial}" + (f" at {event.budget}" if event.budget else "")
    if event.value is None:
        return "yellow", f"{about}: failed: {event.error}"
    taken = "cached" if event.cached else format_seconds(event.seconds)
    return "dim" if event.cached else "", f"{about}: {format_metrics({event.metric: event.value})}  {taken}"
