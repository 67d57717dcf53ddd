"""The frame of a figure in SVG: its axes, and what stands beside them. The page's style colours it, by class."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

Point = tuple[float, float]

FLAT = 1e-9
"""Values whose difference is no more than this part of them are drawn as one."""


@dataclass(frozen=True)
class Axes:
    """The size of a figure, and of the margins around what is drawn in it, in pixels.

    Attributes:
        width, height: of the whole.
        left, right, top, bottom: the margins; at the left there is room for a number of nine characters.
    """

    width: int = 720
    height: int = 320
    left: int = 80
    right: int = 64
    top: int = 16
    bottom: int = 44

    def x(self, share: float) -> float:
        """Where a share of the horizontal axis is: 0 is its left end, 1 its right one."""
        return self.left + (self.width - self.left - self.right) * share

    def y(self, share: float) -> float:
        """Where a share of the vertical axis is: 0 is its lower end, 1 its upper one."""
        return self.height - self.bottom - (self.height - self.top - self.bottom) * share

    def line(self, y: float, text: str) -> str:
        """A line across, with its value at the left."""
        line = f'<line class="grid" x1="{self.left}" x2="{self.width - self.right}" y1="{y:.1f}" y2="{y:.1f}"/>'
        return f'{line}<text class="tick-y" x="{self.left - 8}" y="{y + 4:.1f}">{escape(text)}</text>'

    def mark(self, x: float, text: str) -> str:
        """A value below the horizontal axis."""
        return f'<text class="tick-x" x="{x:.1f}" y="{self.height - self.bottom + 18}">{escape(text)}</text>'

    def title(self, text: str) -> str:
        """What the horizontal axis shows."""
        return f'<text class="axis" x="{self.x(0.5)}" y="{self.height - 6}">{escape(text)}</text>'

    def svg(self, kind: str, label: str, parts: Iterable[str]) -> str:
        """The figure: of a class for the style, with a label for those who cannot see it."""
        head = f'<svg class="{kind}" viewBox="0 0 {self.width} {self.height}" role="img" aria-label="{escape(label)}">'
        return f"{head}{''.join(parts)}</svg>"


def path(points: Sequence[Point]) -> str:
    """The path through points, as the attribute `d` has it."""
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)


def end(point: Point, kind: str, text: str) -> str:
    """A text at the end of a line, in the line's colour."""
    return f'<text class="end {kind}" x="{point[0] + 8:.1f}" y="{point[1] + 4:.1f}">{escape(text)}</text>'


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers, evenly apart, from at or below `low` to at or above `high`."""
    if high - low <= max(FLAT * max(abs(low), abs(high)), sys.float_info.min):
        # Around a value that is not zero; where nothing is but zeros, they lie on the axis.
        half = abs(low) / 2
        low, high = (low - half, low + half) if half > FLAT else (0.0, 1.0)
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [float(f"{index * step:.12g}") for index in range(first, last + 1)]
