"""The cleaner normalise."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest

from luthier import InputError
from luthier_text import cleaners


def normalise(text: str, **configuration: Any) -> str:
    return str(cleaners.normalise(pl.DataFrame({"text": [text]}), **configuration)["text"][0])


@pytest.mark.parametrize(
    ("configuration", "expected"),
    [
        ({}, "The Mice were running, 3 times."),
        ({"lowercase": True}, "the mice were running, 3 times."),
        ({"stop_words": "english"}, "Mice running, 3 times."),
        ({"stop_words": ["mice"]}, "The were running, 3 times."),
        ({"words": "stem"}, "the mice were run, 3 time."),
        ({"words": "lemmatize", "stop_words": "english"}, "mouse run, 3 time."),
    ],
)
def test_pieces(configuration: dict[str, Any], expected: str) -> None:
    assert normalise("The Mice were running, 3 times.", **configuration) == expected


def test_language() -> None:
    assert normalise("Häuser", language="de", words="stem") == "haus"
    assert normalise("Häuser", language="de", words="lemmatize") == "Haus"


@pytest.mark.parametrize("words", ["stem", "lemmatize"])
def test_unknown_language_is_an_error_that_lists_those_known(words: str) -> None:
    with pytest.raises(InputError, match="'xx'") as error:
        normalise("a", language="xx", words=words)
    assert "de, " in error.value.remedy


def test_line_ends_and_missing_values_stay() -> None:
    assert normalise("the cat\nand the dog", stop_words="english") == "cat\n dog"
    frame = pl.DataFrame({"text": [None, "A"]}, schema={"text": pl.String})
    assert cleaners.normalise(frame, lowercase=True)["text"].to_list() == [None, "a"]
