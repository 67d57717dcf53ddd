"""A run on disk: `runs/<id>/` with `run.json`, the recipe as run, the events, the logs, the report."""

from __future__ import annotations

import contextlib
import copy
import datetime
import math
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

from filelock import FileLock, Timeout

from luthier.artifacts import Artifact, Dataset, Model, OnnxModel, Report
from luthier.champion_history import HistoryEntry
from luthier.errors import InputError, LuthierError, PluginError
from luthier.events import RunState
from luthier.files import REMEDY, disk_error, disk_errors
from luthier.formatting import describe_counts, format_metrics, format_seconds, gate_mark, with_article
from luthier.gates import Bound, judge
from luthier.markup import html_line, html_table
from luthier.registry import Champions, is_champion
from luthier.runrecord import GateResult, RunData, StepResult, read_record, write_record
from luthier.store import Store
from luthier.suggest import did_you_mean

LATEST = "latest"


class Run:
    """A run, finished or under way: its state, its steps, and the artifacts that they gave.

    Attributes:
        path: its directory, `runs/<id>` of the store.
        store: the store that holds what its steps gave.
    """

    def __init__(self, path: Path, store: Store, data: RunData | None = None) -> None:
        self.path = path
        self.store = store
        self._data = data or read_record(path)
        self._is_copy = False
        if data is None:
            self._settle()

    @classmethod
    def at(cls, path: Path) -> Run:
        """The run in the directory `path`, `runs/<id>` of a store.

        Raises:
            InputError: if it is no run, or a newer Luthier wrote it.
        """
        path = path.absolute()
        return cls(path, Store(path.parent.parent))

    def __deepcopy__(self, memo: dict[int, Any]) -> Run:
        # The store is a place, not a part of the run.
        found = Run(self.path, self.store, copy.deepcopy(self._data, memo))
        found._is_copy = True
        return found

    def __repr__(self) -> str:
        return f"Run({self.id!r}, state={self.state!r})"

    def _repr_html_(self) -> str:
        steps = [
            (step.id, f"{step.stage}:{step.component}", _state_and_time(step), _key_result(step)) for step in self.steps
        ]
        gates = [(gate_mark(passed=gate.passed, skipped=gate.skipped), gate.step, gate.reason) for gate in self.gates]
        shown = html_line(f"run {self.id}: {self.state} after {format_seconds(self._data.seconds)}")
        shown += html_table(["step", "component", "state", "result"], steps)
        return shown + (html_table(["", "gate", "measured"], gates) if gates else "")

    @property
    def id(self) -> str:
        """Its name: the time it began, and the recipe's name."""
        return self._data.id

    @property
    def state(self) -> RunState:
        """`running`, `done`, `refused` (by a gate), `failed` or `interrupted`.

        A run whose process was killed could not write its end: it counts as interrupted.
        """
        self._settle()
        return self._data.state

    def _settle(self) -> None:
        """Say of a run whose process was killed what it could not write itself; the file stays as it is."""
        if self._data.state != "running" or self._alive():
            return
        self._data.state = "interrupted"
        for step in self.steps:
            step.state = "waiting" if step.state == "running" else step.state
        with contextlib.suppress(OSError):
            # Its last event is the last that is known of it.
            last = (self.path / "events.jsonl").stat().st_mtime
            began = datetime.datetime.fromisoformat(self._data.started).timestamp()
            self._data.seconds = round(max(0.0, last - began), 3)

    def lock(self) -> FileLock:
        """Held by the process that executes the run, as long as it lives."""
        return FileLock(self.path / "lock", thread_local=False)

    def _alive(self) -> bool:
        lock = self.lock()
        try:
            with lock.acquire(timeout=0):
                return False
        except (Timeout, OSError):
            return True

    @property
    def data(self) -> RunData:
        """Everything that `run.json` holds."""
        return self._data

    @property
    def steps(self) -> list[StepResult]:
        """The recipe's steps, in order."""
        return self._data.steps

    @property
    def gates(self) -> list[GateResult]:
        """The gates' decisions so far."""
        return self._data.gates

    @property
    def metrics(self) -> dict[str, dict[str, float]]:
        """What each step measured, by step id."""
        return {step.id: step.metrics for step in self.steps if step.metrics}

    @property
    def report_path(self) -> Path:
        """Where luthier-report writes the report, if it is installed."""
        return self.path / "report.html"

    @property
    def model_path(self) -> Path:
        """The newest model with its card, linked from the store; there once every gate has passed."""
        return self.path / "model"

    def step(self, name: str) -> StepResult:
        """One step by its id, or by its stage where that has one step."""
        for step in self.steps:
            if step.id == name:
                return step
        of_stage = [step for step in self.steps if step.stage == name]
        if len(of_stage) == 1:
            return of_stage[0]
        ids = [step.id for step in self.steps]
        raise InputError(
            f"the run {self.id} has no step {name!r}", did_you_mean(name, ids) or f"Its steps: {', '.join(ids)}."
        )

    def dataset(self, name: str) -> Dataset:
        """The dataset that a step gave: `run.dataset("near-duplicates").frame()`."""
        return cast("Dataset", self._artifact(self.step(name), "dataset"))

    def model(self, name: str | None = None) -> Model | OnnxModel:
        """The model that a step gave; without a name the newest, exported or not."""
        if name is not None:
            return cast("Model", self._artifact(self.step(name), "model", "onnx"))
        made = [step for step in self.steps if step.kind in ("model", "onnx") and step.artifact]
        if not made:
            raise InputError(f"the run {self.id} has made no model", "Run the recipe to the end: luthier run RECIPE")
        return cast("Model", self._artifact(made[-1], "model", "onnx"))

    def report(self, name: str, subject: str = "candidate") -> Report | None:
        """What a step noted: metrics, tables, figures, samples. None if it has not finished."""
        for node in self.step(name).nodes:
            if node.subject in (subject, "") and node.report:
                artifact = self.store.get(node.report)
                return Report.at(artifact.path / str(node.part), "report", artifact.hash) if artifact else None
        return None

    def subjects(self, name: str) -> list[str]:
        """The subjects that a validator looked at; `candidate` for any other step."""
        return [node.subject or "candidate" for node in self.step(name).nodes]

    def seconds(self, name: str, subject: str = "candidate") -> float | None:
        """How long a step took for one subject, in whichever run that was; None if it has not finished.

        Raises:
            InputError: if a newer Luthier wrote its record.
        """
        for node in self.step(name).nodes:
            if node.subject in (subject, "") and node.key:
                record = self.store.step(node.key)
                return record.seconds if record else None
        return None

    def interval(
        self, name: str, metric: str, subject: str = "base", *, confidence: float = 0.95
    ) -> tuple[float, float] | None:
        """The interval of the candidate's metric minus a subject's, by the gates' bootstrap with the run's seed.

        None where one of them was not measured on single examples, they cannot be paired, or are not in the store.
        """
        bound = Bound(metric, "at_least", subject, 0.0, confidence)
        try:
            mine, theirs = self.report(name), self.report(name, subject)
            if mine is None or theirs is None:
                return None
            interval = judge(bound, mine.metric_records(), theirs.metric_records(), self._data.seed).interval
        except LuthierError:
            return None
        return interval if interval and not any(map(math.isnan, interval)) else None

    def _artifact(self, step: StepResult, *kinds: str) -> Artifact:
        if step.kind and step.kind not in kinds:
            raise InputError(f"the step {step.id!r} gave {with_article(step.kind)}, not a {' or '.join(kinds)}")
        artifact = self.store.get(step.artifact) if step.artifact else None
        if artifact is None:
            fused = step.state == "done" and not step.artifact
            remedy = (
                "It was done in one pass with the steps after it; name the last of them, or end the pass with --until."
                if fused
                else "Run the recipe again: luthier run RECIPE"
            )
            raise InputError(f"the result of step {step.id!r} of the run {self.id} is not in the store", remedy)
        return artifact

    def public(self) -> dict[str, Any]:
        """What `luthier runs show --json` prints."""
        return {
            "id": self.id,
            "recipe": self._data.recipe,
            "state": self.state,
            "started": self._data.started,
            "seconds": self._data.seconds,
            "error": self._data.error,
            "steps": [step.public() for step in self.steps],
            "gates": [asdict(gate) for gate in self.gates],
        }

    def save(self) -> None:
        """Write `run.json`, whole and durably: garbage collection keeps what it names."""
        if self._is_copy:
            raise PluginError(f"the run {self.id} is written by the engine alone", "Hooks observe it.")
        with disk_errors(self.store.root, REMEDY):
            write_record(self.path, self._data)


