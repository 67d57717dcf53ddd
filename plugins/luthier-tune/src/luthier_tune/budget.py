"""Budgets and the schedule: how many steps there are, and how fast each one learns.

The rate rises, stays, and falls linearly to zero over the last part of the steps: warmup-stable-decay, as in
MiniCPM (Hu et al., 2024, arXiv:2404.06395) and Hägele et al. (2024, arXiv:2405.18392), who find it as good as
a cosine. Until the fall begins, nothing depends on the total. So a budget in minutes need not guess the
total from the first steps; it watches the clock, and begins the fall when what is left just suffices for it.
The fall's length follows from where it begins: the same total in steps gives the same rates.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

_STABLE, _OF = 7, 10
"""The share of the steps before the rate falls: seven of ten."""

RECENT_STEPS = 5
"""The speed is that of the last tenth of the steps, and of so many at least."""


def known_steps(
    max_steps: int | None, max_epochs: float | None, max_minutes: float | None, steps_per_epoch: int
) -> int | None:
    """The number of steps, where it does not depend on the machine; None for a budget in minutes."""
    if max_minutes is not None:
        return None
    if max_steps is not None:
        return max_steps
    return max(1, math.ceil((1.0 if max_epochs is None else max_epochs) * steps_per_epoch))


def cooldown_start(total: int) -> int:
    """The step, counted from 0, from which the rate falls."""
    return total * _STABLE // _OF


def total_with_cooldown_at(step: int) -> int:
    """The number of steps of the shortest schedule whose rate falls from `step` on."""
    return -(-step * _OF // _STABLE)


def learning_rate(step: int, total: int | None, *, peak: float, warmup_steps: int) -> float:
    """The learning rate of a step, counted from 0, of `total` ones; None while the fall has not begun."""
    rise = min(1.0, (step + 1) / warmup_steps) if warmup_steps else 1.0
    if total is None:
        return peak * rise
    start = cooldown_start(total)
    return peak * min(rise, (total - step) / (total - start))


def seconds_per_step(curve: Sequence[dict[str, float]], tokens_per_step: float, elapsed: float) -> float:
    """The seconds that a coming step will take, by the speed of the recent ones.

    Args:
        curve: the steps done, with their `seconds` and `tokens`; at least one.
        tokens_per_step: of a mean step.
        elapsed: since the first step began: what was spent beside the steps, on validation and checkpoints,
            will be spent again.
    """
    recent = curve[-max(RECENT_STEPS, len(curve) // 10) :]
    per_token = sum(record["seconds"] for record in recent) / sum(record["tokens"] for record in recent)
    besides = elapsed / max(sum(record["seconds"] for record in curve), 1e-9)
    return per_token * tokens_per_step * max(1.0, besides)


def steps_left(
    curve: Sequence[dict[str, float]],
    *,
    minutes: float,
    elapsed: float,
    before: float,
    after: float,
    tokens_per_step: float,
) -> float:
    """The steps that a budget in minutes has time for after those done.

    Args:
        curve: the steps done, with their `seconds` and `tokens`; at least one.
        minutes: the budget.
        elapsed: seconds since its beginning.
        before: those of them that were spent before the first step, once.
        after: seconds to be kept free for what comes after the last step.
        tokens_per_step: of a mean step.
    """
    left = max(0.0, 60 * minutes - elapsed - after)
    return left / seconds_per_step(curve, tokens_per_step, elapsed - before)


def settled_total(step: int, left: float) -> int | None:
    """The number of steps, if the fall of the rate must begin after `step` to fit into those left; else None."""
    return None if total_with_cooldown_at(step + 1) - step <= left else total_with_cooldown_at(step)
