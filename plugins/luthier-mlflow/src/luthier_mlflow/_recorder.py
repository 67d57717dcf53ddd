"""One run of Luthier as one run in MLflow. Whatever is logged already is not logged again."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from luthier import InputError, Model, OnnxModel, Run, StepResult
from luthier_mlflow._client import connect, experiment, key, tracking_uri
from luthier_mlflow._values import configuration, curves, parameter_text

if TYPE_CHECKING:
    from mlflow.entities import Metric
    from mlflow.tracking import MlflowClient

MODEL_LIMIT = "LUTHIER_MLFLOW_MODEL_MB"
DEFAULT_MODEL_LIMIT = 500.0
NOTE = "mlflow.json"
"""In the run's directory: which run in MLflow it is."""

FILES = ("recipe.yaml", "luthier.lock")
"""What makes two runs the same but for their data: one that ended early is gone on with only then."""

BATCH = 100
"""mlflow takes 1000 metrics in one request, but no more than 100 parameters or tags."""

STATUS = {"done": "FINISHED", "refused": "FAILED", "failed": "FAILED", "interrupted": "KILLED"}


class Recorder:
    """Logs one run; a marker for each step, set after all else of it, says that the step is logged."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self._uri = tracking_uri(run)
        self._client = connect(self._uri)
        self._tags: dict[str, str] = {}
        self._parameters: dict[str, str] = {}
        self._experiment = experiment(self._client, run)
        known = self._known(run) or next(filter(None, map(self._known, _ended_early(run))), None)
        self._id = known or self._create()
        if known:
            self._take_up()

    @property
    def id(self) -> str:
        """The id of the run in MLflow."""
        return self._id

    def tag(self, tags: Mapping[str, str]) -> None:
        """Set tags; those that are set already cost nothing."""
        new = {key(name): value for name, value in tags.items() if self._tags.get(key(name)) != value}
        self._log([], {}, new)

    def tag_gate(self, step: str, metric: str) -> None:
        """Tag what a gate decided on a metric, all its bounds together."""
        decided = [gate for gate in self.run.gates if (gate.step, gate.metric) == (step, metric)]
        lines = [f"{gate.verdict}: {gate.reason}" for gate in decided]
        self.tag({f"gate.{step}.{metric}": "\n".join(lines)})

    def log_step(self, name: str) -> None:
        """Log a finished step: its configuration as parameters, its metrics, counts, time and curves."""
        step = self.run.step(name)
        # A validator is finished when all its subjects are.
        marker = {f"luthier.logged.{name}": " ".join(f"{node.key[:16]}:{node.report[:16]}" for node in step.nodes)}
        if self._tags.get(key(*marker)) == next(iter(marker.values())):
            return
        parameters = {key(name, ".", each): text for each, text in configuration(step).items()}
        if any(self._parameters.get(each, text) != text for each, text in parameters.items()):
            self._begin_again()
            return
        new = {each: text for each, text in parameters.items() if each not in self._parameters}
        self._log(self._metrics(step), new, {f"luthier.artifact.{name}": step.artifact, **marker})

    def finish(self, state: str) -> None:
        """Log the files and the model, and end the run."""
        for name in (*FILES, "report.html"):
            if (self.run.path / name).is_file():
                self._client.log_artifact(self._id, str(self.run.path / name))
        if state == "done":
            self._log_model()
        gates = [gate for gate in self.run.gates if not gate.skipped]
        passed = f"{sum(gate.passed for gate in gates)} of {len(gates)} passed"
        self.tag({"luthier.state": state, "luthier.step": "", **({"luthier.gates": passed} if gates else {})})
        self._client.set_terminated(self._id, status=STATUS[state])

    # --- which run ------------------------------------------------------------------------------------

    def _known(self, run: Run) -> str | None:
        return logged_as(run, self._client, self._uri)

    def _create(self) -> str:
        run = self.run
        tags = {
            "mlflow.source.name": run.data.recipe_file or run.data.recipe,
            "mlflow.source.type": "LOCAL",
            "luthier.run": run.id,
            "luthier.recipe": run.data.recipe,
        }
        self._id = str(self._client.create_run(self._experiment, run_name=run.id, tags=tags).info.run_id)
        self._tags, self._parameters = dict(tags), {}
        self._log([], {"seed": str(run.data.seed)}, {})
        self._keep_note()
        return self._id

    def _take_up(self) -> None:
        """Go on with a run in MLflow that has some of this one."""
        data = self._client.get_run(self._id).data
        self._tags, self._parameters = dict(data.tags), dict(data.params)
        self._client.update_run(self._id, status="RUNNING")
        self.tag({"luthier.run": self.run.id})
        self._keep_note()

    def _begin_again(self) -> None:
        """Data behind a location changed since the run that ended early, and parameters cannot: a new run."""
        self._client.set_terminated(self._id, status="KILLED")
        self._create()
        for step in self.run.steps:
            if step.state == "done":
                self.log_step(step.id)

    def _keep_note(self) -> None:
        note = {"tracking_uri": self._uri, "experiment": self._experiment, "run": self._id}
        (self.run.path / NOTE).write_text(json.dumps(note), encoding="utf-8")

    # --- what is logged -------------------------------------------------------------------------------

    def _metrics(self, step: StepResult) -> list[Metric]:
        from mlflow.entities import Metric

        now = time.time_ns() // 1_000_000
        values: dict[str, float] = {**step.counts, **step.metrics, "seconds": step.seconds}
        found = [Metric(key(step.id, "/", name), float(value), now, 0) for name, value in values.items()]
        for name, points in curves(self.run, step).items():
            found += [Metric(key(step.id, "/", name), value, now, place) for place, value in points]
        return found

    def _log(self, metrics: Sequence[Metric], parameters: Mapping[str, str], tags: Mapping[str, str]) -> None:
        from mlflow.entities import Param, RunTag

        named = {key(name): value for name, value in tags.items()}
        for start in range(0, len(metrics), BATCH):
            self._client.log_batch(self._id, metrics=metrics[start : start + BATCH])
        for some in _batches(parameters):
            self._client.log_batch(self._id, params=[Param(name, value) for name, value in some])
        for some in _batches(named):
            self._client.log_batch(self._id, tags=[RunTag(name, value) for name, value in some])
        self._parameters |= parameters
        self._tags |= named

    def _log_model(self) -> None:
        """Enter the newest model; its files too, unless they are more than the limit."""
        from mlflow.entities import LoggedModelOutput, LoggedModelStatus

        try:
            model: Model | OnnxModel = self.run.model()
        except InputError:
            return  # The recipe makes none.
        if self._tags.get("luthier.model") == model.hash:
            return
        path = self.run.model_path if self.run.model_path.is_dir() else model.path
        megabytes = sum(file.stat().st_size for file in path.rglob("*") if file.is_file()) / 1e6
        whole = megabytes <= _model_limit()
        made = self._client.create_logged_model(
            self._experiment,
            name=_model_name(self.run.data.recipe),
            source_run_id=self._id,
            tags={
                "luthier.run": self.run.id,
                "luthier.path": str(path),
                "luthier.kind": f"{model.kind} {model.form}",
                "luthier.artifact": model.hash,
                "luthier.megabytes": f"{megabytes:.1f}",
                "luthier.uploaded": str(whole).lower(),
            },
        )
        if whole:
            self._client.log_model_artifacts(made.model_id, str(path))
        self._client.finalize_logged_model(made.model_id, LoggedModelStatus.READY)
        self._client.log_outputs(self._id, models=[LoggedModelOutput(made.model_id, step=0)])
        self.tag({"luthier.model": model.hash, "luthier.model.path": str(path)})


def logged_as(run: Run, client: MlflowClient, uri: str) -> str | None:
    """The id of the run in MLflow that a run's directory names, if it is there."""
    from mlflow.exceptions import MlflowException

    try:
        note = json.loads((run.path / NOTE).read_text(encoding="utf-8"))
        if note["tracking_uri"] != uri:
            return None
        found = client.get_run(note["run"])
    except (OSError, ValueError, KeyError, MlflowException):
        return None
    return str(note["run"]) if found.info.lifecycle_stage == "active" else None


