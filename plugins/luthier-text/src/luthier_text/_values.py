"""Documents of certain values."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from luthier_text._columns import require_columns


def having(frame: pl.DataFrame, column: str, values: Sequence[str]) -> pl.DataFrame:
    """The rows whose column has one of the values; see `cleaners.values`.

    Raises:
        InputError: if the column is not there, or holds lists.
    """
    require_columns(frame, [column], "values: column", accept="scalar")
    return frame.filter(pl.col(column).cast(pl.String).is_in(list(values)))