def _state_and_time(step: StepResult) -> str:
    if step.state != "done" or step.cached:
        return "cached" if step.cached else step.state
    # Inside a fused pass, its last step tells the time.
    return f"done in {format_seconds(step.seconds)}" if step.artifact else "done"


def _key_result(step: StepResult) -> str:
    return "  ".join(filter(None, [describe_counts(step.counts), format_metrics(step.metrics)]))


def now() -> str:
    """The time, in UTC, as ISO 8601 to the second."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def create_run(store: Store, data: RunData) -> Run:
    """Make a run's directory; its id gets a suffix if it is taken."""
    wanted, number = data.id, 1
    while True:
        path = store.runs / data.id
        try:
            path.mkdir(parents=True)
            break
        except FileExistsError:
            number += 1
            data.id = f"{wanted}-{number}"
        except OSError as error:
            raise disk_error(error, store.root, REMEDY) or error from None
    run = Run(path, store, data)
    run.save()
    return run


def run_id(recipe: str) -> str:
    """A new run's id: UTC time, then the recipe's name."""
    stamp = datetime.datetime.now(datetime.UTC).strftime("%Y%m%d-%H%M%S")
    return f"{stamp}-{''.join(c if c.isalnum() or c in '-_' else '-' for c in recipe)}"


def list_runs(store: Store) -> Iterator[Run]:
    """The readable runs, newest first."""
    if not store.runs.is_dir():
        return
    for path in sorted(store.runs.iterdir(), reverse=True):
        if (path / "run.json").exists():
            try:
                run = Run(path, store)
            except InputError:
                continue  # One damaged record must not hide the others; `find_run` says what is wrong with it.
            yield run


