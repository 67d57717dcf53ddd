"""What `run.json` says: a run's steps and what they gave, its gates, its environment and its end."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from luthier.errors import InputError
from luthier.events import RunState
from luthier.files import write_atomically
from luthier.gates import Bound, Decision
from luthier.trials import SearchResult

RUN_VERSION = 1


StepState = Literal["waiting", "running", "done", "failed"]


@dataclass
class NodeResult:
    """One cached unit behind a step: a validator has one for each subject.

    `part` is the step's place in the node's report artifact (fused components share one).
    """

    id: str
    subject: str
    key: str = ""
    report: str = ""
    part: int = 0
    ingredients: dict[str, Any] = field(default_factory=dict)


@dataclass
class StepResult:
    """What a run says of one step of its recipe.

    `artifact` is the hash of what it gave, empty inside a fused pass; `metrics` of another subject than
    the candidate are prefixed (`base.rougeL`); `counts` are a data step's documents. Of a step that was
    searched, all else is of the candidate that won, with the `seconds` of all trials.
    """

    id: str
    stage: str
    component: str
    state: StepState = "waiting"
    cached: bool = False
    seconds: float = 0.0
    artifact: str = ""
    kind: str = ""
    form: str = ""
    metrics: dict[str, float] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    nodes: list[NodeResult] = field(default_factory=list)
    search: SearchResult | None = None

    def public(self) -> dict[str, Any]:
        """What `luthier runs show --json` tells of it."""
        names = ("id", "stage", "component", "state", "cached", "seconds", "artifact", "metrics", "counts")
        told = {name: getattr(self, name) for name in names}
        return told | ({"search": asdict(self.search)} if self.search else {})


@dataclass
class GateResult:
    """A bound of a gate, held against what was measured.

    `subject` is what the bound compares with, empty for a number. One that was `skipped`, since there was no champion
    to compare with, has `passed`; `reason` says so.
    """

    step: str
    metric: str
    value: float
    bound: str
    passed: bool
    reason: str
    subject: str = ""
    skipped: bool = False

    @classmethod
    def of(cls, step: str, decision: Decision) -> GateResult:
        """The result that a decision is."""
        value, text, passed = decision.value, decision.bound_text, decision.passed
        return cls(step, decision.metric, value, text, passed, decision.reason, decision.subject)

    @classmethod
    def skip(cls, step: str, bound: Bound, value: float, why: str) -> GateResult:
        """The result of a bound that there was nothing to compare with."""
        reason = f"{bound.metric} is {value:.4g}; {bound.text()} is skipped: {why}"
        return cls(step, bound.metric, value, bound.text(), True, reason, bound.subject or "", skipped=True)

    @property
    def verdict(self) -> Literal["passed", "refused", "skipped"]:
        """What became of the bound, in a word."""
        if self.skipped:
            return "skipped"
        return "passed" if self.passed else "refused"


@dataclass
class RunData:
    """The contents of `run.json`.

    `champion` is the hash of the model that was champion of the recipe's name when the run began, empty if there was
    none; `unjudged` are the steps with a gate behind the one that the run was to stop at. Of a run that made no model
    and measured the champion again, `evaluates` is the run that was promoted; it is empty for all others.
    """

    id: str
    recipe: str
    recipe_file: str
    seed: int
    started: str
    state: RunState = "running"
    finished: str = ""
    seconds: float = 0.0
    error: str = ""
    environment: dict[str, Any] = field(default_factory=dict)
    steps: list[StepResult] = field(default_factory=list)
    gates: list[GateResult] = field(default_factory=list)
    champion: str = ""
    unjudged: list[str] = field(default_factory=list)
    evaluates: str = ""


def read_record(path: Path) -> RunData:
    """What the `run.json` of a run's directory holds.

    Raises:
        InputError: if it cannot be read, or a newer Luthier wrote it.
    """
    try:
        record = json.loads((path / "run.json").read_text(encoding="utf-8"))
        version = int(record.pop("version"))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise _unreadable(path, error) from None
    if version > RUN_VERSION:
        raise InputError(
            f"the run {path.name} was written by a newer Luthier (format {version})", "pip install --upgrade luthier"
        )
    try:
        steps = [_read_step(step) for step in record.pop("steps")]
        gates = [GateResult(**gate) for gate in record.pop("gates")]
        return RunData(steps=steps, gates=gates, **record)
    except (KeyError, TypeError, AttributeError):
        raise _unreadable(path, "it is no record of a run") from None


def write_record(path: Path, data: RunData) -> None:
    """Write the `run.json` of a run's directory, whole and durably."""
    text = json.dumps({"version": RUN_VERSION, **asdict(data)}, ensure_ascii=False, indent=1)
    write_atomically(path / "run.json", text, path)


def _unreadable(path: Path, why: object) -> InputError:
    return InputError(
        f"the run {path.name} cannot be read: {why}", f"Remove {path}, or look at the others: luthier runs list"
    )


def _read_step(record: Mapping[str, Any]) -> StepResult:
    nodes = [NodeResult(**node) for node in record["nodes"]]
    search = SearchResult.from_record(record["search"]) if record.get("search") else None
    return StepResult(**{**record, "nodes": nodes, "search": search})
