"""Documents from JSON Lines: bytes in, frames out, bad lines set aside."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

import polars as pl

from luthier import Context, InputError
from luthier.jsonlines import BadLineError, Line, check_characters, parse_object, read_lines, text_of
from luthier_text._files import JSONL

Scalar = str | int | float | bool | None

FRAME_ROWS = 2048
FRAME_CHARACTERS = 16 * 2**20
INT64 = 2**63


@dataclass(frozen=True)
class Columns:
    """Which key of the objects is the text, and which are the id, the source and the group."""

    text: str
    identifier: str | None = None
    origin: str | None = None
    siblings: str | None = None

    @property
    def roles(self) -> dict[str, str]:
        """The columns that have a key of their own, and that key; one key may be several columns."""
        keys = {"id": self.identifier, "source": self.origin, "group": self.siblings}
        return {column: key for column, key in keys.items() if key is not None}

    def column_of(self, key: str) -> str:
        """The column that a further key becomes: its own name, unless the contract has a use for that."""
        return f"{key}_in_file" if key in ("id", "text", "source", "group") else key


def read_jsonl(path: Path, ctx: Context, columns: Columns, max_line: int) -> Iterator[pl.DataFrame]:
    """All documents of a file or a directory of files, in frames of one schema.

    Args:
        path: a file, or a directory.
        ctx: for progress and quarantine.
        columns: the roles of keys.
        max_line: the longest line that is read, in bytes.

    Raises:
        InputError: if there is no file, or no line is a document.
    """
    files = find_files(path)
    kinds: dict[str, type] = {}
    documents = 0
    for line in _lines_of(files, max_line):
        # The second pass reports bad lines; the first learns what the good ones have.
        try:
            row = parse_line(line, columns)
        except BadLineError:
            continue
        documents += 1
        _widen(kinds, row)
    if not documents:
        _set_aside_all(files, ctx, columns, max_line)
        raise InputError(
            f"{path} has no documents: no line is a JSON object with a text under {columns.text!r}",
            "Check the file, and name the key of the text with `text: KEY`; the quarantined lines say what is wrong.",
        )
    # A file that is named by itself may be renamed without its rows becoming others.
    origins = {file: file.relative_to(path).as_posix() if path.is_dir() else "jsonl" for file in files}
    yield from _frames(origins, ctx, columns, max_line, _schema(kinds, columns))


def find_files(path: Path) -> list[Path]:
    """The file itself, or the `.jsonl` and `.jsonl.gz` files of a directory, at any depth, sorted.

    Raises:
        InputError: if a directory has none.
    """
    if not path.is_dir():
        return [path]
    found = sorted(file for pattern in JSONL for file in path.glob(pattern) if file.is_file())
    if not found:
        raise InputError(f"{path} has no .jsonl or .jsonl.gz file", "Name a file, or a directory that has some.")
    return found


def _lines_of(files: list[Path], max_line: int) -> Iterator[Line]:
    for file in files:
        with _open(file) as stream:
            yield from read_lines(file, stream, max_line)


def _open(file: Path) -> IO[bytes]:
    return cast("IO[bytes]", gzip.open(file, "rb")) if file.name.endswith(".gz") else file.open("rb")


def parse_line(line: Line, columns: Columns) -> dict[str, Scalar]:
    """The columns of one document.

    Raises:
        BadLineError: if the line is none; the message is the reason.
    """
    record = parse_object(line)
    row: dict[str, Scalar] = {"text": text_of(record, columns.text)}
    for column, key in columns.roles.items():
        row[column] = _identity(record, key)
    for key, value in record.items():
        if key != columns.text and key not in columns.roles.values() and _is_scalar(value):
            row[columns.column_of(key)] = value
    for column, value in row.items():
        check_characters(column, value)
    return row


def _identity(record: dict[str, Any], key: str) -> str:
    value = record.get(key)
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise BadLineError(
            f"{key!r} is {'missing' if value is None else type(value).__name__}, not a string or an integer"
        )
    return str(value)


def _is_scalar(value: object) -> bool:
    return value is None or isinstance(value, str | int | float | bool)


def _widen(kinds: dict[str, type], row: dict[str, Scalar]) -> None:
    for column, value in row.items():
        kind = type(value)
        if isinstance(value, int) and not -INT64 <= value < INT64:
            kind = str
        known = kinds.get(column, type(None))
        if known in (type(None), kind):
            kinds[column] = kind
        elif kind is not type(None):
            kinds[column] = float if {known, kind} == {int, float} else str


def _schema(kinds: dict[str, type], columns: Columns) -> dict[str, pl.DataType]:
    types = {str: pl.String(), bool: pl.Boolean(), int: pl.Int64(), float: pl.Float64(), type(None): pl.String()}
    schema: dict[str, pl.DataType] = {"text": pl.String(), "source": pl.String()}
    schema |= {column: pl.String() for column in columns.roles}
    return schema | {column: types[kind] for column, kind in sorted(kinds.items()) if column not in schema}


def _frames(
    origins: dict[Path, str], ctx: Context, columns: Columns, max_line: int, schema: dict[str, pl.DataType]
) -> Iterator[pl.DataFrame]:
    rows: list[dict[str, Scalar]] = []
    size = done = 0
    for line in _lines_of(list(origins), max_line):
        try:
            row = parse_line(line, columns)
        except BadLineError as error:
            ctx.quarantine(line.content, str(error), where=line.where)
            continue
        row.setdefault("source", origins[line.file])
        rows.append(row)
        size += len(str(row["text"]))
        if len(rows) >= FRAME_ROWS or size >= FRAME_CHARACTERS:
            yield _frame(rows, schema)
            done += len(rows)
            ctx.progress(done)
            rows, size = [], 0
    if rows:
        yield _frame(rows, schema)
        ctx.progress(done + len(rows))


def _frame(rows: list[dict[str, Scalar]], schema: dict[str, pl.DataType]) -> pl.DataFrame:
    columns = {
        column: pl.Series(column, [_as(row.get(column), dtype) for row in rows], dtype=dtype)
        for column, dtype in schema.items()
    }
    return pl.DataFrame(columns)


def _as(value: Scalar, dtype: pl.DataType) -> Scalar:
    if value is None or dtype not in (pl.String, pl.Float64):
        return value
    if dtype == pl.Float64:
        return float(value)
    return value if isinstance(value, str) else json.dumps(value)


def _set_aside_all(files: list[Path], ctx: Context, columns: Columns, max_line: int) -> None:
    for line in _lines_of(files, max_line):
        try:
            parse_line(line, columns)
        except BadLineError as error:
            ctx.quarantine(line.content, str(error), where=line.where)
