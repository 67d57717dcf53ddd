"""The report as one HTML page: no script, no network, light and dark, for screens and paper."""

from __future__ import annotations

from functools import cache
from typing import Any

import jinja2

from luthier import Run, StepResult
from luthier_report import _values
from luthier_report._comparison import SUBJECT_TITLES, comparisons
from luthier_report._curve import LEARNING_CURVE, VALIDATION_LOSSES, Curve, learning_curve
from luthier_report._funnel import data_steps, splits
from luthier_report._generations import generations
from luthier_report._lineage import configuration_of as configuration_of_step
from luthier_report._lineage import environment, flatten, lineage
from luthier_report._notes import FigureView, TableView, figures_of, frame_of, notes_of, search_table, tables_of
from luthier_report._recipe import recipe_text
from luthier_report._sizes import is_speed, model_sizes, speeds, step_times
from luthier_report._verdict import STATE_TITLES, headline

MODEL_STAGES = ("architecture", "tune", "export", "quantize")
"""The stages whose steps make models, for the section on the model."""

FILTERS = (
    "number",
    "signed",
    "size",
    "duration",
    "moment",
    "value_text",
    "metric_title",
    "displayable",
    "cell",
    "setting",
)


def report_page(run: Run) -> str:
    """The whole page."""
    return templates().get_template("report.html").render(page_context(run))


@cache
def templates() -> jinja2.Environment:
    """The package's templates. HTML is escaped; a name that does not exist is an error."""
    loaded = jinja2.Environment(
        loader=jinja2.PackageLoader("luthier_report"),
        autoescape=jinja2.select_autoescape(["html"]),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    loaded.filters |= {name: getattr(_values, name) for name in FILTERS}
    return loaded


def page_context(run: Run) -> dict[str, Any]:
    """Everything that the template shows, by section."""
    compared = comparisons(run)
    data = data_steps(run)
    return {
        "run": run.data,
        "state": STATE_TITLES[run.state],
        "headline": headline(run, compared),
        "recipe": recipe_text(run),
        "data": data,
        "bias": [step for step in data if step.stage == "bias"],
        "splits": splits(run),
        "models": [_model_step(run, step) for step in run.steps if step.stage in MODEL_STAGES],
        "others": [_model_step(run, step) for step in run.steps if _is_other(step)],
        "comparisons": compared,
        "subject_titles": SUBJECT_TITLES,
        "sizes": model_sizes(run),
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


def _model_step(run: Run, step: StepResult) -> dict[str, Any]:
    """A step that makes a model: its configuration, what it measured, its learning curve."""
    notes = notes_of(run, step)
    frame = frame_of(notes, LEARNING_CURVE)
    curve: Curve | None = learning_curve(frame, frame_of(notes, VALIDATION_LOSSES)) if frame is not None else None
    tables: list[TableView] = tables_of(notes)
    figures: list[FigureView] = figures_of(notes)
    return {
        "step": step,
        "configuration": flatten(configuration_of_step(step)),
        "curve": curve,
        "candidates": search_table(step),
        "failures": step.search.failures() if step.search else [],
        "tables": tables,
        "figures": figures,
    }
