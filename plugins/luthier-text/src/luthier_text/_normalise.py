"""Classic normalisation: case, stop words, stems, lemmas."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache

import polars as pl

from luthier_text._columns import require_columns
from luthier_text._languages import lemmatizer, stemmer

WORD = re.compile(r"[^\W\d_]+(?:['\u2019][^\W\d_]+)*")

# The closed classes of English: articles, pronouns, prepositions, conjunctions, auxiliaries, particles.
ENGLISH = frozenset(
    """
    a an the this that these those
    i me my mine myself we us our ours ourselves you your yours yourself yourselves
    he him his himself she her hers herself it its itself they them their theirs themselves
    who whom whose which what
    of at by for with about against between into through during before after above below to from
    up down in out on off over under upon within without
    and but if or because as until while than so nor though although whereas whether
    am is are was were be been being have has had having do does did doing
    will would shall should can could may might must
    not no only own same too very just also then once here there when where why how
    all any both each few more most other some such again further
    """.split()  # noqa: SIM905 - a table of words reads better as text
)


def normalise_frame(
    frame: pl.DataFrame, columns: list[str], language: str, *, lowercase: bool, stop_words: str | list[str], words: str
) -> pl.DataFrame:
    """The frame with its columns normalised; see `cleaners.normalise`.

    Raises:
        InputError: if a column of text is not there, or the language has no stemmer, or no lemmas.
    """
    require_columns(frame, columns, "normalise: columns")
    removed = _stop_words(stop_words)
    reduce = {"keep": _as_it_is, "stem": stemmer, "lemmatize": lemmatizer}[words]
    word_of = cache(reduce(language))

    def replace(match: re.Match[str]) -> str:
        word = match.group()
        return "" if word.lower() in removed else word_of(word)

    def normalise(text: str | None) -> str | None:
        if text is None:
            return None
        changed = WORD.sub(replace, text.lower() if lowercase else text)
        return re.sub(r"[^\S\n]+", " ", changed).strip() if removed else changed

    return frame.with_columns(
        pl.Series(column, [normalise(text) for text in frame[column]], dtype=pl.String) for column in columns
    )


def _stop_words(choice: str | list[str]) -> frozenset[str]:
    if isinstance(choice, list):
        return frozenset(word.lower() for word in choice)
    return ENGLISH if choice == "english" else frozenset()


def _as_it_is(_language: str) -> Callable[[str], str]:
    return str
