"""Texts and the names of their classes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import polars as pl

from luthier import Context, Dataset, InputError
from luthier_text._columns import require_columns, text_of
from luthier_text._examples import with_split
from luthier_text.formatters import Split

SPLITS = ("train", "valid", "test")


def classification_examples(
    data: Dataset, ctx: Context, columns: tuple[str, str], classes: Sequence[str] | None, split: Split, *, least: int
) -> Iterator[pl.DataFrame]:
    """Frames of `id`, `group`, `split`, `text`, `label`; see `formatters.classification`.

    Args:
        data, ctx, split: as the component has them.
        columns: those of the text and of the label.
        classes: the names of all classes; those in the data if None.
        least: the number of rows that a class has at the least.

    Raises:
        InputError: if a column is not there, the classes are too few or too small, or a split comes out empty.
    """
    column, label = columns
    require_columns(data, [column], "classification: column", accept="scalar")
    require_columns(data, [label], "classification: label", accept="scalar")
    text, name = text_of(column), text_of(label).str.strip_chars()
    usable = (text.str.strip_chars() != "").fill_null(False) & (name != "").fill_null(False)
    found = data.scan().filter(usable).group_by(name.alias("label")).len().sort("label").collect()
    chosen = _chosen(ctx, dict(found.iter_rows()), classes, least)
    frames = []
    for frame in with_split(data, ctx, split, usable & name.is_in(chosen), "classification"):
        frames.append(frame.select("split", name.alias("label")))
        yield frame.select("id", "group", "split", text.alias("text"), name.alias("label"))
    _report(ctx, pl.concat(frames), chosen, required=classes is not None)


def _chosen(ctx: Context, sizes: dict[str, int], classes: Sequence[str] | None, least: int) -> list[str]:
    for name in classes or ():
        if sizes.get(name, 0) < least:
            raise InputError(
                f"classification: the class {name!r} has {sizes.get(name, 0)} rows, not {least}",
                f"The data has: {_listed(sizes)}.",
            )
    chosen = sorted(name for name in (classes or sizes) if sizes[name] >= least)
    dropped = sum(size for name, size in sizes.items() if name not in chosen)
    if dropped:
        ctx.log.info("%d rows of %d other or small classes were dropped", dropped, len(sizes) - len(chosen))
    if len(chosen) < 2:
        raise InputError(
            f"classification: {len(chosen)} classes of {least} rows or more, and two are needed",
            f"The data has: {_listed(sizes) or 'no label'}.",
        )
    return chosen


def _listed(sizes: dict[str, int]) -> str:
    largest = sorted(sizes, key=lambda name: (-sizes[name], name))
    return ", ".join(f"{name} ({sizes[name]})" for name in largest[:20]) + (", …" if len(largest) > 20 else "")


def _report(ctx: Context, rows: pl.DataFrame, chosen: Sequence[str], *, required: bool) -> None:
    counted = {(label, side): count for label, side, count in rows.group_by("label", "split").len().iter_rows()}
    table = {"label": list(chosen)} | {side: [counted.get((name, side), 0) for name in chosen] for side in SPLITS}
    ctx.table("classes", pl.DataFrame(table))
    for name in chosen:
        if not counted.get((name, "train")):
            message = f"classification: all rows of the class {name!r} are held out"
            if required:
                raise InputError(message, "Ask for another `salt`, or split `by` a column of more values.")
            ctx.log.warning("%s; another `salt` changes it", message)
