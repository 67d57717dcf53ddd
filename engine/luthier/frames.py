"""Frames in, shards out: how worker processes run data components and hold them to the contract.

Only workers import this module: it needs polars.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from luthier.artifacts import DATASET_FORMS, SPLITS
from luthier.components import Component, describe
from luthier.context import Context
from luthier.errors import InputError, PluginError

SHARD_ROWS = 4096
SHARD_BYTES = 64 * 2**20
SAMPLES = 5
SAMPLE_CHARACTERS = 600


@dataclass
class Counts:
    """What became of a component's rows: documents_in = kept + dropped + quarantined, for one that adds none.

    `changed` are those of the kept whose columns differ; `added` are rows with ids that were not there
    (a source's rows; a formatter that makes several examples of one document).
    """

    documents_in: int = 0
    kept: int = 0
    changed: int = 0
    dropped: int = 0
    quarantined: int = 0
    added: int = 0

    def __add__(self, other: Counts) -> Counts:
        mine, theirs = asdict(self), asdict(other)
        return Counts(**{name: mine[name] + theirs[name] for name in mine})


@dataclass
class Outcome:
    """What running components over rows gave, besides the rows."""

    counts: Counts = field(default_factory=Counts)
    samples: dict[str, list[dict[str, str]]] = field(default_factory=dict)


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
            if self._rows >= SHARD_ROWS or frame.height:
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


def check_form(frame: pl.DataFrame, form: str, origin: str) -> pl.DataFrame:
    """Hold a frame to its form: the columns are there, of their types, and never null where they identify.

    Raises:
        PluginError: naming the component and the column.
    """
    for column, dtype in DATASET_FORMS[form].items():
        if column not in frame.schema:
            raise PluginError(
                f"{origin} gave no column {column!r}; {form} data has {', '.join(DATASET_FORMS[form])}",
                f"It gave: {', '.join(frame.columns)}.",
            )
        actual = frame.schema[column]
        if actual == pl.Null:
            frame = frame.with_columns(pl.col(column).cast(pl.String))
        elif actual.base_type().__name__ != dtype:
            raise PluginError(f"{origin} gave the column {column!r} as {actual}, not as {dtype}")
        if column != "label" and frame[column].null_count():
            raise PluginError(
                f"{origin} gave {frame[column].null_count()} rows without {column!r}", "Drop them or fill them."
            )
    if "split" in DATASET_FORMS[form]:
        strange = frame.filter(~pl.col("split").is_in(SPLITS))["split"].unique().to_list()
        if strange:
            raise PluginError(f"{origin} gave splits {strange}; they are {', '.join(SPLITS)}")
    return frame


class SourceRows:
    """Completes the rows of a source: ids from source and content, made unique; groups."""

    def __init__(self, name: str, origin: str) -> None:
        self._name = name
        self._origin = origin
        self._seen: Counter[str] = Counter()
        self._given: set[str] = set()

    def complete(self, frame: pl.DataFrame) -> pl.DataFrame:
        """A frame with `id`, `text`, `source`, `group` first, then the source's further columns."""
        if "text" not in frame.columns:
            raise PluginError(f"{self._origin} gave no column 'text'", f"It gave: {', '.join(frame.columns)}.")
        if "source" not in frame.columns:
            frame = frame.with_columns(pl.lit(self._name).alias("source"))
        if "id" in frame.columns:
            frame = frame.with_columns(pl.col("id").cast(pl.String))
            self._check_given(frame["id"].to_list())
        else:
            ids = [self._make_id(source, text) for source, text in zip(frame["source"], frame["text"], strict=True)]
            frame = frame.with_columns(pl.Series("id", ids, dtype=pl.String))
        if "group" not in frame.columns:
            frame = frame.with_columns(pl.col("id").alias("group"))
        first = list(DATASET_FORMS["documents"])
        return frame.select(*first, *(name for name in frame.columns if name not in first))

    def _make_id(self, source: str, text: str) -> str:
        digest = hashlib.sha256(f"{source}\0{text}".encode("utf-8", "surrogatepass")).hexdigest()[:24]
        self._seen[digest] += 1
        return digest if self._seen[digest] == 1 else f"{digest}-{self._seen[digest]}"

    def _check_given(self, ids: list[str]) -> None:
        for row_id in ids:
            if row_id in self._given:
                raise InputError(
                    f"{self._origin}: two rows have the id {row_id!r}", "Make the ids unique, or leave the column out."
                )
            self._given.add(row_id)


def as_frames(result: Any, component: Component) -> Iterator[pl.DataFrame]:
    """What a component returned, as frames."""
    if isinstance(result, pl.DataFrame):
        yield result
        return
    if not isinstance(result, Iterable):
        raise PluginError(
            f"{describe(component.function)} returned {type(result).__name__}",
            "It returns a polars.DataFrame or yields some.",
        )
    for frame in result:
        if not isinstance(frame, pl.DataFrame):
            raise PluginError(
                f"{describe(component.function)} yielded {type(frame).__name__}", "It yields polars.DataFrames."
            )
        yield frame


def compare(before: pl.DataFrame, after: pl.DataFrame, quarantined: frozenset[str], origin: str) -> Outcome:
    """Count what became of the rows, and take samples of what was dropped and changed.

    Raises:
        PluginError: where ids are missing or repeated.
    """
    if "id" not in after.columns:
        raise PluginError(f"{origin} lost the column 'id'", "Keep `id`: the engine counts and traces rows by it.")
    if after["id"].n_unique() != after.height:
        raise PluginError(
            f"{origin} gave rows of the same id", "An id is unique in a dataset; make new ones for new rows."
        )
    kept = after.join(before.select("id"), on="id", how="semi", maintain_order="left")
    gone = before.join(after.select("id"), on="id", how="anti", maintain_order="left")
    set_aside = gone.filter(pl.col("id").is_in(list(quarantined)))
    changed = _changed(before, kept)
    counts = Counts(
        documents_in=before.height,
        kept=kept.height,
        changed=changed.height,
        dropped=gone.height - set_aside.height,
        quarantined=set_aside.height,
        added=after.height - kept.height,
    )
    samples = {
        "dropped": [{"id": row["id"], "before": _clip(row)} for row in gone.head(SAMPLES).to_dicts()],
        "changed": [
            {"id": row["id"], "before": _clip(row), "after": _clip({"text": row["text_after"]})}
            for row in changed.head(SAMPLES).to_dicts()
        ],
    }
    return Outcome(counts, samples)


def _changed(before: pl.DataFrame, kept: pl.DataFrame) -> pl.DataFrame:
    # What people mean by a changed document is its text; a formatter's new columns are its work.
    if "text" not in before.columns or "text" not in kept.columns:
        return pl.DataFrame(schema={"id": pl.String, "text": pl.String, "text_after": pl.String})
    pairs = before.select("id", "text").join(
        kept.select("id", pl.col("text").alias("text_after")), on="id", how="inner", maintain_order="left"
    )
    return pairs.filter(pl.col("text") != pl.col("text_after"))


def _clip(row: Mapping[str, Any]) -> str:
    text = row.get("text") or row.get("prompt") or json.dumps(row, default=str, ensure_ascii=False)
    return text if len(text) <= SAMPLE_CHARACTERS else text[: SAMPLE_CHARACTERS - 1] + "…"


def run_frame_component(
    component: Component, configuration: Mapping[str, Any], frame: pl.DataFrame, context: Context, form: str
) -> tuple[pl.DataFrame, Outcome]:
    """Run one frame component on one shard and hold it to the contract."""
    origin = describe(component.function)
    arguments: dict[str, Any] = {"frame": frame, "ctx": context}
    result = component.function(*(arguments[name] for name in component.inputs), **configuration)
    if not isinstance(result, pl.DataFrame):
        raise PluginError(f"{origin} returned {type(result).__name__}", "A frame component returns a polars.DataFrame.")
    result = check_form(result, form, origin)
    return result, compare(frame, result, context.quarantined, origin)
