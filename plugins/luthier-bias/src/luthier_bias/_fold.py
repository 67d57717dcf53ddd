"""Fold text for comparison: case, accents, invisible characters, look-alikes, substitutions, drawn-out spelling.

Two forms of the same folding: `tokens` is exact and in Python, for the few documents that matter;
`folded` and `substituted` are polars expressions that fold more than `tokens` does, for the gate that finds
those documents.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

import polars as pl

# Letters of Cyrillic and Greek that look like Latin ones, in lower case (from Unicode's confusables).
LOOKALIKES = dict(zip("абвгеёзикмнорстухыіїјѕԁһαβγεηικνορτυχω", "abbreezukmhopctyxbiijsdhabyenikvoptuxw", strict=True))
SUBSTITUTES = {"0": "o", "1": "i", "3": "e", "4": "a", "5": "s", "7": "t", "@": "a", "$": "s"}
INVISIBLE = "\u00ad\u034f\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufeff"
MARK = "\u0300-\u036f"
SPELLED_OUT = 4
SEPARATOR = r"[ .*_-]{1,2}"

_TOKEN = re.compile(rf"(?:[^\W_]|[{INVISIBLE}{MARK}@$]|!(?=[^\W_]))+")
_DROPPED = re.compile(rf"[{INVISIBLE}{MARK}]")
_SEPARATOR = re.compile(SEPARATOR)
_LATIN = re.compile(r"[a-z]")


@dataclass(frozen=True)
class Token:
    """A word as it is compared, and where it stands in the text."""

    folded: str
    start: int
    end: int


def tokens(text: str) -> list[Token]:
    """The words of a text, folded; a word spelled out in single letters is one token."""
    words = []
    for match in _TOKEN.finditer(text):
        folded = fold_word(match.group())
        if folded:
            words.append(Token(folded, match.start(), match.end()))
    return _join_spelled_out(text, words)


def fold_word(word: str) -> str:
    """One word in lower case without accents and disguises; digits stay where they do not stand for letters."""
    decomposed = unicodedata.normalize("NFKD", word).lower()
    plain = "".join(LOOKALIKES.get(character, character) for character in _DROPPED.sub("", decomposed))
    letters = len(_LATIN.findall(plain))
    disguised = sum(character in SUBSTITUTES or character == "!" for character in plain)
    if disguised and letters > disguised:
        plain = "".join("i" if character == "!" else SUBSTITUTES.get(character, character) for character in plain)
    return plain


def _join_spelled_out(text: str, words: list[Token]) -> list[Token]:
    joined: list[Token] = []
    run: list[Token] = []
    for word in words:
        if run and not _continues(text, run, word):
            joined += _one(run)
            run = []
        run.append(word)
    return joined + _one(run)


def _continues(text: str, run: list[Token], word: Token) -> bool:
    # Letters with the same short separator throughout: `f u c k`, not the variables of a formula.
    gap = text[run[-1].end : word.start]
    first_gap = text[run[0].end : run[1].start] if len(run) > 1 else gap
    return gap == first_gap and _SEPARATOR.fullmatch(gap) is not None and all(map(_is_letter, (run[-1], word)))


def _is_letter(word: Token) -> bool:
    return len(word.folded) == 1 and word.folded.isalpha()


def _one(run: list[Token]) -> list[Token]:
    if len(run) < SPELLED_OUT:
        return run
    return [Token("".join(letter.folded for letter in run), run[0].start, run[-1].end)]


def folded(text: pl.Expr) -> pl.Expr:
    """The text without case, accents and disguises by look-alikes."""
    text = text.fill_null("").str.normalize("NFKD").str.to_lowercase()
    text = text.str.replace_all(rf"[{INVISIBLE}{MARK}]", "")
    return text.str.replace_many(list(LOOKALIKES), list(LOOKALIKES.values()))


def substituted(folded_text: pl.Expr) -> pl.Expr:
    """Folded text with every substitute made a letter, wherever it stands."""
    text = folded_text.str.replace_all(r"!([\pL\pN])", "i$1")
    return text.str.replace_many(list(SUBSTITUTES), list(SUBSTITUTES.values()))


def spelled_out(folded_text: pl.Expr) -> pl.Expr:
    """Whether single letters stand in a row, as when a word is spelled out."""
    run = rf"(?:^|[^\pL\pN@$])\pL(?:{SEPARATOR}\pL){{{SPELLED_OUT - 1},}}(?:[^\pL\pN@$]|$)"
    return folded_text.str.contains(run)
