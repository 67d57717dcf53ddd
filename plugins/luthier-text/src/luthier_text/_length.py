"""Keep documents whose length is within bounds."""

from __future__ import annotations

import polars as pl

from luthier_text._columns import require_columns, text_of

Bounds = tuple[int, int | None]


def within(frame: pl.DataFrame, column: str, characters: Bounds, words: Bounds) -> pl.DataFrame:
    """The rows whose column has so many characters and words; a missing value has none of either.

    Raises:
        InputError: if the column of text is not there.
    """
    require_columns(frame, [column], "length: column")
    text = text_of(column).fill_null("")
    return frame.filter(_inside(text.str.len_chars(), characters) & _inside(text.str.count_matches(r"\S+"), words))


def _inside(measure: pl.Expr, bounds: Bounds) -> pl.Expr:
    least, greatest = bounds
    inside = measure >= least
    return inside if greatest is None else inside & (measure <= greatest)
