"""Documents to training examples."""

from __future__ import annotations

import string
from collections.abc import Iterator
from dataclasses import dataclass

import polars as pl

from luthier import Context, Dataset, InputError
from luthier_text._split import assign, require_columns
from luthier_text.formatters import Split


@dataclass(frozen=True)
class Template:
    """A prompt template: literal texts, and the columns between them.

    Attributes:
        literals: one more than columns.
        columns: the names of the columns, in order; may repeat.
    """

    literals: tuple[str, ...]
    columns: tuple[str, ...]

    @classmethod
    def parse(cls, template: str) -> Template:
        """Read `{column}`, `{{` and `}}`.

        Raises:
            InputError: if a brace is left open, or a field has more than a column's name.
        """
        literals, columns, literal = [], [], ""
        try:
            for text, field, form, conversion in string.Formatter().parse(template):
                literal += text
                if field is None:
                    continue
                if not field or form or conversion or any(mark in field for mark in ".["):
                    raise ValueError(f"{{{field}}} is not the name of a column")
                literals.append(literal)
                columns.append(field)
                literal = ""
        except ValueError as error:
            raise InputError(
                f"prompt: {error} in {template!r}", "Write {column} for a column's value, {{ and }} for braces."
            ) from None
        return cls((*literals, literal), tuple(columns))

    def render(self, limit: int) -> pl.Expr:
        """The prompt; where it would be longer than `limit` characters, `{text}` is cut at the end of a word."""
        cuts = self.columns.count("text")
        # Signed, because a prompt may be too long without its text.
        other = pl.lit(sum(map(len, self.literals)), dtype=pl.Int64)
        for column in self.columns:
            other = other if column == "text" else other + _value(column).str.len_chars().cast(pl.Int64)
        room = pl.max_horizontal(pl.lit(limit) - other, 0) // max(cuts, 1)
        pieces: list[pl.Expr] = [pl.lit(self.literals[0])]
        for column, literal in zip(self.columns, self.literals[1:], strict=True):
            pieces += [_cut(_value(column), room) if column == "text" else _value(column), pl.lit(literal)]
        return pl.concat_str(pieces)


def _value(column: str) -> pl.Expr:
    return pl.col(column).cast(pl.String).fill_null("")


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
    template = Template.parse(prompt)
    require_columns(data, list(template.columns), "prompt")
    require_columns(data, [target], "target")
    completion = _value(target).str.strip_chars()
    for frame in _with_split(data, ctx, split, completion != ""):
        yield frame.select(
            "id", "group", "split", template.render(limit).alias("prompt"), completion.alias("completion")
        )


def language_modelling_examples(data: Dataset, ctx: Context, column: str, split: Split) -> Iterator[pl.DataFrame]:
    """Frames of `id`, `group`, `split`, `text`; see `formatters.language_modelling`.

    Raises:
        InputError: if the column is not there, or a split comes out empty.
    """
    require_columns(data, [column], "column")
    for frame in _with_split(data, ctx, split, _value(column).str.strip_chars() != ""):
        yield frame.select("id", "group", "split", _value(column).alias("text"))


def _with_split(data: Dataset, ctx: Context, split: Split, usable: pl.Expr) -> Iterator[pl.DataFrame]:
    sides = assign(data, split, ctx, usable)
    start = 0
    for shard in data.frames():
        frame = shard.filter(usable)
        part = sides.slice(start, frame.height)
        start += frame.height
        yield frame.with_columns(part["group"], part["split"])
