"""JSON Lines, read so that a bad line never loses its neighbours: bytes in, records out, reasons for the rest.

Only workers import this module: `build_frame` needs polars.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import polars as pl

from luthier.errors import InputError

MAX_LINE = 256 << 20
MAX_DEPTH = 64
SHOWN_OF_AN_OVERLONG_LINE = 200
INT64 = 2**63
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class BadLineError(ValueError):
    """A line that is no record; the message says why."""


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


def read_lines(file: Path, stream: IO[bytes], max_line: int = MAX_LINE) -> Iterator[Line]:
    """The lines that are not blank, numbered from 1; of an overlong one only the beginning is kept.

    Args:
        file: where they are from, for messages.
        stream: its bytes; gzip's errors are understood.
        max_line: the longest line that is read, in bytes.

    Raises:
        InputError: if the stream is a damaged gzip file.
    """
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


def parse_object(line: Line) -> dict[str, Any]:
    """The JSON object that a line is.

    Raises:
        BadLineError: if it is none; the message is the reason.
    """
    if line.overlong:
        raise BadLineError("longer than the limit")
    try:
        record = json.loads(line.content.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise BadLineError(f"not UTF-8: byte {error.start} is 0x{line.content[error.start]:02x}") from None
    except json.JSONDecodeError as error:
        raise BadLineError(f"not JSON: {error.msg} at character {error.pos}") from None
    except RecursionError:
        raise BadLineError("nested too deeply") from None
    except ValueError as error:  # a number of more digits than Python converts
        raise BadLineError(f"not usable: {error}") from None
    if not isinstance(record, dict):
        raise BadLineError(f"not an object but {type(record).__name__}")
    return record


def text_of(record: dict[str, Any], key: str) -> str:
    """The text of a document.

    Raises:
        BadLineError: if it is missing, no string, or blank.
    """
    text = record.get(key)
    if not isinstance(text, str):
        raise BadLineError(
            f"{key!r} is {type(text).__name__}, not a string" if key in record else f"{key!r} is missing"
        )
    if not text.strip():
        raise BadLineError(f"{key!r} is empty")
    return text


def check_characters(column: str, value: object, depth: int = MAX_DEPTH) -> None:
    """Refuse what UTF-8 or C strings cannot hold, in a column's name and in its value, to its leaves.

    Raises:
        BadLineError: for a NUL character, a lone surrogate, or more than `depth` levels.
    """
    if not depth:
        raise BadLineError("nested too deeply")
    _check_string(column, column)
    if isinstance(value, str):
        _check_string(column, value)
    elif isinstance(value, list):
        for inner in value:
            check_characters(column, inner, depth - 1)
    elif isinstance(value, dict):
        for key, inner in value.items():
            check_characters(key, inner, depth - 1)


def _check_string(column: str, value: str) -> None:
    if "\0" in value:
        raise BadLineError(f"a NUL character in {column!r}")
    if not value.isascii():
        try:
            value.encode("utf-8")
        except UnicodeEncodeError as error:
            raise BadLineError(f"a lone surrogate at character {error.start} of {column!r}") from None


def build_frame(records: Sequence[dict[str, Any]]) -> pl.DataFrame:
    """All records as one frame: a column for each key of any, typed by all its values, in order of appearance.

    Lists and objects stay what they are. Where values of a column (or of a nested field) are of several
    types, it becomes text: strings as they are, the others as JSON.
    """
    names = dict.fromkeys(key for record in records for key in record)
    return pl.DataFrame({name: _series(name, [record.get(name) for record in records]) for name in names})


def _series(name: str, values: Sequence[Any]) -> pl.Series:
    # polars' own inference looks at the first values and drops what does not fit: late fields, fractions.
    dtype = _type_of(values)
    return pl.Series(name, [_as(value, dtype) for value in values], dtype=dtype)


def _type_of(values: Sequence[Any]) -> pl.DataType:
    present = [value for value in values if value is not None]
    kinds = set(map(type, present))
    fields = dict.fromkeys(key for value in present for key in value) if kinds == {dict} else {}
    if kinds == {list}:
        return pl.List(_type_of([inner for value in present for inner in value]))
    if fields:
        return pl.Struct({key: _type_of([value.get(key) for value in present]) for key in fields})
    if kinds == {bool}:
        return pl.Boolean()
    if kinds and kinds <= {int, float} and all(isinstance(v, float) or -INT64 <= v < INT64 for v in present):
        return pl.Int64() if kinds == {int} else pl.Float64()
    return pl.String()


def _as(value: Any, dtype: pl.DataType) -> Any:
    if value is None:
        return None
    if isinstance(dtype, pl.String):
        return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    if isinstance(dtype, pl.Float64):
        return float(value)
    if isinstance(dtype, pl.List):
        return [_as(inner, _instance(dtype.inner)) for inner in value]
    if isinstance(dtype, pl.Struct):
        return {field.name: _as(value.get(field.name), _instance(field.dtype)) for field in dtype.fields}
    return value


def _instance(dtype: Any) -> pl.DataType:
    # polars' types allow a class for an instance; ours are all instances.
    assert isinstance(dtype, pl.DataType)
    return dtype
