"""Curves as SVG: of learning, and of quality against size.

The one is drawn from a tuner's tables `learning-curve` and `validation-losses`, the other from a pruner's table
`quality-by-size`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from luthier_report._axes import Axes, Point, end, path, ticks
from luthier_report._values import displayable, number

LEARNING_CURVE = "learning-curve"
VALIDATION_LOSSES = "validation-losses"
QUALITY_BY_SIZE = "quality-by-size"
AXES = Axes()
SMOOTH_FROM = 40
"""Points from which a curve is drawn faint, with its moving average on top."""

_X = ("step", "steps", "update", "iteration", "examples", "epoch")
_GROUP = ("split", "series", "kind")
_VALIDATION = ("valid", "eval", "test", "held")


@dataclass(frozen=True)
class Series:
    """A line of the figure: its title, whether it was measured on held-out data, its points."""

    title: str
    held_out: bool
    points: list[Point]

    @property
    def kind(self) -> str:
        """Its class, by which the style colours it."""
        return "held-out" if self.held_out else "training"


@dataclass(frozen=True)
class Curve:
    """The figure as SVG text, its series, the name of its horizontal axis, what it shows, what the series are of."""

    svg: str
    series: list[Series]
    axis: str
    caption: str
    quantity: str = "loss"


def learning_curve(training: pl.DataFrame, validation: pl.DataFrame | None = None) -> Curve | None:
    """The curve of a table with a column of steps and columns of losses; None where there is nothing to draw.

    The losses may be columns of their own (`loss`, `valid_loss`) or one column with the split in another;
    those on held-out data may also stand in a table of their own, with the same column of steps.
    """
    axis = next((name for name in _X if name in training.columns and training.schema[name].is_numeric()), "")
    series = _series(training, axis)
    if validation is not None and axis in validation.columns and "loss" in validation.columns:
        series.append(_one(validation, axis, "loss", "validation"))
    series = [one for one in series if one.points]
    if not series:
        return None
    axis = axis or "row"
    caption = f"Learning curve: loss by {axis}"
    return Curve(draw(series, axis, caption), series, axis, caption)


def quality_by_size(frame: pl.DataFrame) -> Curve | None:
    """The curve of a table with the columns `parameters` and `mean_kl`; None where it is another, or has one size."""
    if not {"parameters", "mean_kl"} <= set(frame.columns):
        return None
    series = _one(frame.with_columns(pl.col("parameters") / 1e6), "parameters", "mean_kl", "KL")
    if len(series.points) < 2:
        return None
    axis = "million parameters"
    caption = "Quality by size: divergence from the model before, in nats a token"
    return Curve(draw([series], axis, caption), [series], axis, caption, "divergence")


def training_speed(training: pl.DataFrame) -> float | None:
    """Tokens a second over the whole of a curve that has both; None for any other."""
    if not {"tokens", "seconds"} <= set(training.columns):
        return None
    seconds = float(training["seconds"].sum())
    return float(training["tokens"].sum()) / seconds if seconds > 0 else None


def _series(frame: pl.DataFrame, axis: str) -> list[Series]:
    losses = [name for name, dtype in frame.schema.items() if dtype.is_numeric() and "loss" in name and name != axis]
    group = next((name for name in _GROUP if name in frame.columns), "")
    if group and losses:
        names = frame[group].cast(pl.String).unique(maintain_order=True).drop_nulls().to_list()
        return [_one(frame.filter(pl.col(group).cast(pl.String) == name), axis, losses[0], name) for name in names]
    return [_one(frame, axis, name, name) for name in losses]


def _one(frame: pl.DataFrame, axis: str, column: str, name: str) -> Series:
    places = frame[axis] if axis else range(1, frame.height + 1)
    pairs = [
        (float(x), float(y)) for x, y in zip(places, frame[column], strict=True) if x is not None and y is not None
    ]
    points = sorted((x, y) for x, y in pairs if math.isfinite(x) and math.isfinite(y))
    held_out = any(word in name.lower() for word in _VALIDATION)
    training = name.lower() in ("loss", "train", "train_loss", "training_loss")
    title = "held out" if held_out else "training" if training else displayable(name).replace("_", " ")
    return Series(title, held_out, points)


def draw(series: Sequence[Series], axis: str, caption: str) -> str:
    """The lines over common axes. Colours come from the page's style, by class."""
    xs = [x for one in series for x, _ in one.points]
    ys = [y for one in series for _, y in one.points]
    x_ticks, y_ticks = ticks(min(xs), max(xs)), ticks(min(ys), max(ys))
    low_x, high_x = min(xs), max(xs)
    low_y, high_y = y_ticks[0], y_ticks[-1]

    def place(point: Point) -> Point:
        across = (point[0] - low_x) / ((high_x - low_x) or 1)
        return AXES.x(across), AXES.y((point[1] - low_y) / (high_y - low_y))

    parts = [AXES.line(place((low_x, tick))[1], number(tick)) for tick in y_ticks]
    parts += [AXES.mark(place((tick, low_y))[0], number(tick)) for tick in x_ticks if low_x <= tick <= high_x]
    parts.append(AXES.title(axis))
    for one in sorted(series, key=lambda one: one.held_out):
        parts += _line(one, [place(point) for point in one.points])
        parts.append(end(place(one.points[-1]), one.kind, number(one.points[-1][1])))
    ends = "; ".join(f"{one.title} from {number(one.points[0][1])} to {number(one.points[-1][1])}" for one in series)
    return AXES.svg("curve", f"{caption}: {ends}", parts)


def moving_average(points: Sequence[Point]) -> list[Point]:
    """Each point's mean with its neighbours, over a window of about a twentieth of the curve."""
    half = max(len(points) // 40, 1)
    smooth = []
    for index, (x, _) in enumerate(points):
        window = points[max(index - half, 0) : index + half + 1]
        smooth.append((x, math.fsum(y for _, y in window) / len(window)))
    return smooth


def _line(series: Series, points: Sequence[Point]) -> list[str]:
    kind = series.kind
    if len(points) >= SMOOTH_FROM and not series.held_out:
        smooth = path(moving_average(points))
        parts = [f'<path class="{kind} faint" d="{path(points)}"/>', f'<path class="{kind}" d="{smooth}"/>']
    else:
        parts = [f'<path class="{kind}" d="{path(points)}"/>']
    if series.held_out or len(points) == 1:
        parts += [f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="4"/>' for x, y in points]
    return parts
