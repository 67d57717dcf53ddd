"""The columns that a configuration names: checked against the data before they are used."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import polars as pl

from luthier import Dataset, InputError
from luthier.suggest import did_you_mean

Accepted = Literal["text", "scalar", "any"]


def require_columns(
    data: Dataset | pl.DataFrame, columns: Sequence[str], where: str, *, accept: Accepted = "text"
) -> None:
    """Check that the data has columns, and that they hold what can be worked on.

    Args:
        data: a dataset, or a frame.
        columns: the names.
        where: the component and the parameter that names them, for the message: `unicode: columns`.
        accept: `text`, `scalar` (whatever can be written as text) or `any`. A column without a single value
            has no type of its own and is all of these.

    Raises:
        InputError: naming the first that is not there or is of another type, and those that would do.
    """
    schema = data.schema if isinstance(data, pl.DataFrame) else data.scan().collect_schema()
    for column in columns:
        if column not in schema:
            suggestion = did_you_mean(column, schema)
            raise InputError(
                f"{where}: the data has no column {column!r}" + (f"; {suggestion}" if suggestion else ""),
                f"It has: {', '.join(schema)}.",
            )
        if not _is(schema[column], accept):
            suited = [name for name, dtype in schema.items() if _is(dtype, accept)]
            kind = "text" if accept == "text" else "a single value"
            raise InputError(
                f"{where}: the column {column!r} is {schema[column]}, not {kind}", f"These are: {', '.join(suited)}."
            )


def _is(dtype: pl.DataType, accept: Accepted) -> bool:
    if accept == "any":
        return True
    return not dtype.is_nested() if accept == "scalar" else dtype in (pl.String, pl.Null)


def text_of(column: str) -> pl.Expr:
    """The column as text: one that is null throughout a shard has no type there, and no operations of text."""
    return pl.col(column).cast(pl.String)
