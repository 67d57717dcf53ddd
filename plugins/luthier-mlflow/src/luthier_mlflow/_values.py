"""A step's configuration and curves in the forms that mlflow holds."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from luthier import Run, StepResult

CURVES = ("learning-curve", "validation-losses")
"""The tables in which tuners note what they measured on the way."""

AXIS = "step"
LONGEST = 6000
"""Characters of a parameter that mlflow keeps."""

Points = list[tuple[int, float]]


def configuration(step: StepResult) -> dict[str, str]:
    """The whole configuration, defaults included, nested keys joined by dots; content's hash in place of a path."""
    parts = (node.ingredients["parts"][node.part] for node in step.nodes if node.ingredients)
    part: Mapping[str, Any] = next(parts, {})
    values = {"component": f"{step.stage}:{step.component}", **_flat(part.get("config", {}))}
    return {name: parameter_text(value) for name, value in values.items()}


def parameter_text(value: Any) -> str:
    """A value as text: strings as they are, all else as JSON; cut where mlflow would."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


def curves(run: Run, step: StepResult) -> dict[str, Points]:
    """What changed from step to step of a tuner: `learning-curve/loss` to its (step, value)."""
    report = run.report(step.id)
    there = report.tables() if report else {}
    found: dict[str, Points] = {}
    for name in (name for name in CURVES if name in there):
        assert report is not None
        frame = report.table(name)
        if AXIS not in frame.columns or not frame.schema[AXIS].is_integer():
            continue
        for column, dtype in frame.schema.items():
            if column != AXIS and dtype.is_numeric():
                pairs = zip(frame[AXIS], frame[column], strict=True)
                found[f"{name}/{column}"] = [(int(x), float(y)) for x, y in pairs if _is_point(x, y)]
    return found


def _is_point(x: Any, y: Any) -> bool:
    return x is not None and y is not None and math.isfinite(y)


def _flat(values: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            found |= {f"{name}.{inner}": each for inner, each in _flat(value).items()}
        else:
            found[name] = value
    return found
