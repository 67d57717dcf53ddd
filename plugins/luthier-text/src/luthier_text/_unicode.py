"""Repair text with ftfy, behind a test that lets clean documents skip it without changing the result.

The test is exact in one direction: a document that it passes as clean is one that ftfy returns unchanged.
`ftfy.fix_text` changes a segment only if (1) `ftfy.badness` finds mojibake in it, or (2) a fixer that is
switched on finds its characters, or (3) it is not in NFC; each has a pattern here that matches whenever
the fixer would act. A document that is clean but matches costs a call of ftfy and nothing else.
"""

from __future__ import annotations

import unicodedata
from functools import cache

import ftfy
import ftfy.badness
import polars as pl

from luthier_text._columns import require_columns, text_of

CONFIG = ftfy.TextFixerConfig(
    unescape_html=False,
    fix_latin_ligatures=False,
    fix_character_width=False,
    uncurl_quotes=False,
    fix_line_breaks=True,
    normalization="NFC",
    explain=False,
)
# Segments end at line ends or at ftfy's limit; `^` in its pattern means a segment's start, here a line's.
SEGMENT = CONFIG.max_decode_length
CONTROLS = r"[\x00-\x08\x0b\x0d-\x1f\x7f-\x{9f}\x{2028}\x{2029}\x{206a}-\x{206f}\x{feff}\x{fff9}-\x{fffc}]"
HANGUL_VOWELS_AND_FINALS = r"\x{1161}-\x{1175}\x{11a8}-\x{11c2}"
LAST_DECOMPOSITION = 0x2FA1E


def repair(frame: pl.DataFrame, columns: list[str], *, unescape_html: bool) -> pl.DataFrame:
    """The frame with its columns as `ftfy.fix_text` would give them with `CONFIG`.

    Raises:
        InputError: if a column of text is not there.
    """
    require_columns(frame, columns, "unicode: columns")
    frame = frame.with_columns(map(text_of, columns))
    config = CONFIG._replace(unescape_html="auto" if unescape_html else False)
    for column in columns:
        suspects = frame.select(suspicious(pl.col(column), html=unescape_html)).to_series().fill_null(value=False)
        rows = suspects.arg_true()
        if rows.len():
            fixed = [ftfy.fix_text(text, config) for text in frame[column].gather(rows)]
            repaired = frame[column].scatter(rows, pl.Series(fixed, dtype=pl.String))
            frame = frame.with_columns(repaired.alias(column))
    return frame


def suspicious(text: pl.Expr, *, html: bool) -> pl.Expr:
    """Whether ftfy could change the text; never false where it would."""
    found = text.str.contains(gate_pattern()) | (text.str.len_chars() > SEGMENT)
    return found | text.str.contains("&", literal=True) if html else found


@cache
def gate_pattern() -> str:
    """One Rust regular expression for mojibake, characters that fixers remove, and text not in NFC."""
    return f"(?m){to_rust(ftfy.badness.BADNESS_RE.pattern)}|{CONTROLS}|{_not_nfc()}"


def to_rust(verbose: str) -> str:
    r"""Translate a verbose Python pattern of ftfy to Rust, which reads blanks and `[` in classes otherwise.

    `\w` grows to take in all numbers, since Python counts `²` as part of a word.
    """
    translated: list[str] = []
    in_class = False
    position = 0
    while position < len(verbose):
        character = verbose[position]
        if character == "\\":
            pair = verbose[position : position + 2]
            translated.append(r"[\w\p{N}]" if pair == r"\w" and not in_class else pair)
            position += 2
            continue
        if in_class:
            in_class = character != "]"
            translated.append(f"\\x{{{ord(character):x}}}" if character in " [&~#" else character)
        elif character == "#":
            position = verbose.index("\n", position)
        elif not character.isspace():
            in_class = character == "["
            translated.append(character)
        position += 1
    return "".join(translated)


@cache
def _not_nfc() -> str:
    """A class of characters that text not in NFC has at least one of (Unicode annex 15, the quick check).

    Those are characters that NFC replaces, and those that may join with one before them: marks, Hangul
    vowels and finals, and every second part of a canonical decomposition.
    """
    changed: list[str] = []
    for code in range(0xA0, LAST_DECOMPOSITION):
        character = chr(code)
        decomposition = unicodedata.decomposition(character)
        if not decomposition or decomposition.startswith("<"):
            continue
        if unicodedata.normalize("NFC", character) != character:
            changed.append(character)
        parts = decomposition.split()
        changed += [chr(int(part, 16)) for part in parts[1:]]
    escaped = "".join(f"\\x{{{ord(character):x}}}" for character in sorted(set(changed)))
    return rf"[\p{{M}}{HANGUL_VOWELS_AND_FINALS}{escaped}]"
