"""A metric over the rounds, as SVG: a line through the champions, and a cross for each challenger that was refused."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from luthier_feedback.improvement.rounds import Line, Rounds
from luthier_report.pages import number, ticks

WIDTH, HEIGHT = 720, 320
LEFT, RIGHT, TOP, BOTTOM = 56, 64, 16, 44
CROSS = 5
"""Half the width of a cross, in pixels."""
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
    apart = (WIDTH - LEFT - RIGHT) / (len(rounds.happenings) - 1)

    def y_of(value: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (value - marks[0]) / (marks[-1] - marks[0])

    parts = [_grid(y_of(mark), mark) for mark in marks]
    parts += [_mark(LEFT + place * apart, each.number) for place, each in enumerate(rounds.happenings)]
    parts.append(f'<text class="axis" x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 6}">entry of the history</text>')
    for place, line in enumerate(lines):
        points = [
            (LEFT + index * apart, y_of(value), each.event == "refused", f"{each.number}, {each.event}: {value:.6g}")
            for index, (each, value) in enumerate(zip(rounds.happenings, line.values, strict=True))
            if value is not None and math.isfinite(value)
        ]
        kind = f"line-{place % COLOURS}"
        champions = [(x, y) for x, y, refused, _ in points if not refused]
        parts += [_path(champions, kind)] if len(champions) > 1 else []
        parts += [(_cross if refused else _circle)((x, y), kind, told) for x, y, refused, told in points]
        if champions:
            parts.append(_end(champions[-1], kind, _champions(line, rounds)[-1]))
    label = escape(_told(lines, rounds))
    head = f'<svg class="curve rounds" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">'
    return f"{head}{''.join(parts)}</svg>"


def _champions(line: Line, rounds: Rounds) -> list[float]:
    """The values of those that were champion, in order."""
    pairs = zip(rounds.happenings, line.values, strict=True)
    return [value for each, value in pairs if each.event != "refused" and value is not None and math.isfinite(value)]


def _told(lines: Sequence[Line], rounds: Rounds) -> str:
    """The figure in words, for those who cannot see it."""
    told = [
        f"{line.name} of the champions: {', '.join(map(number, _champions(line, rounds))) or 'not known'}"
        for line in lines
    ]
    return "; ".join(told)


def _grid(y: float, mark: float) -> str:
    line = f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
    return f'{line}<text class="tick-y" x="{LEFT - 8}" y="{y + 4:.1f}">{number(mark)}</text>'


def _mark(x: float, entry: int) -> str:
    return f'<text class="tick-x" x="{x:.1f}" y="{HEIGHT - BOTTOM + 18}">{entry}</text>'


def _path(points: Sequence[Point], kind: str) -> str:
    return f'<path class="{kind}" d="M{"L".join(f"{x:.1f} {y:.1f}" for x, y in points)}"/>'


def _circle(point: Point, kind: str, told: str) -> str:
    return (
        f'<circle class="{kind}" cx="{point[0]:.1f}" cy="{point[1]:.1f}" r="4"><title>{escape(told)}</title></circle>'
    )


def _cross(point: Point, kind: str, told: str) -> str:
    x, y = point
    stroke = f"M{x - CROSS:.1f} {y - CROSS:.1f}l{2 * CROSS} {2 * CROSS}m0 {-2 * CROSS}l{-2 * CROSS} {2 * CROSS}"
    return f'<path class="{kind} cross" d="{stroke}"><title>{escape(told)}</title></path>'


def _end(point: Point, kind: str, value: float) -> str:
    return f'<text class="end {kind}" x="{point[0] + 8:.1f}" y="{point[1] + 4:.1f}">{number(value)}</text>'
