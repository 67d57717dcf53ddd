"""Frames in, frames out: how worker processes run data components and hold what they give to the contract.

Only workers import this module: it needs polars.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import polars as pl

from luthier.artifacts import DATASET_FORMS, SPLITS
from luthier.components import Component, describe
from luthier.context import Context
from luthier.errors import InputError, PluginError
from luthier.outcomes import Outcome, compare

STAGES_THAT_KEEP_IDS = ("clean", "bias")
"""The core's stages whose frame components drop and change rows, but add none."""


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
    redacts = component.declared.redacts
    return result, compare(frame.lazy(), result.lazy(), context.quarantined, redacts=redacts)


def _check_kept_ids(before: pl.DataFrame, after: pl.DataFrame, origin: str) -> None:
    added = after.select("id").join(before.select("id"), on="id", how="anti", maintain_order="left")["id"]
    if added.len():
        raise PluginError(
            f"{origin} gave rows of new ids: {added[0]!r}{_and_others(added.len(), 'ids')}",
            "A frame component keeps `id`: the engine counts and traces rows by it. Rows are added by formatters.",
        )
