"""Documents to training examples."""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl

from luthier import Context, Dataset
from luthier_text._columns import require_columns, text_of
from luthier_text._split import assign
from luthier_text._template import Template, parse_prompt
from luthier_text.formatters import Split


def render(template: Template, limit: int, *, text: str = "text") -> pl.Expr:
    """The prompt; where it would be longer than `limit` characters, `{text}` is cut at the end of a word.

    Args:
        template: of the prompt.
        limit: the greatest length in characters.
        text: the column that `{text}` stands for.
    """
    cuts = template.columns.count("text")
    # Signed, because a prompt may be too long without its text.
    other = pl.lit(template.characters, dtype=pl.Int64)
    for column in template.columns:
        other = other if column == "text" else other + _value(column).str.len_chars().cast(pl.Int64)
    room = pl.max_horizontal(pl.lit(limit) - other, 0) // max(cuts, 1)
    pieces: list[pl.Expr] = [pl.lit(template.literals[0])]
    for column, literal in zip(template.columns, template.literals[1:], strict=True):
        pieces += [_cut(_value(text), room) if column == "text" else _value(column), pl.lit(literal)]
    return pl.concat_str(pieces)


def fill(template: Template) -> pl.Expr:
    """The template with the row's values, uncut."""
    pieces: list[pl.Expr] = [pl.lit(template.literals[0])]
    for column, literal in zip(template.columns, template.literals[1:], strict=True):
        pieces += [_value(column), pl.lit(literal)]
    return pl.concat_str(pieces)


def complete(template: Template) -> pl.Expr:
    """Whether the row has a value, other than blanks, for each column of the template."""
    return pl.all_horizontal([pl.lit(True), *(_value(column).str.strip_chars() != "" for column in template.columns)])


def _value(column: str) -> pl.Expr:
    return text_of(column).fill_null("")


def _cut(text: pl.Expr, room: pl.Expr) -> pl.Expr:
    # One character more shows whether a word ends at the limit; a single long word is cut inside.
    whole_words = text.str.slice(0, room + 1).str.replace(r"\s\S*$", "").str.strip_chars_end()
    shortened = pl.when(whole_words.str.len_chars() <= room).then(whole_words).otherwise(text.str.slice(0, room))
    return pl.when(text.str.len_chars() <= room).then(text).otherwise(shortened)


def summarization_examples(
    data: Dataset, ctx: Context, prompt: str, target: str, split: Split, *, limit: int
) -> Iterator[pl.DataFrame]:
    """Frames of `id`, `group`, `split`, `prompt`, `completion`; see `formatters.summarization`.

    Raises:
        InputError: if a column is not there, or a split comes out empty.
    """
    template = parse_prompt(prompt, limit)
    require_columns(data, template.columns, "summarization: prompt", accept="scalar")
    require_columns(data, [target], "summarization: target", accept="scalar")
    completion = _value(target).str.strip_chars()
    return _prompts(
        data, ctx, split, (render(template, limit), completion), completion != "", formatter="summarization"
    )


def translation_examples(
    data: Dataset, ctx: Context, prompt: str, columns: tuple[str, str], split: Split, *, limit: int
) -> Iterator[pl.DataFrame]:
    """Frames of `id`, `group`, `split`, `prompt`, `completion`; see `formatters.translation`.

    Args:
        data, ctx, prompt, split: as the component has them.
        columns: the one that `{text}` stands for, and the one that is the completion.
        limit: the greatest length of a prompt, in characters.

    Raises:
        InputError: if a column is not there, or a split comes out empty.
    """
    template = parse_prompt(prompt, limit)
    original, target = columns
    others = [column for column in template.columns if column != "text"]
    require_columns(data, [original], "translation: original", accept="scalar")
    require_columns(data, [target], "translation: target", accept="scalar")
    require_columns(data, others, "translation: prompt", accept="scalar")
    completion = _value(target).str.strip_chars()
    usable = (completion != "") & (_value(original).str.strip_chars() != "")
    prompts = render(template, limit, text=original)
    return _prompts(data, ctx, split, (prompts, completion), usable, formatter="translation")


def prompt_completion_examples(
    data: Dataset, ctx: Context, prompt: str, completion: str, split: Split, *, limit: int
) -> Iterator[pl.DataFrame]:
    """Frames of `id`, `group`, `split`, `prompt`, `completion`; see `formatters.prompt_completion`.

    Raises:
        InputError: if a column is not there, or a split comes out empty.
    """
    asked, answered = parse_prompt(prompt, limit), Template.parse(completion, "completion")
    require_columns(data, asked.columns, "prompt-completion: prompt", accept="scalar")
    require_columns(data, answered.columns, "prompt-completion: completion", accept="scalar")
    pair = (render(asked, limit), fill(answered).str.strip_chars())
    return _prompts(data, ctx, split, pair, complete(answered), formatter="prompt-completion")


def _prompts(
    data: Dataset, ctx: Context, split: Split, pair: tuple[pl.Expr, pl.Expr], usable: pl.Expr, *, formatter: str
) -> Iterator[pl.DataFrame]:
    prompt, completion = pair
    for frame in with_split(data, ctx, split, usable, formatter):
        yield frame.select("id", "group", "split", prompt.alias("prompt"), completion.alias("completion"))


def language_modelling_examples(data: Dataset, ctx: Context, column: str, split: Split) -> Iterator[pl.DataFrame]:
    """Frames of `id`, `group`, `split`, `text`; see `formatters.language_modelling`.

    Raises:
        InputError: if the column is not there, or a split comes out empty.
    """
    require_columns(data, [column], "language-modelling: column", accept="scalar")
    usable = _value(column).str.strip_chars() != ""
    for frame in with_split(data, ctx, split, usable, "language-modelling"):
        yield frame.select("id", "group", "split", _value(column).alias("text"))


def with_split(data: Dataset, ctx: Context, split: Split, usable: pl.Expr, formatter: str) -> Iterator[pl.DataFrame]:
    """The data's usable rows, shard by shard, with the `group` and `split` that the split gives them.

    Raises:
        InputError: if the column to split by is not there, or a split comes out empty.
    """
    sides = assign(data, split, ctx, formatter, usable)
    start = 0
    for shard in data.frames():
        frame = shard.filter(usable)
        part = sides.slice(start, frame.height)
        start += frame.height
        yield frame.with_columns(part["group"], part["split"])
