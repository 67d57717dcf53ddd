"""From a target to how much is removed."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from luthier import InputError
from luthier_models.families.sizes import parse_count

if TYPE_CHECKING:
    from luthier_prune.options import Pruning


class Units(Protocol):
    """What can be removed, one unit after the other.

    Attributes:
        unit: what one is called, in the plural: `layers`.
        total: how many there are.
        removable: how many of them can go at most.
    """

    unit: str
    total: int
    removable: int

    def parameters(self, removed: int) -> int:
        """The parameters of the model without so many units."""


def settled(units: Units, settings: Pruning) -> int | None:
    """How many units go; None where a budget of quality decides, which must be measured.

    Raises:
        InputError: if the target leaves nothing, takes nothing, or cannot be reached.
    """
    if settings.max_kl is not None:
        if units.removable < 1:
            raise InputError(f"there are {units.total} {units.unit}, of which none can be removed", "Leave this out.")
        return None
    if settings.ratio is not None:
        return _of_ratio(units, settings.ratio)
    assert settings.parameters is not None
    return _of_parameters(units, parse_count(settings.parameters))


def _of_ratio(units: Units, ratio: float) -> int:
    removed = round(ratio * units.total)
    if removed > units.removable:
        left = f"{units.removable} of {units.total} {units.unit} can be removed"
        raise InputError(f"a ratio of {ratio:g} leaves nothing: {left}", "Lower `ratio`.")
    if removed < 1:
        least = 1 / units.total
        raise InputError(
            f"a ratio of {ratio:g} of {units.total} {units.unit} removes none", f"Raise it: one is {least:.3g}."
        )
    return removed


def _of_parameters(units: Units, most: int) -> int:
    whole, least = units.parameters(0), units.parameters(units.removable)
    if whole <= most:
        raise InputError(
            f"the model has {whole:,} parameters, so there is nothing to remove for {most:,}", "Lower `parameters`."
        )
    if least > most:
        raise InputError(
            f"{most:,} parameters cannot be reached: {least:,} remain without {units.removable} of {units.total} "
            f"{units.unit}",
            "Raise `parameters`, or prune something else as well.",
        )
    return _first(0, units.removable, lambda removed: units.parameters(removed) <= most)


def largest_within(units: Units, max_kl: float, measure: Callable[[int], float]) -> int:
    """The most units whose removal stays within a budget, by bisection: as if the damage grew with each.

    It need not, but what is given was measured, and is within.

    Args:
        units: what can be removed.
        max_kl: nats a token.
        measure: the divergence without so many units.

    Raises:
        InputError: if one unit is already too much.
    """
    beyond = _first(0, units.removable + 1, lambda removed: removed > units.removable or measure(removed) > max_kl)
    if beyond <= 1:
        raise InputError(
            f"without one of {units.total} {units.unit} the divergence is {measure(1):.4g} nats a token, and "
            f"`max_kl` allows {max_kl:g}",
            "Raise `max_kl`, or prune something else.",
        )
    return beyond - 1


def _first(low: int, high: int, holds: Callable[[int], bool]) -> int:
    """The first number above `low` from which on something holds, as it does at `high`."""
    while high - low > 1:
        middle = (low + high) // 2
        if holds(middle):
            high = middle
        else:
            low = middle
    return high
