"""Rows as JSON Lines: out of one log and into another, without losing a good line to a bad one."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

from luthier.errors import InputError
from luthier.jsonlines import Line, read_lines
from luthier_feedback.errors import Conflict, FeedbackError, InvalidFeedback, TooLarge
from luthier_feedback.log import FeedbackLog
from luthier_feedback.rows import MAX_LINE, Kept, Row, read_kept

BATCH = 500
"""Lines that are kept at once."""


@dataclass(frozen=True)
class BadLine:
    """A line that is in no log.

    Attributes:
        where: the file's name and the line's number.
        reason: what is wrong with it.
        record: the line; of one that is too long the beginning.
    """

    where: str
    reason: str
    record: str

    def to_line(self) -> str:
        """One line of JSON."""
        return json.dumps({"where": self.where, "reason": self.reason, "record": self.record}) + "\n"


@dataclass
class Imported:
    """What became of the lines of a file: rows that are new, that were changed, that were there as they are."""

    added: int = 0
    changed: int = 0
    known: int = 0


def import_rows(log: FeedbackLog, file: Path) -> Iterator[BadLine | Imported]:
    """Keep the rows of a JSONL file (or `.jsonl.gz`): bad lines as they are met, then what became of the others.

    A line without an id gets one of its content, and of how many lines before it have the same: importing a file again
    adds nothing, and lines that are alike are as many rows.

    Raises:
        InputError: if the file cannot be read.
        LogUnavailable: if the log cannot be used; what was kept by then is kept, and a second import passes over it.
    """
    total = Imported()
    alike: Counter[str] = Counter()
    batch: list[tuple[Line, Kept]] = []
    try:
        with _opened(file) as stream:
            for line in read_lines(file, stream, MAX_LINE):
                try:
                    batch.append((line, _named(_parsed(line), line, alike)))
                except FeedbackError as error:
                    yield _bad(line, error)
                if len(batch) == BATCH:
                    yield from _keep(log, batch, total)
                    batch.clear()
    except OSError as error:
        raise InputError(f"cannot read {file}: {error.strerror or error}", "Name a JSONL file.") from error
    yield from _keep(log, batch, total)
    yield total


def export_rows(rows: Iterable[Row]) -> Iterator[str]:
    """A line for each row; importing them gives the same rows, without their places in the log and their history."""
    for row in rows:
        yield f"{row.to_line()}\n"


def _opened(file: Path) -> IO[bytes]:
    return cast("IO[bytes]", gzip.open(file, "rb")) if file.suffix == ".gz" else file.open("rb")


def _parsed(line: Line) -> Kept:
    if line.overlong:
        raise TooLarge(f"longer than {MAX_LINE:,} bytes", "Shorten it.")
    return read_kept(line.content)


def _named(kept: Kept, line: Line, alike: Counter[str]) -> Kept:
    if "id" in kept.model_fields_set:
        return kept
    content = hashlib.sha256(line.content).hexdigest()[:32]
    alike[content] += 1
    return kept.model_copy(update={"id": f"line-{content}-{alike[content]}"})


def _keep(log: FeedbackLog, batch: list[tuple[Line, Kept]], total: Imported) -> Iterator[BadLine]:
    outcomes = log.add_each(kept for _, kept in batch)
    for (line, _), outcome in zip(batch, outcomes, strict=True):
        if isinstance(outcome, Conflict):
            yield _bad(line, outcome)
        elif outcome.created:
            total.added += 1
        elif outcome.changed:
            total.changed += 1
        else:
            total.known += 1


def _bad(line: Line, error: FeedbackError) -> BadLine:
    assert isinstance(error, Conflict | InvalidFeedback | TooLarge)
    return BadLine(line.where, error.message, line.content.decode("utf-8", "backslashreplace"))


def write_whole(file: Path, lines: Iterable[str]) -> int:
    """Write a file that is there whole or not at all, for its owner's eyes; gives the number of lines.

    Raises:
        InputError: if it cannot be written.
    """
    unfinished = file.with_name(f".{file.name}.{uuid.uuid4().hex}")
    count = 0
    try:
        try:
            descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w", encoding="utf-8", newline="\n") as stream:
                for line in lines:
                    stream.write(line)
                    count += 1
            unfinished.replace(file)
        except BaseException:
            unfinished.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise InputError(f"cannot write {file}: {error.strerror}", "Name another file.") from error
    return count
