"""Quality by size: what one validator, with one configuration and the same data, measured of a run's models."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from luthier import Run, StepResult
from luthier_report._comparison import Comparison, Direction, MetricRow
from luthier_report._curve import Curve, Series, draw
from luthier_report._sizes import ModelSize, is_speed
from luthier_report._values import displayable, metric_title


@dataclass(frozen=True)
class Measured:
    """A model, its size, and what it reached."""

    model: ModelSize
    value: float


@dataclass(frozen=True)
class QualityBySize:
    """What a validator's component measured of models, the largest first, and its curve for each form of several."""

    component: str
    metric: str
    direction: Direction
    models: list[Measured]
    curves: list[Curve]


def qualities_by_size(run: Run, compared: Iterable[Comparison], sizes: Iterable[ModelSize]) -> list[QualityBySize]:
    """The validators that measured models of several sizes, in the order of the recipe."""
    rows = {one.step: one.rows for one in compared}
    by_step = {size.step: size for size in sizes}
    made = {step.artifact: by_step[step.id] for step in reversed(run.steps) if step.id in by_step}
    groups: dict[str, list[tuple[StepResult, ModelSize]]] = defaultdict(list)
    for step in run.steps:
        ingredients = _ingredients(step)
        model = made.get(ingredients.get("inputs", {}).get("subject", ""))
        if model and rows.get(step.id):
            groups[_measure(step, ingredients)].append((step, model))
    found = (_quality(run, steps, rows) for steps in groups.values())
    return [each for each in found if each is not None]


def _ingredients(step: StepResult) -> Mapping[str, Any]:
    """Of what a validator measured of the run's own model; empty for other steps."""
    if step.stage != "validate":
        return {}
    return next((node.ingredients for node in step.nodes if node.subject in ("candidate", "")), {})


def _measure(step: StepResult, ingredients: Mapping[str, Any]) -> str:
    """What must be the same for two numbers to be comparable."""
    [part] = ingredients["parts"]
    return json.dumps([step.component, part.get("config"), ingredients["inputs"].get("data")], sort_keys=True)


def _quality(
    run: Run, steps: Sequence[tuple[StepResult, ModelSize]], rows: Mapping[str, Sequence[MetricRow]]
) -> QualityBySize | None:
    row = _telling(run, steps, rows)
    if row is None:
        return None
    found = {model.step: (model, _value(rows[step.id], row.name)) for step, model in steps}
    models = [Measured(model, value) for model, value in found.values() if value is not None]
    models.sort(key=lambda each: (-each.model.bytes, each.model.step))
    if len({each.model.bytes for each in models}) < 2:
        return None
    component = displayable(steps[0][0].component)
    return QualityBySize(component, row.name, row.direction, models, _curves(row.name, models))


def _telling(
    run: Run, steps: Sequence[tuple[StepResult, ModelSize]], rows: Mapping[str, Sequence[MetricRow]]
) -> MetricRow | None:
    """The metric that a gate of one of the steps watches; else the first that says something of the model."""
    ids = {step.id for step, _ in steps}
    gated = {gate.metric for gate in run.gates if gate.step in ids}
    last = rows[steps[-1][0].id]
    known = [row for row in last if not row.is_baseline and not is_speed(row.name)]
    return next((row for row in known if row.name in gated), next(iter(known), None))


def _value(rows: Iterable[MetricRow], name: str) -> float | None:
    return next((row.values.get("candidate") for row in rows if row.name == name), None)


def _curves(metric: str, models: Sequence[Measured]) -> list[Curve]:
    """One for each form of several sizes: a line through two forms would say nothing."""
    by_form: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for each in reversed(models):
        by_form[each.model.form].append((each.model.bytes / 1e6, each.value))
    axis, title = "megabytes", metric_title(metric)
    curves = []
    for form, points in by_form.items():
        if len({x for x, _ in points}) > 1:
            series = [Series(title, held_out=True, points=points)]
            caption = f"Quality by size: {title} of the models of the form {displayable(form)}"
            curves.append(Curve(draw(series, axis, caption), series, axis, caption, quantity=""))
    return curves
