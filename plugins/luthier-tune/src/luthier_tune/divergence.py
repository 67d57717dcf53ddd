"""Divergence: a loss that is no number, or stays far above where it began."""

from __future__ import annotations

import math
from collections.abc import Sequence

WINDOW = 20
"""Steps in a row whose mean loss decides: single batches may be hard."""
_FIRST = 5


def diverged(curve: Sequence[dict[str, float]], validation: Sequence[dict[str, float]]) -> str:
    """How the training diverged by its last step; empty if it did not.

    It did where the mean loss of the last steps exceeds the loss at the start by one and by half of it. A model
    that lost its language has about the entropy of single tokens, 6 nats or more; one that was tuned well
    never comes near its start again.

    Args:
        curve: the record of each step, with its `loss` and `gradient_norm`; at least one.
        validation: the record of each validation, with its `loss`.
    """
    loss, norm = curve[-1]["loss"], curve[-1]["gradient_norm"]
    if not (math.isfinite(loss) and math.isfinite(norm)):
        return f"the loss is {loss}, the norm of its gradient {norm}"
    if len(curve) < WINDOW + _FIRST:
        return ""
    start = _mean(curve[:_FIRST])
    if validation:
        start = max(start, validation[0]["loss"])
    recent = _mean(curve[-WINDOW:])
    if recent > start + abs(start) / 2 + 1:
        return f"the mean loss of the last {WINDOW} steps is {recent:.3g}, and at its start it was {start:.3g}"
    return ""


def _mean(curve: Sequence[dict[str, float]]) -> float:
    return math.fsum(record["loss"] for record in curve) / len(curve)
