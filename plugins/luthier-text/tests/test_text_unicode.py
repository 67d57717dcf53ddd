# ruff: noqa: RUF001 - ambiguous letters are the matter here
"""The unicode cleaner equals ftfy on every document, although clean ones never reach it."""

from __future__ import annotations

import unicodedata
from typing import Any

import ftfy
import ftfy.badness
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from luthier import Context
from luthier_text import cleaners, sources
from luthier_text._unicode import CONFIG, gate_pattern, suspicious

WITH_HTML = CONFIG._replace(unescape_html="auto")


def suspects(texts: list[str], *, html: bool = False) -> list[bool]:
    return pl.DataFrame({"text": texts}).select(suspicious(pl.col("text"), html=html)).to_series().to_list()


@pytest.mark.parametrize(
    ("text", "repaired"),
    [
        ("cafÃ© â€œquotedâ€\x9d", "café “quoted”"),
        ("a\u0301 composed", "á composed"),
        ("line\r\nline\u2028line\u2029", "line\nline\nline\n"),
        ("\x1b[31mred\x1b[0m \ufeffbom \x07bell", "red bom bell"),
        ("“curly”, ﬁ and Ｗ stay, &amp; too", "“curly”, ﬁ and Ｗ stay, &amp; too"),
        ("\u1100\u1161", "가"),
        ("\u212b", "Å"),
    ],
)
def test_repairs(text: str, repaired: str) -> None:
    frame = cleaners.unicode(pl.DataFrame({"id": ["1"], "text": [text]}))
    assert frame["text"].to_list() == [repaired]


def test_html_on_demand_and_columns() -> None:
    frame = pl.DataFrame({"text": ["a &amp; b", "<b> &amp;"], "summary": ["cafÃ©", None]})
    assert cleaners.unicode(frame, unescape_html=True)["text"].to_list() == ["a & b", "<b> &amp;"]
    assert cleaners.unicode(frame, columns=["summary"])["summary"].to_list() == ["café", None]
    assert cleaners.unicode(frame)["text"].to_list() == frame["text"].to_list()


# Letters that mojibake is made of, beside anything at all; and mojibake itself.
PIECES = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=6),
    st.text(st.sampled_from("aA ÃÂâ€œ™©®°»«ŒœÐÑØÙàá²³¹½√∂±‚ÄвЂβ€ā×\n\xa0\x80\x9d\u0301&;<"), max_size=8),
    st.sampled_from(["é", "“quote”", "naïve", "Привет", "日本", "–", "…", "Ω"]).map(
        lambda t: t.encode().decode("cp1252", "replace")
    ),
    st.sampled_from(["é", "ü", "Привет", "日本"]).map(lambda text: text.encode().decode("latin-1")),
    st.sampled_from(["&amp;", "&lt;b&gt;", "<p>", "\r\n", "\u1100\u1161\u11a8", "\x1b[1m"]),
)


@given(st.lists(PIECES, max_size=6).map("".join), st.booleans())
@settings(max_examples=600, deadline=None)
def test_equals_ftfy(text: str, html: bool) -> None:
    expected = ftfy.fix_text(text, WITH_HTML if html else CONFIG)
    frame = cleaners.unicode(pl.DataFrame({"text": [text]}), unescape_html=html)
    assert frame["text"].to_list() == [expected]


def test_gate_finds_every_single_character_that_changes() -> None:
    # Everything up to the ideographs, the compatibility blocks, and what decomposes beyond the first plane.
    ranges = (
        range(0x3400),
        range(0xA000, 0xAC00),
        range(0xF900, 0x12000),
        range(0x1D000, 0x1D300),
        range(0x2F800, 0x2FA20),
    )
    characters = [chr(code) for codes in ranges for code in codes]
    changed = [c for c in characters if ftfy.fix_text(c, CONFIG) != c]
    assert len(changed) > 1000
    assert all(suspects(changed))


def test_gate_finds_every_pair_that_composes() -> None:
    pairs = [
        "".join(chr(int(part, 16)) for part in unicodedata.decomposition(chr(code)).split())
        for code in range(0x30000)
        if unicodedata.decomposition(chr(code)) and not unicodedata.decomposition(chr(code)).startswith("<")
    ]
    changed = [pair for pair in pairs if unicodedata.normalize("NFC", pair) != pair]
    assert len(changed) > 900
    assert all(suspects(changed))


def test_a_segment_longer_than_ftfys_is_left_to_ftfy() -> None:
    # Beyond the first million characters a segment may begin anywhere, and with it the anchored pattern.
    assert suspects(["x" * (CONFIG.max_decode_length + 1), "x" * CONFIG.max_decode_length]) == [True, False]


def test_equals_ftfy_on_installed_docstrings_and_most_skip_it(ctx: Context) -> None:
    frame = pl.concat(
        list(sources.docstrings(ctx, packages=["numpy", "nltk", "wcwidth", "ftfy", "rich"], per_package=200))
    )
    texts = frame["text"].to_list()
    assert cleaners.unicode(frame)["text"].to_list() == [ftfy.fix_text(text, CONFIG) for text in texts]
    assert sum(suspects(texts)) < 0.05 * len(texts)


def test_gate_compiles_once(monkeypatch: pytest.MonkeyPatch) -> None:
    first = gate_pattern()
    monkeypatch.setattr(ftfy.badness, "BADNESS_RE", None)
    assert gate_pattern() is first


def test_rows_and_columns_are_kept() -> None:
    frame = pl.DataFrame({"id": ["1", "2"], "text": ["clean", "cafÃ©"], "n": [1, 2]})
    repaired: Any = cleaners.unicode(frame)
    assert repaired.drop("text").equals(frame.drop("text"))
    assert repaired.columns == frame.columns
