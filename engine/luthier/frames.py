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
STAGES_THAT_KEEP_IDS = ("clean", "bias")
"""The core's stages whose frame components drop and change rows, but add none."""


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


_EMPTY_TYPES: Mapping[str, Any] = {"Boolean": pl.Boolean}
"""The type of a column without a single value, by the name that its form has for it; else it is text."""


def empty_schema(form: str) -> pl.Schema:
    """The columns of a dataset of a form that has no rows."""
    return pl.Schema({name: _EMPTY_TYPES.get(dtype, pl.String) for name, dtype in DATASET_FORMS[form].items()})


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
            frame = frame.with_columns(pl.col(column).cast(_EMPTY_TYPES.get(dtype, pl.String)))
        elif actual.base_type().__name__ != dtype:
            raise PluginError(f"{origin} gave the column {column!r} as {actual}, not as {dtype}")
        if (column, dtype) != ("label", "String") and frame[column].null_count():
            raise PluginError(
                f"{origin} gave {frame[column].null_count()} rows without {column!r}", "Drop them or fill them."
            )
    if "split" in DATASET_FORMS[form]:
        strange = frame.filter(~pl.col("split").is_in(SPLITS))["split"].unique().to_list()
        if strange:
            raise PluginError(f"{origin} gave splits {strange}; they are {', '.join(SPLITS)}")
    return frame


def check_rows(rows: pl.LazyFrame, form: str, origin: str) -> None:
    """Hold rows to what only shows when they are seen together: no id twice, no group in two splits.

    Args:
        rows: of a shard or of a whole dataset; only the columns that identify are read.
        form: of the dataset; forms without a split have groups that nothing divides yet.
        origin: the component, for messages.

    Raises:
        PluginError: naming the component, and an id or a group.
    """
    repeated = rows.group_by("id").len().filter(pl.col("len") > 1).collect(engine="streaming")
    if repeated.height:
        raise PluginError(
            f"{origin} gave rows of the same id: {repeated['id'].min()!r}{_and_others(repeated.height, 'ids')}",
            "An id is unique in a dataset, whatever the shard; make new ones for new rows.",
        )
    if "split" not in DATASET_FORMS[form]:
        return
    splits = rows.group_by("group").agg(pl.col("split").unique().sort())
    divided = splits.filter(pl.col("split").list.len() > 1).collect(engine="streaming").sort("group")
    if divided.height:
        group, sides = divided.row(0)
        raise PluginError(
            f"{origin} put the group {group!r} into {' and '.join(sides)}{_and_others(divided.height, 'groups')}",
            "Rows of one `group` are siblings: give all of them the same split, whatever the shard.",
        )


def _and_others(found: int, what: str) -> str:
    return f", and {found - 1:,} more {what}" if found > 1 else ""


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


def compare(before: pl.LazyFrame, after: pl.LazyFrame, quarantined: frozenset[str]) -> Outcome:
    """Count what became of the rows, and take samples of what was kept as it was, changed and dropped.

    A row is changed if it differs in any of the columns that both have; what only one side has is no change
    of a document: a formatter's new columns are its work. Memory: an id and a hash a row.

    Args:
        before: the rows that a component saw; their ids are unique.
        after: the rows that it gave; their ids are unique.
        quarantined: the ids that it set aside.
    """
    old, new = _digests(before, after)
    both = old.join(new, on="id", how="inner", maintain_order="left", suffix="_after")
    gone = old.join(new, on="id", how="anti", maintain_order="left")
    set_aside = gone.filter(pl.col("id").is_in(list(quarantined))).height
    differs = both["digest"] != both["digest_after"]
    counts = Counts(
        documents_in=old.height,
        kept=both.height,
        changed=int(differs.sum()),
        dropped=gone.height - set_aside,
        quarantined=set_aside,
        added=new.height - both.height,
    )
    ids = {"kept": both.filter(~differs)["id"], "changed": both.filter(differs)["id"], "dropped": gone["id"]}
    return Outcome(counts, _samples(before, after, {name: some.head(SAMPLES).to_list() for name, some in ids.items()}))


def _digests(before: pl.LazyFrame, after: pl.LazyFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """For each side the rows' `id`, and a 64-bit hash of all columns that both have, nested ones too."""
    mine, theirs = before.collect_schema(), after.collect_schema()
    shared = _shared(mine, theirs)

    def digest(rows: pl.LazyFrame, schema: pl.Schema, other: pl.Schema) -> pl.DataFrame:
        # The hash of null depends on the type, and a column that is null throughout has none of its own.
        typed = [pl.col(name).cast(other[name]) if schema[name] == pl.Null else pl.col(name) for name in shared]
        hashed = pl.struct(typed).hash() if typed else pl.lit(0, dtype=pl.UInt64)
        return rows.select("id", hashed.alias("digest")).collect(engine="streaming")

    return digest(before, mine, theirs), digest(after, theirs, mine)


def _shared(before: pl.Schema, after: pl.Schema) -> list[str]:
    return [name for name in before if name in after and name != "id"]


def _samples(
    before: pl.LazyFrame, after: pl.LazyFrame, ids: Mapping[str, Sequence[str]]
) -> dict[str, list[dict[str, str]]]:
    old = _rows_of(before, [row_id for some in ids.values() for row_id in some])
    new = _rows_of(after, ids["changed"])
    shared = _shared(before.collect_schema(), after.collect_schema())
    samples = {
        kind: [{"id": row_id, "before": _clip(_main_text(old[row_id]))} for row_id in ids[kind]]
        for kind in ("kept", "dropped")
    }
    samples["changed"] = [{"id": row_id, **_change(old[row_id], new[row_id], shared)} for row_id in ids["changed"]]
    return samples


def _rows_of(rows: pl.LazyFrame, ids: Sequence[str]) -> dict[str, dict[str, Any]]:
    found = rows.filter(pl.col("id").is_in(list(ids))).collect(engine="streaming") if ids else pl.DataFrame()
    return {row["id"]: row for row in found.to_dicts()}


def _change(before: Mapping[str, Any], after: Mapping[str, Any], shared: Sequence[str]) -> dict[str, str]:
    """A row before and after: its text where only that changed, else each column that did, by name."""
    names = [name for name in shared if before[name] != after[name]] or list(shared)
    if names == ["text"]:
        return {"before": _clip(before["text"]), "after": _clip(after["text"])}
    # Short ones first: a long sample loses its end.
    names.sort(key=lambda name: len(_plain(before[name])))
    shown = ("\n".join(f"{name}: {_plain(row[name])}" for name in names) for row in (before, after))
    return dict(zip(("before", "after"), map(_clip, shown), strict=True))


def _main_text(row: Mapping[str, Any]) -> str:
    return str(row.get("text") or row.get("prompt") or _plain(row))


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)


def _clip(text: str) -> str:
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
    check_rows(result.lazy(), form, origin)
    if component.stage.name in STAGES_THAT_KEEP_IDS:
        _check_kept_ids(frame, result, origin)
    return result, compare(frame.lazy(), result.lazy(), context.quarantined)


def _check_kept_ids(before: pl.DataFrame, after: pl.DataFrame, origin: str) -> None:
    added = after.select("id").join(before.select("id"), on="id", how="anti", maintain_order="left")["id"]
    if added.len():
        raise PluginError(
            f"{origin} gave rows of new ids: {added[0]!r}{_and_others(added.len(), 'ids')}",
            "A frame component keeps `id`: the engine counts and traces rows by it. Rows are added by formatters.",
        )
