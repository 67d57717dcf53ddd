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

BY_TOKEN, BY_BYTE = ("perplexity", "loss"), "bits_per_byte"
"""Metrics that compare models of one vocabulary alone, and the one that stands for them."""


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
    """What must be the same for two numbers to be comparable: who measured, how, on what, and held against what."""
    inputs = {name: made for name, made in ingredients["inputs"].items() if name != "subject"}
    return json.dumps([step.component, ingredients["parts"][0].get("config"), inputs], sort_keys=True)


def _quality(
    run: Run, steps: Sequence[tuple[StepResult, ModelSize]], rows: Mapping[str, Sequence[MetricRow]]
) -> QualityBySize | None:
    metric = _telling(run, steps, rows)
    found = {model.step: (model, _row(rows[step.id], metric)) for step, model in steps}
    models = [Measured(model, row.values["candidate"]) for model, row in found.values() if row]
    models.sort(key=lambda each: (-each.model.bytes, each.model.step))
    if len({each.model.bytes for each in models}) < 2:
        return None
    component = displayable(steps[0][0].component)
    # A gate tells it, and only one of the steps may have one.
    directions = [row.direction for _, row in found.values() if row and row.direction]
    return QualityBySize(component, metric, directions[0] if directions else "", models, _curves(metric, models))


def _telling(run: Run, steps: Sequence[tuple[StepResult, ModelSize]], rows: Mapping[str, Sequence[MetricRow]]) -> str:
    """The metric that a gate of one of the steps watches; else the first that says something of the model."""
    ids = {step.id for step, _ in steps}
    gated = {gate.metric for gate in run.gates if gate.step in ids}
    known = [row.name for row in rows[steps[-1][0].id] if not row.is_baseline and not is_speed(row.name)]
    chosen = next((name for name in known if name in gated), next(iter(known), ""))
    # A smaller vocabulary has fewer tokens to choose among, and more of them in a text.
    return BY_BYTE if chosen in BY_TOKEN and BY_BYTE in known else chosen


def _row(rows: Iterable[MetricRow], name: str) -> MetricRow | None:
    return next((row for row in rows if row.name == name and "candidate" in row.values), None)


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
