"""Documents from JSON Lines: bytes in, frames out, bad lines set aside."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

import polars as pl

from luthier import Context, InputError

Scalar = str | int | float | bool | None

FRAME_ROWS = 2048
FRAME_CHARACTERS = 16 * 2**20
SHOWN_OF_AN_OVERLONG_LINE = 200
INT64 = 2**63
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Columns:
    """Which key of the objects is the text, and which are the id, the source and the group."""

    text: str
    identifier: str | None = None
    origin: str | None = None
    siblings: str | None = None

    @property
    def named(self) -> dict[str, str]:
        """The keys with a role, and the column that each becomes."""
        roles = ((self.identifier, "id"), (self.origin, "source"), (self.siblings, "group"))
        return {key: column for key, column in roles if key is not None}

    def column_of(self, key: str) -> str:
        """The column that a further key becomes: its own name, unless the contract has a use for that."""
        return f"{key}_in_file" if key in ("id", "text", "source", "group") else key


class BadLineError(ValueError):
    """A line that is no document; the message says why."""


@dataclass(frozen=True)
class Line:
    """One line of a file, without its end; an overlong one has only its beginning."""

    file: Path
    number: int
    content: bytes
    overlong: bool = False

    @property
    def where(self) -> str:
        """For messages: `corpus.jsonl:17`."""
        return f"{self.file.name}:{self.number}"


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
    found = sorted(p for p in path.rglob("*") if p.name.endswith((".jsonl", ".jsonl.gz")) and p.is_file())
    if not found:
        raise InputError(f"{path} has no .jsonl or .jsonl.gz file", "Name a file, or a directory that has some.")
    return found


def _lines_of(files: list[Path], max_line: int) -> Iterator[Line]:
    for file in files:
        with _open(file) as stream:
            yield from read_lines(file, stream, max_line)


def _open(file: Path) -> IO[bytes]:
    return cast("IO[bytes]", gzip.open(file, "rb")) if file.name.endswith(".gz") else file.open("rb")


def read_lines(file: Path, stream: IO[bytes], max_line: int) -> Iterator[Line]:
    """The lines that are not blank, numbered from 1; of an overlong one only the beginning is kept."""
    number = 0
    try:
        while content := stream.readline(max_line + 1):
            number += 1
            overlong = len(content) > max_line and not content.endswith(b"\n")
            if overlong:
                _skip_rest(stream)
                content = content[:SHOWN_OF_AN_OVERLONG_LINE]
            if number == 1:
                content = content.removeprefix(BYTE_ORDER_MARK)
            content = content.strip(b" \t\r\n")
            if content:
                yield Line(file, number, content, overlong)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise InputError(
            f"{file} is no intact gzip file: {error}, after line {number}", "Fetch or compress it again."
        ) from None


def _skip_rest(stream: IO[bytes]) -> None:
    while (more := stream.readline(1 << 20)) and not more.endswith(b"\n"):
        pass


def parse_line(line: Line, columns: Columns) -> dict[str, Scalar]:
    """The columns of one document.

    Raises:
        BadLineError: if the line is none; the message is the reason.
    """
    if line.overlong:
        raise BadLineError("longer than the limit")
    record = _parse_object(line.content)
    text = record.get(columns.text)
    if not isinstance(text, str):
        what = f"is {type(text).__name__}, not a string" if columns.text in record else "is missing"
        raise BadLineError(f"{columns.text!r} {what}")
    if not text.strip():
        raise BadLineError(f"{columns.text!r} is empty")
    row: dict[str, Scalar] = {"text": text}
    for key, column in columns.named.items():
        row[column] = _identity(record, key)
    for key, value in record.items():
        if key != columns.text and key not in columns.named and _is_scalar(value):
            row[columns.column_of(key)] = value
    for column, value in row.items():
        _check_characters(column, column)
        if isinstance(value, str):
            _check_characters(column, value)
    return row


def _parse_object(content: bytes) -> dict[str, Any]:
    try:
        record = json.loads(content.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise BadLineError(f"not UTF-8: byte {error.start} is 0x{content[error.start]:02x}") from None
    except json.JSONDecodeError as error:
        raise BadLineError(f"not JSON: {error.msg} at character {error.pos}") from None
    except RecursionError:
        raise BadLineError("nested too deeply") from None
    except ValueError as error:  # a number of more digits than Python converts
        raise BadLineError(f"not usable: {error}") from None
    if not isinstance(record, dict):
        raise BadLineError(f"not an object but {type(record).__name__}")
    return record


def _identity(record: dict[str, Any], key: str) -> str:
    value = record.get(key)
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise BadLineError(
            f"{key!r} is {'missing' if value is None else type(value).__name__}, not a string or an integer"
        )
    return str(value)


def _is_scalar(value: object) -> bool:
    return value is None or isinstance(value, str | int | float | bool)


def _check_characters(column: str, value: str) -> None:
    if "\0" in value:
        raise BadLineError(f"a NUL character in {column!r}")
    if not value.isascii():
        try:
            value.encode("utf-8")
        except UnicodeEncodeError as error:
            raise BadLineError(f"a lone surrogate at character {error.start} of {column!r}") from None


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
    schema |= {column: pl.String() for column in columns.named.values()}
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