def find_run(store: Store, name: str) -> Run:
    """A run by its id, a unique beginning of it, `latest`, or as the one that made the `champion` (`champion:NAME`).

    `latest` is the newest of a recipe: an evaluation of a champion makes no model.

    Raises:
        InputError: with the closest ids.
    """
    if is_champion(name):
        return _champions_run(store, *Champions(store).resolve(name))
    runs = list(list_runs(store))
    made = [run for run in runs if not run.data.evaluates]
    if name == LATEST and made:
        return made[0]
    matching = [run for run in runs if run.id == name] or [run for run in runs if run.id.startswith(name)]
    if len(matching) == 1:
        return matching[0]
    if name in [path.name for path in store.runs.glob("*")]:
        return Run(store.runs / name, store)  # It was not listed, so this says what is wrong with it.
    if not runs:
        raise InputError(f"there are no runs in {store.root}", "Start one: luthier run RECIPE")
    what = f"{name!r} stands for several runs" if matching else f"there is no run {name!r} in {store.root}"
    raise InputError(what, did_you_mean(name, [run.id for run in runs]) or f"The newest is {runs[0].id}.")


def _champions_run(store: Store, champion: str, entry: HistoryEntry) -> Run:
    if not (store.runs / entry.run / "run.json").exists():
        raise InputError(
            f"the run {entry.run}, which made the champion {champion!r}, is no longer in {store.root}",
            f"Its model may still be there: luthier registry show {champion}",
        )
    return Run(store.runs / entry.run, store)
