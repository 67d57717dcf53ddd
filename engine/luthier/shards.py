"""Frames to shards: files of rows whose boundaries and bytes depend on the rows alone.

Only workers import this module: it needs polars.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from luthier.errors import PluginError

SHARD_ROWS = 4096


SHARD_BYTES = 64 * 2**20


def write_shard(frame: pl.DataFrame, path: Path) -> None:
    """Write one shard: the same rows always give the same bytes."""
    frame.write_parquet(path, compression="zstd", compression_level=3, statistics=True, row_group_size=SHARD_ROWS)


def join_shards(shards: Sequence[Path], directory: Path, origin: str) -> None:
    """Copy the shards of one pass to where they belong, in order and of one schema.

    A column that is null throughout one shard has no type of its own there: it takes that of the others.

    Raises:
        PluginError: naming the component whose shards differ.
    """
    schemas = [pl.read_parquet_schema(shard) for shard in shards]
    whole = dict(schemas[0])
    for schema in schemas:
        whole |= {name: dtype for name, dtype in schema.items() if whole.get(name) == pl.Null}
    for index, (shard, schema) in enumerate(zip(shards, schemas, strict=True)):
        target = directory / f"shard-{index:05d}.parquet"
        named = list(schema) == list(whole)
        if not named or any(dtype not in (whole[name], pl.Null) for name, dtype in schema.items()):
            raise PluginError(
                f"{origin} gave shards of different columns: {_schema_text(schemas[0])}, then {_schema_text(schema)}",
                "A component sees one shard at a time: give the same columns, types and order for every one.",
            )
        if schema == whole:
            shutil.copyfile(shard, target)
        else:
            write_shard(pl.read_parquet(shard).cast(pl.Schema(whole)), target)


class ShardWriter:
    """Writes a stream of frames as shards whose boundaries depend on the rows alone."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._pending: list[pl.DataFrame] = []
        self._rows = 0
        self._bytes = 0
        self._schema: pl.Schema | None = None
        self.shards = 0
        self.total = 0

    def write(self, frame: pl.DataFrame, origin: str) -> None:
        """Add rows; full shards are written at once."""
        if self._schema is None:
            self._schema = frame.schema
        elif frame.schema != self._schema:
            raise PluginError(
                f"{origin} gave frames of different columns: "
                f"{_schema_text(self._schema)}, then {_schema_text(frame.schema)}",
                "Give every frame the same columns, types and order.",
            )
        self.total += frame.height
        for row in _pieces(frame, SHARD_ROWS):
            self._add(row)

    def _add(self, frame: pl.DataFrame) -> None:
        while frame.height:
            room = SHARD_ROWS - self._rows
            taken = _rows_within(frame.head(room), SHARD_BYTES - self._bytes, at_least=0 if self._rows else 1)
            if taken:
                part = frame.head(taken)
                self._pending.append(part)
                self._rows += part.height
                self._bytes += _text_bytes(part)
                frame = frame.slice(taken)
            # One row alone may be larger than a shard.
            if self._rows >= SHARD_ROWS or self._bytes > SHARD_BYTES or frame.height:
                self._flush()

    def _flush(self) -> None:
        if not self._pending:
            return
        frame = pl.concat(self._pending, rechunk=True)
        write_shard(frame, self._directory / f"shard-{self.shards:05d}.parquet")
        self.shards += 1
        self._pending, self._rows, self._bytes = [], 0, 0

    def close(self, empty: pl.Schema | None = None) -> None:
        """Write what is left; a dataset without rows has one empty shard, so that its columns are known."""
        self._flush()
        if not self.shards:
            write_shard(pl.DataFrame(schema=self._schema or empty), self._directory / "shard-00000.parquet")
            self.shards = 1


def _pieces(frame: pl.DataFrame, rows: int) -> Iterator[pl.DataFrame]:
    for start in range(0, frame.height, rows):
        yield frame.slice(start, rows)


def _text_sizes(frame: pl.DataFrame) -> pl.Series:
    strings = [name for name, dtype in frame.schema.items() if dtype == pl.String]
    return frame.select(pl.sum_horizontal(pl.col(strings).str.len_bytes()).alias("n"))["n"].fill_null(0)


def _text_bytes(frame: pl.DataFrame) -> int:
    return int(_text_sizes(frame).sum())


def _rows_within(frame: pl.DataFrame, limit: int, *, at_least: int) -> int:
    within = int((_text_sizes(frame).cum_sum() <= limit).sum())
    return max(within, min(at_least, frame.height))


def _schema_text(schema: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {dtype}" for name, dtype in schema.items())
