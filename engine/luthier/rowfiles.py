"""A user's own files of rows, read as documents and written: what `plugins run` takes and gives.

Only workers import this module: it needs polars.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import polars as pl

from luthier.artifacts import ROW_FILES
from luthier.context import Context
from luthier.errors import InputError
from luthier.jsonlines import BadLineError, build_frame, check_characters, parse_object, read_lines, text_of


def read_documents(path: Path, context: Context) -> pl.DataFrame:
    """The rows of a file, all with a `text`; those that cannot be used are set aside, never their neighbours.

    Args:
        path: a `.jsonl`, `.parquet` or `.csv` file.
        context: quarantines the lines and rows that cannot be used.

    Raises:
        InputError: if the file cannot be read, `text` is not of strings, no row has one, or only some have ids.
    """
    frame = READERS[path.suffix](path, context)
    if frame.is_empty():
        raise InputError(
            f"{path} has no rows that can be used{_first_reason(context)}", "A row is a document with a `text`."
        )
    return _identified(frame, path)


def write_rows(frame: pl.DataFrame, path: Path) -> None:
    """Write rows to a file, in the form that its suffix names.

    Raises:
        InputError: if it cannot be written, or the form cannot hold the columns.
    """
    try:
        WRITERS[path.suffix](frame, path)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise InputError(
            f"{path} cannot be written: {error}", "Name another file, or another of these forms."
        ) from error


def _read_jsonl(path: Path, context: Context) -> pl.DataFrame:
    records: list[dict[str, Any]] = []
    try:
        with path.open("rb") as stream:
            for line in read_lines(path, stream):
                try:
                    record = parse_object(line)
                    text_of(record, "text")
                    for key, value in record.items():
                        check_characters(key, value)
                except BadLineError as error:
                    context.quarantine(line.content, str(error), where=line.where)
                else:
                    records.append(record)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    return build_frame(records)


def _read_parquet(path: Path, context: Context) -> pl.DataFrame:
    return _with_text(pl.read_parquet, path, context)


def _read_csv(path: Path, context: Context) -> pl.DataFrame:
    return _with_text(lambda source: pl.read_csv(source, infer_schema_length=None), path, context)


def _with_text(read: Callable[[Path], pl.DataFrame], path: Path, context: Context) -> pl.DataFrame:
    """A table's rows that have a text; the others are set aside."""
    try:
        frame = read(path)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    if "text" not in frame.columns:
        raise InputError(f"{path} has no column 'text'", f"It has: {', '.join(frame.columns)}.")
    if frame.schema["text"] != pl.String:
        raise InputError(
            f"{path}: the column 'text' is {frame.schema['text']}, not of strings",
            "`text` is what components work on: rename the column that holds the documents.",
        )
    blank = frame["text"].str.strip_chars().fill_null("") == ""
    for index in blank.arg_true():
        row = frame.row(index, named=True)
        reason = "'text' is missing" if row["text"] is None else "'text' is empty"
        context.quarantine(json.dumps(row, default=str), reason, where=f"{path.name}, row {index + 1}")
    return frame.filter(~blank)


def _identified(frame: pl.DataFrame, path: Path) -> pl.DataFrame:
    """The columns that identify a row, as strings; either all rows have an id or none has."""
    for column in ("id", "source", "group"):
        if column in frame.columns:
            if frame.schema[column].is_nested():
                raise InputError(
                    f"{path}: the column {column!r} is {frame.schema[column]}, not of strings", "Give it another name."
                )
            frame = frame.with_columns(pl.col(column).cast(pl.String))
    if "id" in frame.columns and frame["id"].null_count():
        raise InputError(
            f"{path}: {frame['id'].null_count():,} rows have no 'id', and others do",
            "Give every row one, or leave the column out: ids are then made of the content.",
        )
    return frame


def _first_reason(context: Context) -> str:
    if not context.quarantine_file.exists():
        return ""
    with context.quarantine_file.open(encoding="utf-8") as file:
        first = json.loads(file.readline())
    return f"; the first: {first['where']}: {first['reason']}"


READERS: Mapping[str, Callable[[Path, Context], pl.DataFrame]] = dict(
    zip(ROW_FILES, (_read_jsonl, _read_parquet, _read_csv), strict=True)
)
WRITERS: Mapping[str, Callable[[pl.DataFrame, Path], Any]] = dict(
    zip(ROW_FILES, (pl.DataFrame.write_ndjson, pl.DataFrame.write_parquet, pl.DataFrame.write_csv), strict=True)
)
