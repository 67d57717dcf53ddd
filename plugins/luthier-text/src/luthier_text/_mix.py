"""Two datasets as one, in shares of text."""

from __future__ import annotations

import math
from collections.abc import Iterator

import polars as pl

from luthier import Context, Dataset, InputError

UNSPLIT = "documents"


def mixed(data: Dataset, other: Dataset, ctx: Context, share: float) -> Iterator[pl.DataFrame]:
    """The frames of `data`, then those rows of `other` that make up `share` of each split; see `cleaners.mix`.

    Raises:
        InputError: if no row of `other` can be added.
    """
    sizes = _sizes(data)
    offered = _sizes(other).join(sizes, on="id", how="anti")
    if "split" in sizes.columns:
        # What one side holds out must not be trained on by way of the other.
        sides = sizes.select("group", held="split").unique()
        held = pl.col("held").is_null() | (pl.col("held") == pl.col("split"))
        offered = offered.join(sides, on="group", how="left").filter(held)
    wanted = sizes.group_by(_split(sizes)).agg(wanted=pl.col("characters").sum() * share / (1 - share))
    drawn = pl.Series("draw", [ctx.rng(row).random() for row in offered["id"].to_list()], dtype=pl.Float64)
    before = pl.col("characters").cum_sum().over("side") - pl.col("characters")
    chosen = (
        offered.with_columns(drawn, _split(offered))
        .sort("draw", "id")
        .join(wanted, on="side", how="inner", maintain_order="left")
        .filter(before < pl.col("wanted"))
    )
    if share and chosen.is_empty():
        raise InputError(
            "mix: no row of the second dataset can be added: it is empty, or the first has all its rows",
            "Name a dataset of another source with `other`.",
        )
    _tell(ctx, sizes, chosen, share)
    yield from _frames(data, other, chosen.select("id"))


def _sizes(data: Dataset) -> pl.DataFrame:
    """`id`, `group`, `split` where there is one, and the characters of a row's texts."""
    rows = data.scan()
    schema = rows.collect_schema()
    if "messages" in schema:
        texts = [pl.col("messages").list.eval(pl.element().struct.field("content").str.len_chars()).list.sum()]
    else:
        named = ("text", "prompt", "completion", "chosen", "rejected")
        texts = [pl.col(name).cast(pl.String).str.len_chars() for name in named if name in schema]
    keys = [name for name in ("id", "group", "split") if name in schema]
    return rows.select(*keys, characters=pl.sum_horizontal(texts).cast(pl.Float64)).collect()


def _split(frame: pl.DataFrame) -> pl.Expr:
    return (pl.col("split") if "split" in frame.columns else pl.lit(UNSPLIT)).alias("side")


def _tell(ctx: Context, sizes: pl.DataFrame, chosen: pl.DataFrame, share: float) -> None:
    added, own = math.fsum(chosen["characters"]), math.fsum(sizes["characters"])
    reached = added / max(added + own, 1)
    ctx.metric("share", reached)
    ctx.log.info("%d rows were added: %.1f%% of the text", chosen.height, 100 * reached)
    if reached < 0.9 * share:
        ctx.log.warning("the second dataset has text for a share of %.2g only, not %.2g", reached, share)


def _frames(data: Dataset, other: Dataset, chosen: pl.DataFrame) -> Iterator[pl.DataFrame]:
    schema = _common(data.scan().collect_schema(), other.scan().collect_schema())
    for frame in data.frames():
        yield _as(schema, frame)
    for frame in other.frames():
        yield _as(schema, frame.join(chosen, on="id", how="semi", maintain_order="left"))


def _common(first: pl.Schema, second: pl.Schema) -> pl.Schema:
    """The columns of both; one that has no type on one side, or two, becomes that of the other, or text."""
    found = dict(first)
    for name, dtype in second.items():
        mine = found.get(name, pl.Null())
        if mine == pl.Null:
            found[name] = dtype
        elif dtype not in (mine, pl.Null):
            found[name] = pl.String()
    return pl.Schema(found)


def _as(schema: pl.Schema, frame: pl.DataFrame) -> pl.DataFrame:
    present = [pl.col(name) if name in frame.columns else pl.lit(None).alias(name) for name in schema]
    return frame.select(present).cast(schema)
