"""The cleaners whitespace and length."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from luthier_text import cleaners

BLANKS = st.text(st.sampled_from("ab .\n\r\t \u00a0\u2028\x0b\x85"), max_size=30)


def tidy(text: str, *, keep_indentation: bool = True) -> str:
    frame = cleaners.whitespace(pl.DataFrame({"text": [text]}), keep_indentation=keep_indentation)
    return str(frame["text"][0])


@pytest.mark.parametrize(
    ("text", "kept", "flat"),
    [
        ("  a \t b  \r\n\r\n\r\n\r\n  c\u00a0\u00a0d \n", "a b\n\n  c d", "a b\n\nc d"),
        ("\n \n x", "x", "x"),
        ("code:\n    if x:  # note\n        y", "code:\n    if x: # note\n        y", "code:\nif x: # note\ny"),
        (" \n\t ", "", ""),
    ],
)
def test_tidy(text: str, kept: str, flat: str) -> None:
    assert tidy(text) == kept
    assert tidy(text, keep_indentation=False) == flat


@given(BLANKS, st.booleans())
def test_tidy_is_idempotent_and_keeps_what_is_visible(text: str, keep: bool) -> None:
    once = tidy(text, keep_indentation=keep)
    assert tidy(once, keep_indentation=keep) == once
    assert "".join(once.split()) == "".join(text.split())
    assert once == once.strip()
    assert "\n\n\n" not in once


def test_columns_and_missing_values() -> None:
    frame = pl.DataFrame({"text": [" a ", None], "summary": [" s ", "t"]})
    assert cleaners.whitespace(frame, columns=["text", "summary"]).rows() == [("a", "s"), (None, "t")]


@pytest.mark.parametrize(
    ("bounds", "kept"),
    [
        ({}, ["1", "2", "3"]),
        ({"min_characters": 4}, ["2", "3"]),
        ({"max_characters": 3}, ["1"]),
        ({"min_words": 2, "max_words": 2}, ["3"]),
        ({"min_characters": 0}, ["1", "2", "3", "4"]),
    ],
)
def test_length(bounds: dict[str, Any], kept: list[str]) -> None:
    frame = pl.DataFrame({"id": ["1", "2", "3", "4"], "text": ["äöü", "word", "two  words", None]})
    assert cleaners.length(frame, **bounds)["id"].to_list() == kept
