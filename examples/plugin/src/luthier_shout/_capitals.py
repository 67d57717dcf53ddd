"""What `shout` does. Only workers import this module."""

from __future__ import annotations

import polars as pl

from luthier import Context


def without_shouts(frame: pl.DataFrame, ctx: Context, max_capitals: float) -> pl.DataFrame:
    """The documents whose share of capitals is at most `max_capitals`; those without letters stay.

    The metric `shouts` counts the others.
    """
    text = pl.col("text")
    capitals, letters = text.str.count_matches(r"\p{Lu}"), text.str.count_matches(r"\p{L}")
    kept = frame.filter(capitals <= max_capitals * letters)
    ctx.metric("shouts", frame.height - kept.height)
    return kept
