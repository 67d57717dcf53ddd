"""A split that is stable, by hash, and grouped: what belongs together never falls on both sides."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace

import polars as pl

from luthier import Context, Dataset, InputError
from luthier_text._columns import require_columns
from luthier_text._union import linked
from luthier_text.formatters import Split

LUMPY = 2.0


def assign(data: Dataset, split: Split, ctx: Context, formatter: str, rows: pl.Expr | None = None) -> pl.DataFrame:
    """The group and the split of each row, as a frame of `id`, `group`, `split` in the order of the data.

    Args:
        data: the documents, with `id`, `group` and the column `split.by`.
        split: shares and column.
        ctx: for a warning where the shares came out lumpy.
        formatter: the name of the component, for errors.
        rows: which rows count; all by default.

    Raises:
        InputError: if a column is not there, no row counts, or a split is empty.
    """
    require_columns(data, [split.by], f"{formatter}: split.by", accept="scalar")
    held_out = _held_out(data, split, formatter)
    scanned = data.scan() if rows is None else data.scan().filter(rows)
    frame = scanned.select("id", pl.col("group"), pl.col(split.by).cast(pl.String).alias("by"), held_out).collect()
    if frame.is_empty():
        raise _nothing_to_split(data, formatter)
    by = frame["by"].fill_null(frame["group"]).to_list()
    components = linked(by, frame["group"].to_list())
    sides = _sides(components, frame["held_out"].to_list(), split)
    assigned = frame.select(
        "id",
        pl.Series("group", components, dtype=pl.String),
        pl.Series("split", [sides[name] for name in components], dtype=pl.String),
    )
    _check_shares(assigned, split, ctx)
    return assigned


def _held_out(data: Dataset, split: Split, formatter: str) -> pl.Expr:
    """Whether a row is held out, as the column `held_out`: null where nobody said so."""
    if split.held_out is None:
        return pl.lit(None, pl.Boolean).alias("held_out")
    require_columns(data, [split.held_out], f"{formatter}: split.held_out", accept="scalar")
    dtype = data.scan().collect_schema()[split.held_out]
    if dtype not in (pl.Boolean, pl.Null):
        raise InputError(
            f"{formatter}: split.held_out: the column {split.held_out!r} is {dtype}, not true and false",
            "Name a column that says of each row whether it is held out.",
        )
    return pl.col(split.held_out).cast(pl.Boolean).alias("held_out")


def _sides(components: Sequence[str], held_out: Sequence[bool | None], split: Split) -> dict[str, str]:
    """The side of each component: `test` if any of its rows is held out, and never if one says that it is not."""
    said: dict[str, bool] = {}
    for name, held in zip(components, held_out, strict=True):
        if held is not None:
            said[name] = said.get(name, False) or held
    rest = replace(split, test=0.0)
    return {
        name: side_of(name, split) if name not in said else "test" if said[name] else side_of(name, rest)
        for name in set(components)
    }


def side_of(group: str, split: Split) -> str:
    """The side of a group: where the SHA-256 of salt and name, as a number in [0, 1), falls."""
    digest = hashlib.sha256(f"{split.salt}\0{group}".encode("utf-8", "surrogatepass")).digest()
    place = int.from_bytes(digest[:8], "big") / 2**64
    if place < split.test:
        return "test"
    return "valid" if place < split.test + split.valid else "train"


def _nothing_to_split(data: Dataset, formatter: str) -> InputError:
    rows = data.scan().select(pl.len()).collect().item()
    if not rows:
        return InputError("there are no rows", "Look at what the steps before it dropped.")
    return InputError(
        f"none of the {rows} rows makes an example: in each, something that it needs is missing, empty or "
        "not of its form",
        f"Look at the columns that its parameters name; `luthier plugins show format:{formatter}` says what it needs.",
    )


def _check_shares(assigned: pl.DataFrame, split: Split, ctx: Context) -> None:
    counts = dict(assigned.group_by("split").len().iter_rows())
    groups = assigned["group"].n_unique()
    wanted = {"train": 1 - split.valid - split.test, "valid": split.valid, "test": split.test}
    if split.held_out is not None:
        if not counts.get("test"):
            raise InputError(
                f"the split 'test' is empty: the column {split.held_out!r} holds nothing out",
                "Have its source hold out a larger share.",
            )
        # How large it is was decided where the column comes from.
        wanted["test"] = 0.0
    for side, share in wanted.items():
        if share and not counts.get(side):
            finer = "" if split.by == "group" else ", or split `by` a column of more values"
            raise InputError(
                f"the split {side!r} is empty: {assigned.height} rows in {groups} groups by {split.by!r}",
                f"Ask for a larger share than {share:g}, or for another `salt`{finer}.",
            )
        actual = counts.get(side, 0) / max(assigned.height, 1)
        if share and not share / LUMPY <= actual <= share * LUMPY:
            ctx.log.warning(
                "split %r has %.1f%% of the rows, not %.1f%%: %d groups by %r are lumpy; another `salt` changes it",
                side,
                100 * actual,
                100 * share,
                groups,
                split.by,
            )
