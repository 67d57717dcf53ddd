"""The report as one HTML page: no script, no network, light and dark, for screens and paper."""

from __future__ import annotations

from functools import cache
from typing import Any

import jinja2

from luthier import Report, Run, StepResult
from luthier_report._by_size import qualities_by_size
from luthier_report._comparison import SUBJECT_TITLES, comparisons
from luthier_report._curve import (
    LEARNING_CURVE,
    QUALITY_BY_SIZE,
    VALIDATION_LOSSES,
    Curve,
    learning_curve,
    quality_by_size,
)
from luthier_report._funnel import data_steps, splits
from luthier_report._generations import generations
from luthier_report._lineage import configuration_of as configuration_of_step
from luthier_report._lineage import environment, flatten, lineage
from luthier_report._notes import FigureView, TableView, figures_of, frame_of, notes_of, search_table, tables_of
from luthier_report._recipe import recipe_text
from luthier_report._sizes import is_speed, model_sizes, speeds, step_times
from luthier_report._verdict import MARKS, STATE_TITLES, headline
from luthier_report.pages import template_environment

MODEL_STAGES = ("architecture", "tune", "prune", "export", "quantize")
"""The stages whose steps make models, for the section on the model."""


def report_page(run: Run) -> str:
    """The whole page."""
    return templates().get_template("report.html").render(page_context(run))


@cache
def templates() -> jinja2.Environment:
    """The package's templates."""
    return template_environment("luthier_report")


def page_context(run: Run) -> dict[str, Any]:
    """Everything that the template shows, by section."""
    compared = comparisons(run)
    data = data_steps(run)
    sizes = model_sizes(run)
    return {
        "run": run.data,
        "state": STATE_TITLES[run.state],
        "marks": MARKS,
        "headline": headline(run, compared),
        "recipe": recipe_text(run),
        "data": data,
        "bias": [step for step in data if step.stage == "bias"],
        "splits": splits(run),
        "models": [_model_step(run, step) for step in run.steps if step.stage in MODEL_STAGES],
        "others": [_model_step(run, step) for step in run.steps if _is_other(step)],
        "comparisons": compared,
        "subject_titles": SUBJECT_TITLES,
        "sizes": sizes,
        "by_size": qualities_by_size(run, compared, sizes),
        "speeds": speeds(run, compared),
        "times": step_times(run),
        "is_speed": is_speed,
        "generations": generations(run),
        "lineage": lineage(run),
        "environment": environment(run),
    }


def _is_other(step: StepResult) -> bool:
    """A step of a stage that a plugin brought, which counted no documents."""
    return step.stage not in (*MODEL_STAGES, "validate") and not step.counts and step.state == "done"


def _curve(notes: Report | None) -> Curve | None:
    """Of what was learnt, or of what smaller models are worth; None for a step that noted neither."""
    learnt = frame_of(notes, LEARNING_CURVE)
    if learnt is not None:
        return learning_curve(learnt, frame_of(notes, VALIDATION_LOSSES))
    sizes = frame_of(notes, QUALITY_BY_SIZE)
    return quality_by_size(sizes) if sizes is not None else None


def _model_step(run: Run, step: StepResult) -> dict[str, Any]:
    """A step that makes a model: its configuration, what it measured, its curve."""
    notes = notes_of(run, step)
    tables: list[TableView] = tables_of(notes)
    figures: list[FigureView] = figures_of(notes)
    return {
        "step": step,
        "configuration": flatten(configuration_of_step(step)),
        "curve": _curve(notes),
        "candidates": search_table(step),
        "failures": step.search.failures() if step.search else [],
        "tables": tables,
        "figures": figures,
    }
