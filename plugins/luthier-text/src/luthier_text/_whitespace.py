"""Tidy white space, by polars expressions alone."""

from __future__ import annotations

import polars as pl

from luthier_text._columns import require_columns, text_of


def tidy(frame: pl.DataFrame, columns: list[str], *, keep_indentation: bool) -> pl.DataFrame:
    """Strip, collapse runs of blanks and of blank lines; idempotent.

    Raises:
        InputError: if a column of text is not there.
    """
    require_columns(frame, columns, "whitespace: columns")
    return frame.with_columns(_tidied(text_of(column), keep_indentation=keep_indentation) for column in columns)


def _tidied(text: pl.Expr, *, keep_indentation: bool) -> pl.Expr:
    text = text.str.replace_all(r"\r\n?|[\x{85}\x{2028}\x{2029}]", "\n")
    text = text.str.replace_all(r"[^\S\n]+\n", "\n")
    # Blanks after something visible are one space; at the start of a line they are indentation.
    text = text.str.replace_all(r"(\S)[^\S\n]+", "$1 ")
    if not keep_indentation:
        text = text.str.replace_all(r"(?m)^[^\S\n]+", "")
    text = text.str.replace_all(r"\n{3,}", "\n\n")
    return text.str.strip_chars_end().str.replace(r"^(?:[^\S\n]*\n)+", "").str.replace(r"^\s+", "")
