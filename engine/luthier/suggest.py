"""The closest match to a misspelt name, for error messages."""

from __future__ import annotations

from collections.abc import Iterable


def closest(word: str, options: Iterable[str], cutoff: float = 0.6) -> str:
    """The option nearest to `word`; empty if none is near, by difflib's ratio of 0 to 1.

    A difference in capitals, or in hyphens and underscores, does not count.
    """
    import difflib

    plain = {_fold(option): option for option in options}
    matches = difflib.get_close_matches(_fold(word), plain, n=1, cutoff=cutoff)
    return plain[matches[0]] if matches else ""


def did_you_mean(word: str, options: Iterable[str]) -> str:
    """`did you mean 'rank'?`, or an empty text."""
    match = closest(word, options)
    return f"did you mean {match!r}?" if match else ""


def _fold(word: str) -> str:
    return word.lower().replace("_", "-")
