"""What happens in a run, as one stream of typed events.

The same events feed the display, `runs/<id>/events.jsonl` and the lifecycle hooks.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, Literal

EVENTS_VERSION = 1

RunState = Literal["running", "done", "refused", "failed", "interrupted"]


@dataclass(frozen=True, kw_only=True)
class Event:
    """Something that happened, at `time` (seconds since the epoch)."""

    type: ClassVar[str]
    time: float = field(default_factory=time.time)

    def to_json(self) -> str:
        """One line of `events.jsonl`."""
        return json.dumps({"version": EVENTS_VERSION, "type": self.type, **asdict(self)}, ensure_ascii=False)


@dataclass(frozen=True, kw_only=True)
class RunStarted(Event):
    """A run begins; `steps` are the ids of all its steps, in order."""

    type: ClassVar[str] = "run_started"
    run: str
    recipe: str
    steps: list[str]


@dataclass(frozen=True, kw_only=True)
class StepStarted(Event):
    """A step's work begins. `why` says why it was not taken from the cache."""

    type: ClassVar[str] = "step_started"
    step: str
    stage: str
    component: str
    why: str


@dataclass(frozen=True, kw_only=True)
class StepProgress(Event):
    """A step is `done` units of `total` (None where unknown) on its way.

    `step` is followed by what of it is being done: `rouge@base`, a validator's subject; `lora@trial-2-1`, the first
    candidate at the second rung of a search.
    """

    type: ClassVar[str] = "step_progress"
    step: str
    done: float
    total: float | None
    metrics: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class StepWaits(Event):
    """Another run works on the same step; this one waits for its result."""

    type: ClassVar[str] = "step_waits"
    step: str


@dataclass(frozen=True, kw_only=True)
class StepLog(Event):
    """A component logged a line."""

    type: ClassVar[str] = "step_log"
    step: str
    level: str
    message: str


@dataclass(frozen=True, kw_only=True)
class TrialStarted(Event):
    """A search comes to its next trial: a candidate, at a budget (empty where there is none), as number of how many."""

    type: ClassVar[str] = "trial_started"
    step: str
    trial: str
    budget: str
    number: int
    of: int


@dataclass(frozen=True, kw_only=True)
class TrialFinished(Event):
    """A trial of a search has its `value` of the metric; or none, and the `error` that its component gave up with."""

    type: ClassVar[str] = "trial_finished"
    step: str
    trial: str
    budget: str
    metric: str
    value: float | None
    cached: bool
    seconds: float
    error: str


@dataclass(frozen=True, kw_only=True)
class StepFinished(Event):
    """A step's result is in the store.

    `metrics` are what it measured; `counts` are, for each fused data component by id, the documents in,
    kept, changed, dropped and quarantined.
    """

    type: ClassVar[str] = "step_finished"
    step: str
    stage: str
    component: str
    cached: bool
    seconds: float
    artifact: str
    metrics: dict[str, float]
    counts: dict[str, dict[str, int]]


@dataclass(frozen=True, kw_only=True)
class StepFailed(Event):
    """A step ended in an error; nothing that was committed before is lost."""

    type: ClassVar[str] = "step_failed"
    step: str
    message: str
    remedy: str
    detail: str = ""


@dataclass(frozen=True, kw_only=True)
class GateDecided(Event):
    """A bound of a gate was held against what was measured.

    `subject` is what the bound compares with, empty for a number. One that was `skipped`, since there is no champion
    to compare with, has `passed`; `reason` says so.
    """

    type: ClassVar[str] = "gate_decided"
    step: str
    metric: str
    value: float
    bound: str
    passed: bool
    reason: str
    subject: str = ""
    skipped: bool = False


@dataclass(frozen=True, kw_only=True)
class PluginHookFailed(Event):
    """A plugin's lifecycle hook raised; the run goes on."""

    type: ClassVar[str] = "plugin_hook_failed"
    plugin: str
    hook: str
    error: str


@dataclass(frozen=True, kw_only=True)
class Promoted(Event):
    """A model is champion of `name` now, by promotion, or `restored` by a rollback; `run` is the one that made it.

    `number` is that of the entry in the name's history. `replaced` is the run of the champion before, empty if there
    was none; `overruled` are the objections to a promotion that was forced.
    """

    type: ClassVar[str] = "promoted"
    name: str
    number: int
    run: str
    step: str
    artifact: str
    restored: bool
    replaced: str
    who: str
    why: str
    overruled: list[str]


@dataclass(frozen=True, kw_only=True)
class RunFinished(Event):
    """A run ended: `done`, `refused` by a gate, `failed` or `interrupted`."""

    type: ClassVar[str] = "run_finished"
    run: str
    state: RunState
    seconds: float


Listener = Callable[[Event], None]


def from_worker(step: str, message: Mapping[str, Any]) -> Event | None:
    """The event that a worker's message stands for; None for a message that is none."""
    if message["type"] == "progress":
        return StepProgress(step=step, done=message["done"], total=message["total"], metrics=dict(message["metrics"]))
    if message["type"] == "log":
        return StepLog(step=step, level=message["level"], message=message["message"])
    return None


def listeners(*several: Listener) -> Listener:
    """One listener that tells several."""

    def tell(event: Event) -> None:
        for listener in several:
            listener(event)

    return tell