def _batches(values: Mapping[str, str]) -> list[list[tuple[str, str]]]:
    items = [(name, parameter_text(value)) for name, value in values.items()]
    return [items[start : start + BATCH] for start in range(0, len(items), BATCH)]


def _ended_early(run: Run) -> list[Run]:
    """The recipe's run before this one, if it ended early and was the same but for its data."""
    for path in sorted(run.path.parent.iterdir(), reverse=True):
        if path == run.path or not (path / "run.json").is_file():
            continue
        try:
            other = Run.at(path)
        except InputError:
            continue
        if other.data.recipe == run.data.recipe:
            early = other.state in ("interrupted", "failed")
            return [other] if early and all(_text(other, name) == _text(run, name) for name in FILES) else []
    return []


def _text(run: Run, name: str) -> str:
    path = run.path / name
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


def _model_limit() -> float:
    text = os.environ.get(MODEL_LIMIT, "")
    try:
        return float(text) if text else DEFAULT_MODEL_LIMIT
    except ValueError:
        raise InputError(f"{MODEL_LIMIT} is a number of megabytes, not {text!r}", "0 uploads no model.") from None


def _model_name(recipe: str) -> str:
    # mlflow takes no `/ : . % " '` in the name of a model.
    return "".join("-" if character in "/:.%\"'" else character for character in recipe)
