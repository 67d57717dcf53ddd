"""Stemmers and lemmas by language. Planning asks too, so no heavy library is imported here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import simplemma
import snowballstemmer

from luthier import InputError

STEMMERS = {
    "ar": "arabic", "ca": "catalan", "cs": "czech", "da": "danish", "de": "german", "el": "greek",
    "en": "english", "eo": "esperanto", "es": "spanish", "et": "estonian", "eu": "basque", "fa": "persian",
    "fi": "finnish", "fr": "french", "ga": "irish", "hi": "hindi", "hu": "hungarian", "hy": "armenian",
    "id": "indonesian", "it": "italian", "lt": "lithuanian", "ne": "nepali", "nl": "dutch", "no": "norwegian",
    "pl": "polish", "pt": "portuguese", "ro": "romanian", "ru": "russian", "sr": "serbian", "sv": "swedish",
    "ta": "tamil", "tr": "turkish", "yi": "yiddish",
}  # fmt: skip


def check_language(language: str, words: Literal["stem", "lemmatize"]) -> None:
    """Check that words of a language can be reduced.

    Raises:
        InputError: listing the languages whose can.
    """
    known = _stemmed() if words == "stem" else _lemmatized()
    if language not in known:
        what = "stemmer" if words == "stem" else "lemmas"
        raise InputError(f"language: no {what} for {language!r}", f"There is for: {', '.join(sorted(known))}.")


def _stemmed() -> set[str]:
    algorithms = snowballstemmer.algorithms()
    return {code for code, name in STEMMERS.items() if name in algorithms}


def _lemmatized() -> set[str]:
    from simplemma.strategies.dictionaries.dictionary_factory import SUPPORTED_LANGUAGES

    return set(SUPPORTED_LANGUAGES)


def stemmer(language: str) -> Callable[[str], str]:
    """Snowball's stemmer, which works on words in lower case and gives such.

    Raises:
        InputError: if there is none for the language.
    """
    check_language(language, "stem")
    stem = snowballstemmer.stemmer(STEMMERS[language])
    return lambda word: str(stem.stemWord(word.lower()))


def lemmatizer(language: str) -> Callable[[str], str]:
    """Make the function that looks lemmas up in simplemma.

    Raises:
        InputError: if there are none for the language.
    """
    check_language(language, "lemmatize")
    return lambda word: simplemma.lemmatize(word, lang=language)
