"""Documents from plain text files."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import polars as pl

from luthier import Context, InputError
from luthier_text._files import check_encoding, check_pattern

FRAME_CHARACTERS = 16 * 2**20
BLANK_LINES = re.compile(r"\n[^\S\n]*\n\s*")
BYTES_SHOWN = 200


def read_text_files(path: Path, ctx: Context, pattern: str, encoding: str, unit: str) -> Iterator[pl.DataFrame]:
    """The documents of the files that match, in the order of their paths; see `sources.text_files`.

    Raises:
        InputError: if the pattern leaves the directory, no file matches, none has text, or the encoding is unknown.
    """
    check_pattern(pattern)
    check_encoding(encoding)
    files = [path] if path.is_file() else _matching(path, pattern)
    if not files:
        raise InputError(f"{path} has no file that matches {pattern!r}", "Check the directory and the pattern.")
    rows: list[tuple[str, str, str]] = []
    size = documents = 0
    for done, file in enumerate(files, 1):
        # A file that is named by itself may be renamed without its rows becoming others.
        name = file.relative_to(path).as_posix() if path.is_dir() else "text-files"
        for text in _documents(file, name, ctx, encoding, unit):
            rows.append((text, name, name))
            size += len(text)
            documents += 1
        if size >= FRAME_CHARACTERS:
            yield _frame(rows)
            rows, size = [], 0
        ctx.progress(done, len(files))
    if not documents:
        raise InputError(
            f"{path} has no documents: its {len(files)} files are empty or not text", "Check the encoding."
        )
    if rows:
        yield _frame(rows)


def _matching(directory: Path, pattern: str) -> list[Path]:
    return sorted(file for file in directory.glob(pattern) if file.is_file())


def _documents(file: Path, name: str, ctx: Context, encoding: str, unit: str) -> list[str]:
    content = file.read_bytes()
    try:
        text = content.decode(encoding).removeprefix("\ufeff")
    except UnicodeError as error:
        ctx.quarantine(content[:BYTES_SHOWN], f"not {encoding}: {error}", where=name)
        return []
    if "\0" in text:
        ctx.quarantine(content[:BYTES_SHOWN], "a NUL character: not a text file", where=name)
        return []
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    pieces = BLANK_LINES.split(text) if unit == "paragraph" else [text]
    return [piece for piece in (piece.strip() for piece in pieces) if piece]


def _frame(rows: list[tuple[str, str, str]]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema={"text": pl.String, "source": pl.String, "group": pl.String}, orient="row")
