"""Answers that people preferred, in pairs or each by itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import polars as pl

from luthier import Context, Dataset, InputError
from luthier_text._columns import require_columns, text_of
from luthier_text._examples import render, with_split
from luthier_text._template import Template, parse_prompt
from luthier_text.formatters import Split


def preference_examples(
    data: Dataset, ctx: Context, prompt: str, columns: tuple[str, str], split: Split, *, limit: int
) -> Iterator[pl.DataFrame]:
    """Frames of `id`, `group`, `split`, `prompt`, `chosen`, `rejected`; see `formatters.preference`.

    Args:
        data, ctx, prompt, split: as the component has them.
        columns: those of the preferred answer and of the other one.
        limit: the greatest length of a prompt, in characters.

    Raises:
        InputError: if a column is not there, or a split comes out empty.
    """
    template = _template(data, "preference", prompt, limit, dict(zip(("chosen", "rejected"), columns, strict=True)))
    chosen, rejected = (_answer(column) for column in columns)
    usable = (chosen != "") & (rejected != "") & (chosen != rejected)
    for frame in with_split(data, ctx, split, usable, "preference"):
        asked = render(template, limit)
        yield frame.select("id", "group", "split", prompt=asked, chosen=chosen, rejected=rejected)


def unpaired_examples(
    data: Dataset,
    ctx: Context,
    prompt: str,
    columns: tuple[str, str],
    split: Split,
    *,
    liked: Sequence[str] | None,
    limit: int,
) -> Iterator[pl.DataFrame]:
    """Frames of `id`, `group`, `split`, `prompt`, `completion`, `label`; see `formatters.unpaired_preference`.

    Args:
        data, ctx, prompt, split: as the component has them.
        columns: those of the answer and of the judgement.
        liked: the texts that mean that the answer was liked; None where the column is no text.
        limit: the greatest length of a prompt, in characters.

    Raises:
        InputError: if a column is not there, its judgements cannot be read, or a split comes out empty.
    """
    named = dict(zip(("completion", "label"), columns, strict=True))
    template = _template(data, "unpaired-preference", prompt, limit, named)
    completion, label = _answer(columns[0]), _judgement(data, columns[1], liked)
    usable = (completion != "") & label.is_not_null()
    for frame in with_split(data, ctx, split, usable, "unpaired-preference"):
        asked = render(template, limit)
        yield frame.select("id", "group", "split", prompt=asked, completion=completion, label=label)


def _template(data: Dataset, formatter: str, prompt: str, limit: int, columns: Mapping[str, str]) -> Template:
    """The template of prompts, once all that it and the parameters name is there."""
    template = parse_prompt(prompt, limit)
    require_columns(data, template.columns, f"{formatter}: prompt", accept="scalar")
    for name, column in columns.items():
        require_columns(data, [column], f"{formatter}: {name}", accept="scalar")
    return template


def _answer(column: str) -> pl.Expr:
    return text_of(column).fill_null("").str.strip_chars()


def _judgement(data: Dataset, column: str, liked: Sequence[str] | None) -> pl.Expr:
    """Whether an answer was liked; null where nobody said so.

    Raises:
        InputError: if the column's texts cannot be read without `liked`, or none of them is in it.
    """
    dtype = data.scan().collect_schema()[column]
    if liked is None:
        if dtype == pl.Boolean:
            return pl.col(column)
        if dtype.is_numeric():
            return pl.col(column).cast(pl.Float64).fill_nan(None) > 0
        if dtype == pl.Null:
            return pl.col(column).cast(pl.Boolean)
    text = text_of(column).str.strip_chars()
    told = pl.when(text == "").then(None).otherwise(text)
    values = data.scan().select(told.alias("value")).drop_nulls().unique().sort("value").collect()["value"].to_list()
    there_are = f"There are: {', '.join(map(repr, values[:10]))}{', …' if len(values) > 10 else ''}."
    if liked is None:
        raise InputError(
            f"unpaired-preference: label: the column {column!r} is {dtype}, neither true and false nor numbers",
            f"Say with `liked` which of its values mean that an answer was liked. {there_are}",
        )
    if values and not set(values) & set(liked):
        raise InputError(
            f"unpaired-preference: liked: none of {', '.join(map(repr, liked))} is in the column {column!r}", there_are
        )
    return told.is_in(list(liked))
