"""Horizontal bars as SVG: written by hand, readable in light and dark, described for screen readers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from itertools import groupby

WIDTH = 720
LEFT = 210
RIGHT = 80
ROW = 18
HEADING = 26
TOP = 52

STYLE = """
text { font: 12px system-ui, sans-serif; fill: #1f2328 }
.title { font-size: 15px; font-weight: 600 } .axis { font-weight: 600 } .note { fill: #59636e }
rect { fill: #2f6f9f }
@media (prefers-color-scheme: dark) { text { fill: #e6edf3 } .note { fill: #9198a1 } rect { fill: #6cb0e0 } }
"""


@dataclass(frozen=True)
class Bar:
    """A bar: the heading that it stands under, its label, its length in units."""

    heading: str
    label: str
    value: float


def bars(values: Sequence[Bar], title: str, note: str) -> str:
    """The figure as SVG text; neighbouring bars of one heading stand together.

    The description (`desc`) has all the numbers, so nothing is told by lengths and colours alone.
    """
    greatest = max((bar.value for bar in values), default=1.0) or 1.0
    parts: list[str] = []
    y = TOP
    for heading, members in groupby(values, key=lambda bar: bar.heading):
        parts.append(f'<text class="axis" x="12" y="{y + 14}">{escape(heading)}</text>')
        y += HEADING
        for bar in members:
            parts.append(_row(bar, y, greatest))
            y += ROW
    if not values:
        parts.append(f'<text x="12" y="{y + 14}">none found</text>')
        y += HEADING
    numbers = "; ".join(f"{bar.heading}, {bar.label}: {bar.value:.1f}" for bar in values) or "none found"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y + 12}" width="{WIDTH}" role="img" '
        f'aria-labelledby="title desc"><title id="title">{escape(title)}</title>'
        f'<desc id="desc">{escape(title)}, {escape(note)}. {escape(numbers)}</desc><style>{STYLE}</style>'
        f'<text class="title" x="12" y="22">{escape(title)}</text>'
        f'<text class="note" x="12" y="40">{escape(note)}</text>{"".join(parts)}</svg>'
    )


def _row(bar: Bar, y: int, greatest: float) -> str:
    length = max((WIDTH - LEFT - RIGHT) * bar.value / greatest, 1.0)
    return (
        f'<text x="{LEFT - 8}" y="{y + 12}" text-anchor="end">{escape(bar.label)}</text>'
        f'<rect x="{LEFT}" y="{y + 2}" width="{length:.1f}" height="{ROW - 5}" rx="2"/>'
        f'<text class="note" x="{LEFT + length + 6:.1f}" y="{y + 12}">{bar.value:,.1f}</text>'
    )
