"""The search as one HTML page: the choice, the Pareto front as a figure, every route with its measures."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from luthier_optimize.choosing import OBJECTIVES, keeps_to
from luthier_optimize.outcome import Outcome
from luthier_optimize.routes import Limits
from luthier_optimize.terminal import cells, ranked, summary
from luthier_report.pages import Axes, number, path, template_environment, ticks, write

FILE = "optimize.html"
AXES = Axes(height=400, right=32, top=28, bottom=48)
LEAST_KL = 1e-5
"""What a divergence of less is drawn as, on a logarithmic axis."""
LABEL = 14
"""Pixels from a point to its number, and between numbers of points that are near each other."""


def write_page(outcome: Outcome, directory: Path) -> Path:
    """Write optimize.html.

    Raises:
        InputError: if it cannot be written.
    """
    template = template_environment("luthier_optimize").get_template("optimize.html")
    return write(directory / FILE, template.render(page_context(outcome)))


def page_context(outcome: Outcome) -> dict[str, Any]:
    """Everything that the template shows."""
    limits = Limits(outcome.limits.get("max_kl"), outcome.limits.get("max_size"))
    tasks = list(dict.fromkeys(name for each in (outcome.baseline, *outcome.measured) for name in each.task))
    rows = [
        {
            "number": rank or "",
            "label": each.label,
            "chosen": each.label == outcome.chosen,
            "front": each.label in outcome.front,
            "within": each is outcome.baseline or keeps_to(each, limits),
            "cells": cells(each, tasks),
        }
        for rank, each in enumerate((outcome.baseline, *ranked(outcome)))
    ]
    chosen = outcome.named(outcome.chosen) if outcome.chosen else None
    return {
        "outcome": outcome,
        "model": _name_of(outcome.model),
        "chosen": chosen,
        "summary": summary(chosen) if chosen else "",
        "goal": OBJECTIVES[outcome.goal].title,
        "tasks": tasks,
        "rows": rows,
        "failed": [each for each in outcome.tried if each.error and not each.left_out],
        "left_out": [each for each in outcome.tried if each.left_out],
        "figure": figure(outcome),
    }


def _name_of(model: str) -> str:
    """A model for people: of a directory or a file its name, of a run, a step or a location what was given."""
    return Path(os.path.abspath(model)).name or model if os.path.exists(model) else model


def figure(outcome: Outcome) -> str:
    """The measured models by what the goal asks for and by what they lost, as SVG; empty where nothing was measured.

    For `quality`, by their size.
    """
    objective = OBJECTIVES["size" if outcome.goal == "quality" else outcome.goal]
    points = [
        (value, max(each.mean_kl, LEAST_KL), each)
        for each in outcome.measured
        if each.mean_kl is not None and (value := objective.shown(each)) is not None
    ]
    if not points:
        return ""
    xs, ys = [x for x, _, _ in points], [y for _, y, _ in points]
    x_ticks = ticks(min([0.0, *xs]), max(xs))
    limit = outcome.limits.get("max_kl")
    shown = [*ys, limit] if limit else ys
    low, high = math.floor(math.log10(min(shown))), math.ceil(math.log10(max(shown)) + 1e-9)
    high = max(high, low + 1)

    def x_of(value: float) -> float:
        return AXES.x((value - x_ticks[0]) / (x_ticks[-1] - x_ticks[0]))

    def y_of(value: float) -> float:
        return AXES.y((math.log10(value) - low) / (high - low))

    parts = [AXES.line(y_of(10.0**power), _power(power)) for power in range(low, high + 1)]
    parts += [AXES.mark(x_of(tick), number(tick)) for tick in x_ticks]
    parts.append(AXES.title(objective.title))
    parts.append(f'<text x="{AXES.left}" y="{AXES.top - 10}">mean KL, nats a token</text>')
    if limit:
        y = f"{y_of(limit):.1f}"
        parts.append(f'<line class="limit" x1="{AXES.x(0)}" x2="{AXES.x(1)}" y1="{y}" y2="{y}"/>')
    places = {each.label: (x_of(x), y_of(y)) for x, y, each in points}
    front = sorted(places[label] for label in outcome.front if label in places)
    if len(front) > 1:
        parts.append(f'<path d="{path(front)}"/>')
    parts += [_point(outcome, label, x, y) for label, (x, y) in places.items()]
    parts += _numbers(
        {rank: places[each.label] for rank, each in enumerate(ranked(outcome), 1) if each.label in places}
    )
    caption = f"{len(points)} models by {objective.title} and mean KL; on the Pareto front: {', '.join(outcome.front)}"
    return AXES.svg("curve front", caption, parts)


def _power(power: int) -> str:
    """A power of ten for people."""
    return number(10.0**power) if power >= -3 else f"1e{power}".replace("-", "\N{MINUS SIGN}")


def _point(outcome: Outcome, label: str, x: float, y: float) -> str:
    kind = "chosen" if label == outcome.chosen else "best" if label in outcome.front else "other"
    title = f"<title>{escape(label)}</title>"
    return f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="{6 if kind == "chosen" else 4.5}">{title}</circle>'


def _numbers(places: Mapping[int, tuple[float, float]]) -> list[str]:
    """The number of each point's row in the table above it; above one another where points are near each other."""
    taken: list[tuple[float, float]] = []
    found = []
    for rank, (x, y) in places.items():
        height = y - LABEL / 2 - 2
        while any(abs(x - other) < LABEL and abs(height - there) < LABEL - 2 for other, there in taken):
            height -= LABEL
        taken.append((x, height))
        found.append(f'<text class="number" x="{x:.1f}" y="{height:.1f}">{rank}</text>')
    return found
