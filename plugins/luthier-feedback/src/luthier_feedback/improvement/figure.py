"""A metric over the rounds, as SVG: a line through the champions, and marks for what did not make one.

A cross is a challenger that was refused, a diamond the champion as it was measured again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from html import escape

from luthier_feedback.improvement.rounds import Line, Rounds
from luthier_report.pages import Axes, end, number, path, ticks

AXES = Axes()
CROSS = 5
"""Half the width of a cross, in pixels."""
DIAMOND = 6
"""Half the width of a diamond."""
LABELS = 20
"""So many entries are numbered below the axis, at most."""
COLOURS = 4
"""So many lines have a colour of their own, by the classes `line-0` to `line-3`."""

Point = tuple[float, float]


def figure(rounds: Rounds, metric: str) -> str:
    """The lines of a metric; empty where there are not two values to connect.

    Args:
        rounds: what happened.
        metric: the name.
    """
    lines = [line for line in rounds.lines if line.metric == metric]
    known = [value for line in lines for value in line.values if value is not None and math.isfinite(value)]
    if len(known) < 2 or len(rounds.happenings) < 2:
        return ""
    marks = ticks(min(known), max(known))
    last = len(rounds.happenings) - 1

    def y_of(value: float) -> float:
        return AXES.y((value - marks[0]) / (marks[-1] - marks[0]))

    parts = [AXES.line(y_of(mark), number(mark)) for mark in marks]
    numbered = list(enumerate(rounds.happenings))[:: math.ceil((last + 1) / LABELS)]
    parts += [AXES.mark(AXES.x(place / last), str(each.number)) for place, each in numbered]
    parts.append(AXES.title("entry of the history"))
    for place, line in enumerate(lines):
        points = [
            (AXES.x(index / last), y_of(value), each.event, f"{each.number}, {each.event}: {value:.6g}")
            for index, (each, value) in enumerate(zip(rounds.happenings, line.values, strict=True))
            if value is not None and math.isfinite(value)
        ]
        kind = f"line-{place % COLOURS}"
        champions = [(x, y) for x, y, event, _ in points if event not in MARKS]
        parts += [f'<path class="{kind}" d="{path(champions)}"/>'] if len(champions) > 1 else []
        parts += [MARKS.get(event, _circle)((x, y), kind, told) for x, y, event, told in points]
        if champions:
            parts.append(end(champions[-1], kind, number(_champions(line, rounds)[-1])))
    return AXES.svg("curve rounds", _told(lines, rounds), parts)


def _champions(line: Line, rounds: Rounds) -> list[float]:
    """The values of those that were champion, in order."""
    pairs = zip(rounds.happenings, line.values, strict=True)
    return [value for each, value in pairs if each.event not in MARKS and value is not None and math.isfinite(value)]


def _told(lines: Sequence[Line], rounds: Rounds) -> str:
    """The figure in words, for those who cannot see it."""
    told = [
        f"{line.name} of the champions: {', '.join(map(number, _champions(line, rounds))) or 'not known'}"
        for line in lines
    ]
    return "; ".join(told)


def _circle(point: Point, kind: str, told: str) -> str:
    return (
        f'<circle class="{kind}" cx="{point[0]:.1f}" cy="{point[1]:.1f}" r="4"><title>{escape(told)}</title></circle>'
    )


def _cross(point: Point, kind: str, told: str) -> str:
    x, y = point
    stroke = f"M{x - CROSS:.1f} {y - CROSS:.1f}l{2 * CROSS} {2 * CROSS}m0 {-2 * CROSS}l{-2 * CROSS} {2 * CROSS}"
    return f'<path class="{kind} cross" d="{stroke}"><title>{escape(told)}</title></path>'


def _diamond(point: Point, kind: str, told: str) -> str:
    x, y = point
    stroke = f"M{x - DIAMOND:.1f} {y:.1f}l{DIAMOND} {-DIAMOND}l{DIAMOND} {DIAMOND}l{-DIAMOND} {DIAMOND}z"
    return f'<path class="{kind} diamond" d="{stroke}"><title>{escape(told)}</title></path>'


MARKS: Mapping[str, Callable[[Point, str, str], str]] = {"refused": _cross, "evaluated": _diamond}
"""How events are drawn that make no champion."""
