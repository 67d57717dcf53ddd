"""Figures that benchmarks hold against targets."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Outcome:
    """A figure beside its target.

    Attributes:
        name: what was measured.
        value: what came out.
        target: what it should be, at the least or at the most.
        at_most: whether less is better.
    """

    name: str
    value: float
    target: float
    at_most: bool = False

    @property
    def reached(self) -> bool:
        """Whether the target was reached; NaN never does."""
        return self.value <= self.target if self.at_most else self.value >= self.target

    @property
    def shown(self) -> str:
        """The value for people."""
        return f"{self.value:,.0f}" if self.value >= 1000 else f"{self.value:.3g}"

    @property
    def bound(self) -> str:
        """The target in words."""
        return f"at {'most' if self.at_most else 'least'} {self.target:,g}"

    def __str__(self) -> str:
        return f"{self.name}: {self.shown} (target: {self.bound})"
