"""Lexicons: read from a file, compiled to one pattern for the gate and one for each rule.

A rule's pattern is safetype's small language: words divided by blanks; `(a|b)` for alternatives, `*` at the
end of an alternative for any ending, `?` at the end of a word for one that may be left out.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from pathlib import Path
from typing import Any

from luthier import InputError
from luthier_bias._fold import fold_word
from luthier_bias._groups import NEUTRAL

SEVERITIES = ("low", "medium", "high", "critical")
FORMS = "a .json with `rules` or a list, or a .csv, of pattern or term, category, severity"
ANY_ENDING = r"[^ \n]*"


@dataclass(frozen=True)
class Rule:
    """One entry of a lexicon.

    Attributes:
        pattern: as the lexicon has it.
        category: what kind of toxicity.
        severity: one of `SEVERITIES`.
        exact: finds it in folded words joined by single blanks.
        gate: finds at least the same in folded text, as a Rust pattern without case.
    """

    pattern: str
    category: str
    severity: str
    exact: re.Pattern[str]
    gate: str


@dataclass(frozen=True)
class Lexicon:
    """The rules, and the words that they must not take for theirs."""

    rules: tuple[Rule, ...]
    allowed: frozenset[str]

    @property
    def categories(self) -> list[str]:
        """The categories, sorted."""
        return sorted({rule.category for rule in self.rules})


@lru_cache(maxsize=4)
def read_lexicon(path: Path) -> Lexicon:
    """Read and compile a lexicon; words that only name a group of people are left out.

    Raises:
        InputError: if the file is not in one of the forms, or an entry is wrong.
    """
    entries, allowed = _read(path)
    rules = []
    for number, entry in enumerate(entries, 1):
        try:
            pattern = str(entry.get("pattern") or entry["term"])
            category, severity = str(entry["category"]), str(entry["severity"]).lower()
            if severity not in SEVERITIES:
                raise ValueError(f"severity {severity!r} is none of {', '.join(SEVERITIES)}")
            if fold_word(pattern.strip()) not in NEUTRAL:
                rules.append(Rule(pattern, category, severity, re.compile(_exact(pattern)), _gate(pattern)))
        except (KeyError, ValueError, AttributeError) as error:
            raise InputError(f"{path}: entry {number} is wrong: {error}", f"A lexicon is {FORMS}.") from None
    if not rules:
        raise InputError(f"{path} has no entries", f"A lexicon is {FORMS}.")
    return Lexicon(tuple(rules), frozenset(map(fold_word, allowed)))


def _read(path: Path) -> tuple[Iterable[Mapping[str, Any]], list[str]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix == ".csv":
            return list(csv.DictReader(text.splitlines())), []
        content = json.loads(text)
    except (OSError, ValueError, csv.Error) as error:
        raise InputError(f"{path} cannot be read as a lexicon: {error}", f"A lexicon is {FORMS}.") from None
    if isinstance(content, dict) and isinstance(content.get("rules"), list):
        return content["rules"], [str(word) for word in content.get("allowList", [])]
    if isinstance(content, list):
        return content, []
    raise InputError(f"{path} is no lexicon", f"A lexicon is {FORMS}.")


def _exact(pattern: str) -> str:
    return rf"(?<![^ \n]){_sequence(pattern, ' ')}(?![^ \n])"


def _gate(pattern: str) -> str:
    return f"(?:^|[^a-z0-9]){_sequence(pattern, '[^a-z0-9]+')}(?:[^a-z0-9]|$)"


def _sequence(pattern: str, between: str) -> str:
    first, *others = _elements(pattern)
    sequence = f"(?:{_alternatives(first[0])})"
    for alternatives, optional in others:
        sequence += f"(?:{between}(?:{_alternatives(alternatives)})){'?' if optional else ''}"
    return sequence


def _elements(pattern: str) -> list[tuple[list[str], bool]]:
    elements = []
    for part in pattern.split():
        optional = part.endswith("?")
        body = part.removesuffix("?")
        if body.startswith("(") != body.endswith(")"):
            raise ValueError(f"an open bracket in {pattern!r}")
        elements.append((body.removeprefix("(").removesuffix(")").split("|"), optional))
    if not elements or elements[0][1]:
        raise ValueError(f"{pattern!r} begins with nothing")
    return elements


def _alternatives(words: list[str]) -> str:
    return "|".join(
        _letters(fold_word(word.removesuffix("*"))) + (ANY_ENDING if word.endswith("*") else "") for word in words
    )


def _letters(word: str) -> str:
    # A letter may be drawn out, but `as` is not `ass`: a run is at least as long as in the lexicon.
    if not word:
        raise ValueError("an empty word")
    runs = ((letter, len(list(run))) for letter, run in groupby(word))
    return "".join(f"{re.escape(letter)}{'+' if length == 1 else f'{{{length},}}'}" for letter, length in runs)
