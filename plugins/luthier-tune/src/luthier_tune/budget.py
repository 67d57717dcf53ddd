"""Budgets and the schedule: how many steps there are, and how fast each one learns."""

from __future__ import annotations

import math

MEASURED_STEPS = 5
"""Steps after which a budget in minutes is turned into a number of steps."""


def known_steps(
    max_steps: int | None, max_epochs: float | None, max_minutes: float | None, steps_per_epoch: int
) -> int | None:
    """The number of steps, where it does not depend on the machine; None for a budget in minutes."""
    if max_minutes is not None:
        return None
    if max_steps is not None:
        return max_steps
    return max(1, math.ceil((1.0 if max_epochs is None else max_epochs) * steps_per_epoch))


def steps_for(seconds: float, *, done: int, seconds_per_step: float) -> int:
    """All steps that fit, given `done` ones and `seconds` that are left; at least those done."""
    return done + max(0, math.floor(seconds / max(seconds_per_step, 1e-9)))


def learning_rate(step: int, total: int | None, *, peak: float, warmup_steps: int) -> float:
    """The learning rate of a step, counted from 0: a linear rise, then a linear fall to zero.

    The fall starts after the measured steps at the earliest. So the first steps learn at the same rates
    whether the total is known or not, and a budget in minutes can be repeated as one in steps.
    """
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    start = max(warmup_steps, MEASURED_STEPS)
    if total is None or step < start or total <= start:
        return peak
    return peak * (total - step) / (total - start)
