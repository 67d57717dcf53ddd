"""The columns that a configuration names: checked against the data before they are used."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import polars as pl
from polars.datatypes import DataTypeClass

from luthier import Dataset, InputError
from luthier.suggest import did_you_mean

Accepted = Literal["text", "texts", "scalar", "any"]


def require_columns(
    data: Dataset | pl.DataFrame, columns: Sequence[str], where: str, *, accept: Accepted = "text"
) -> None:
    """Check that the data has columns, and that they hold what can be worked on.

    Args:
        data: a dataset, or a frame.
        columns: the names.
        where: the component and the parameter that names them, for the message: `unicode: columns`.
        accept: `text`, `texts` (text, or lists and structures with text in them), `scalar` (whatever can be written
            as text) or `any`. A column without a single value has no type of its own and is all of these.

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
            kind = "a single value" if accept == "scalar" else "text"
            raise InputError(
                f"{where}: the column {column!r} is {schema[column]}, not {kind}", f"These are: {', '.join(suited)}."
            )


def _is(dtype: pl.DataType, accept: Accepted) -> bool:
    if accept == "any":
        return True
    if accept == "texts":
        return dtype == pl.Null or holds_text(dtype)
    return not dtype.is_nested() if accept == "scalar" else dtype in (pl.String, pl.Null)


def holds_text(dtype: pl.DataType | DataTypeClass) -> bool:
    """Whether values of the type are text, or lists and structures with text in them: `messages`."""
    if isinstance(dtype, pl.List | pl.Array):
        return holds_text(dtype.inner)
    if isinstance(dtype, pl.Struct):
        return any(holds_text(part.dtype) for part in dtype.fields)
    return dtype == pl.String


def text_of(column: str) -> pl.Expr:
    """The column as text: one that is null throughout a shard has no type there, and no operations of text."""
    return pl.col(column).cast(pl.String)
