"""The formatters of preferences: pairs of answers, and answers with a judgement."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import polars as pl
import pytest

from luthier import Context, Dataset, InputError
from luthier.artifacts import DATASET_FORMS
from luthier_text import formatters
from luthier_text.formatters import Split

ALL = Split(valid=0, test=0)


def together(frames: Any) -> pl.DataFrame:
    return pl.concat(list(frames))


@pytest.fixture
def answers(make_dataset: Callable[..., Dataset]) -> Dataset:
    return make_dataset(
        {
            "text": [f"question {row}" for row in range(6)],
            "good": [" yes ", "of course", "", "same", None, "sure"],
            "bad": ["no", " never", "no", "same ", "no", None],
            "thumb": ["up", "down", None, " up", " ", "down"],
            "stars": [1.0, -1.0, 0.0, float("nan"), None, 2.0],
            "kept": [True, False, None, True, False, True],
            "nothing": [None] * 6,
        },
        cuts=[2],
    )


def test_pairs_are_of_two_different_answers(answers: Dataset, ctx: Context) -> None:
    frame = together(formatters.preference(answers, ctx, prompt="Q: {text}", chosen="good", rejected="bad", split=ALL))
    assert frame.columns == list(DATASET_FORMS["preference"])
    assert frame.select("prompt", "chosen", "rejected").rows() == [
        ("Q: question 0", "yes", "no"),
        ("Q: question 1", "of course", "never"),
    ]


@pytest.mark.parametrize(
    ("label", "liked", "expected"),
    [
        ("thumb", ["up"], {0: True, 1: False, 3: True, 5: False}),
        ("stars", None, {0: True, 1: False, 2: False, 5: True}),
        ("stars", ["2.0", "1.0"], {0: True, 1: False, 2: False, 3: False, 5: True}),
        ("kept", None, {0: True, 1: False, 3: True, 4: False, 5: True}),
    ],
)
def test_a_judgement_is_true_or_false_a_number_or_a_text(answers, ctx, label, liked, expected) -> None:
    frame = together(
        formatters.unpaired_preference(answers, ctx, completion="text", label=label, liked=liked, split=ALL)
    )
    assert frame.columns == list(DATASET_FORMS["unpaired-preference"])
    assert frame.schema["label"] == pl.Boolean
    assert {int(prompt[-1]): label for prompt, label in frame.select("prompt", "label").rows()} == expected


@pytest.mark.parametrize(
    ("label", "liked", "expected"),
    [
        ("thumb", None, "the column 'thumb' is String, neither true and false nor numbers"),
        ("thumb", ["good", "yes"], "liked: none of 'good', 'yes' is in the column 'thumb'"),
        ("thumbs", None, "no column 'thumbs'; did you mean 'thumb'?"),
        ("nothing", None, "none of the 6 rows makes an example"),
    ],
)
def test_what_cannot_be_read_is_told(answers, ctx, label, liked, expected) -> None:
    with pytest.raises(InputError, match=expected.replace("?", r"\?")) as caught:
        together(formatters.unpaired_preference(answers, ctx, completion="text", label=label, liked=liked, split=ALL))
    if label == "thumb":
        assert caught.value.remedy.endswith("There are: 'down', 'up'.")
