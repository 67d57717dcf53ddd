"""Which of the measured models is best within the limits, and which are on the Pareto front."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from luthier_optimize.outcome import Tried
from luthier_optimize.routes import Limits

Goal = Literal["decode", "prefill", "size", "memory", "load", "quality"]


@dataclass(frozen=True)
class Objective:
    """What a model is chosen by.

    Attributes:
        title: for people, with the unit.
        cost: what to make small; None where it was not measured.
        shown: the number for people that the cost stands for.
    """

    title: str
    cost: Callable[[Tried], float | None]
    shown: Callable[[Tried], float | None]


def _slowness(name: str) -> Callable[[Tried], float | None]:
    """The time of a token in that of the float32 model, which is what the rounds' ratios compare."""
    return lambda tried: 1 / tried.ratios[name] if tried.ratios.get(name) else None


def _time(name: str) -> Callable[[Tried], float | None]:
    return lambda tried: tried.times.get(name)


OBJECTIVES: dict[str, Objective] = {
    "decode": Objective("decode, tokens/s", _slowness("decode"), _time("decode")),
    "prefill": Objective("prefill, tokens/s", _slowness("prefill"), _time("prefill")),
    "size": Objective("size, MB", lambda tried: float(tried.bytes), lambda tried: tried.bytes / 1e6),
    "memory": Objective("peak memory, MB", _time("peak_megabytes"), _time("peak_megabytes")),
    "load": Objective("load, s", _time("load_seconds"), _time("load_seconds")),
    "quality": Objective("mean KL", lambda tried: tried.mean_kl, lambda tried: tried.mean_kl),
}
"""By the word that `--for` takes."""


def keeps_to(tried: Tried, limits: Limits) -> bool:
    """Whether a measured model is within the limits."""
    return not misses(tried, limits)


def misses(tried: Tried, limits: Limits) -> dict[str, float]:
    """By what factor a measured model is above each limit that it does not keep to."""
    found = {}
    if limits.max_kl is not None and tried.mean_kl is not None and tried.mean_kl > limits.max_kl:
        found["max_kl"] = tried.mean_kl / limits.max_kl
    if limits.max_bytes is not None and tried.bytes > limits.max_bytes:
        found["max_size"] = tried.bytes / limits.max_bytes
    return found


def choose(measured: Sequence[Tried], limits: Limits, goal: str) -> Tried | None:
    """The best one for the goal of those within the limits; of equal ones the one that lost least. None if none is."""
    cost = OBJECTIVES[goal].cost
    able = [(found, each) for each in measured if keeps_to(each, limits) and (found := cost(each)) is not None]
    return min(able, key=lambda pair: (pair[0], pair[1].mean_kl or 0.0))[1] if able else None


def nearest(measured: Sequence[Tried], limits: Limits) -> Tried | None:
    """The one that misses the limits by the smallest factor; None where nothing was measured."""
    if not measured:
        return None
    return min(measured, key=lambda each: (max(misses(each, limits).values(), default=1.0), each.mean_kl or 0.0))


def pareto(measured: Sequence[Tried], goal: str) -> list[Tried]:
    """Those that no other one beats in what the goal asks for without losing more, by their cost.

    For `quality` the other measure is the size.
    """
    cost = OBJECTIVES["size" if goal == "quality" else goal].cost
    points = [
        (found, each.mean_kl, each)
        for each in measured
        if (found := cost(each)) is not None and each.mean_kl is not None
    ]
    points.sort(key=lambda point: point[:2])
    front: list[Tried] = []
    lost = float("inf")
    for _, divergence, each in points:
        if divergence < lost:
            front.append(each)
            lost = divergence
    return front
