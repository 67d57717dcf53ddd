"""How large each model is, how fast, and where the run's time went."""

from __future__ import annotations

from dataclasses import dataclass

from luthier import LuthierError, Run, StepResult
from luthier_report._comparison import Comparison, MetricRow
from luthier_report._curve import LEARNING_CURVE, training_speed
from luthier_report._notes import frame_of, notes_of

SPEED_WORDS = ("per_second", "per_cpu_second", "latency", "seconds", "milliseconds")
FILES_SHOWN = 6


@dataclass(frozen=True)
class ModelSize:
    """The bytes of a model that a step gave; `ratio` is to the first model's, `width` in percent."""

    step: str
    component: str
    form: str
    bytes: int
    ratio: float
    width: float
    files: list[tuple[str, int]]


@dataclass(frozen=True)
class StepTime:
    """How long a step took, and its share of the longest in percent."""

    step: str
    component: str
    seconds: float
    cached: bool
    width: float


@dataclass(frozen=True)
class Speeds:
    """Speeds that were measured: by validators of each subject, by other steps of themselves.

    `validating` are, for each validator that looked at several subjects, the seconds that each took.
    """

    compared: list[tuple[str, MetricRow]]
    noted: list[tuple[str, str, float]]
    validating: list[tuple[str, dict[str, float]]]

    @property
    def subjects(self) -> list[str]:
        """The columns: this model, the base and the one before export, and the champion where it was measured."""
        measured = {name for _, row in self.compared for name in row.values}
        measured |= {name for _, seconds in self.validating for name in seconds}
        return ["candidate", "base", "reference", *(["champion"] if "champion" in measured else [])]


def model_sizes(run: Run) -> list[ModelSize]:
    """The models in the order in which they were made; those gone from the store are left out."""
    sizes: list[ModelSize] = []
    for step in run.steps:
        files = _model_files(run, step)
        if files is None:
            continue
        whole = sum(size for _, size in files)
        first = sizes[0].bytes if sizes else whole
        ratio = whole / first if first else 1.0
        sizes.append(ModelSize(step.id, step.component, step.form, whole, ratio, 0.0, files[:FILES_SHOWN]))
    widest = max((one.bytes for one in sizes), default=0) or 1
    return [
        ModelSize(one.step, one.component, one.form, one.bytes, one.ratio, 100 * one.bytes / widest, one.files)
        for one in sizes
    ]


def _model_files(run: Run, step: StepResult) -> list[tuple[str, int]] | None:
    """The files of the model that a step gave, the largest first; None where it gave none, or it is gone."""
    if step.kind not in ("model", "onnx") or not step.artifact:
        return None
    try:
        root = run.model(step.id).path
    except LuthierError:
        return None
    files = [(path.relative_to(root).as_posix(), path.stat().st_size) for path in root.rglob("*") if path.is_file()]
    return sorted(files, key=lambda file: (-file[1], file[0]))


def is_speed(metric: str) -> bool:
    """Whether a metric tells a speed or a time, by its name."""
    return any(word in metric.lower() for word in SPEED_WORDS)


def speeds(run: Run, compared: list[Comparison]) -> Speeds:
    """What the metrics tell of speed."""
    rows = [(one.step, row) for one in compared for row in one.rows if is_speed(row.name)]
    noted = [
        (step.id, name, value)
        for step in run.steps
        if step.stage != "validate"
        for name, value in _noted(run, step).items()
        if is_speed(name)
    ]
    timed = [(step.id, _seconds_by_subject(run, step)) for step in run.steps if step.stage == "validate"]
    return Speeds(rows, noted, [(step, seconds) for step, seconds in timed if len(seconds) > 1])


def _noted(run: Run, step: StepResult) -> dict[str, float]:
    curve = frame_of(notes_of(run, step), LEARNING_CURVE) if step.stage == "tune" else None
    speed = training_speed(curve) if curve is not None else None
    return step.metrics if speed is None else {**step.metrics, "training_tokens_per_second": speed}


def _seconds_by_subject(run: Run, step: StepResult) -> dict[str, float]:
    found = {}
    for node in step.nodes:
        subject = node.subject or "candidate"
        try:
            seconds = run.seconds(step.id, subject)
        except LuthierError:
            seconds = None  # Written by a newer Luthier: its time is not worth losing the report.
        if seconds is not None:
            found[subject] = seconds
    return found


def step_times(run: Run) -> list[StepTime]:
    """The seconds of each step that took any, cached or not (then those of the run that did it)."""
    longest = max((step.seconds for step in run.steps), default=0.0) or 1.0
    return [_step_time(step, longest) for step in run.steps if step.seconds > 0]


def _step_time(step: StepResult, longest: float) -> StepTime:
    return StepTime(step.id, step.component, step.seconds, step.cached, 100 * step.seconds / longest)
