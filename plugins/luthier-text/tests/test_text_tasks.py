"""The formatters of tasks: translation, prompt-completion, chat, classification."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Any

import polars as pl
import pytest

from luthier import Context, Dataset, InputError
from luthier_text import formatters
from luthier_text._chat import conversation
from luthier_text.formatters import Split

ROWS = 60
ALL = Split(valid=0, test=0)
ANSWERED = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]


def together(frames: Any) -> pl.DataFrame:
    return pl.concat(list(frames))


@pytest.fixture
def pairs(make_dataset: Callable[..., Dataset]) -> Dataset:
    return make_dataset(
        {
            "text": [f"word {row}" for row in range(ROWS)],
            "translation": [f" mot {row} " if row else None for row in range(ROWS)],
            "target_language": ["fr"] * ROWS,
            "number": list(range(ROWS)),
            "kind": ["rare" if row == 7 else "even" if row % 2 == 0 else " odd" for row in range(ROWS)],
        },
        cuts=[1, 30],
    )


def test_translation(pairs: Dataset, ctx: Context) -> None:
    frame = together(formatters.translation(pairs, ctx, split=Split(valid=0.2, test=0.2)))
    assert frame.columns == ["id", "group", "split", "prompt", "completion"]
    assert frame.height == ROWS - 1
    assert frame.row(0)[3:] == ("Translate to fr:\nword 1", "mot 1")
    assert set(frame["split"]) == {"train", "valid", "test"}


def test_translation_in_the_other_direction(pairs: Dataset, ctx: Context) -> None:
    prompt = "{number}, in English: {text}" + " " * 20
    frame = together(
        formatters.translation(pairs, ctx, prompt=prompt, original="translation", target="text", split=ALL)
    )
    assert frame.row(0)[3:] == ("1, in English:  mot 1 " + " " * 20, "word 1")


def test_splits_are_those_of_summarization(pairs: Dataset, ctx: Context) -> None:
    split = Split(valid=0.2, test=0.2, salt="x")
    configurations: dict[Callable[..., Any], dict[str, Any]] = {
        formatters.translation: {},
        formatters.prompt_completion: {"prompt": "{text}", "completion": "{translation}"},
        formatters.chat: {"answer": "{translation}"},
        formatters.summarization: {"target": "translation"},
    }
    sides = [
        together(formatter(pairs, ctx, split=split, **configuration)).select("id", "group", "split").rows()
        for formatter, configuration in configurations.items()
    ]
    assert sides[0] == sides[1] == sides[2] == sides[3]


def test_prompt_and_completion_have_templates(pairs: Dataset, ctx: Context) -> None:
    frame = together(
        formatters.prompt_completion(pairs, ctx, prompt="{number}", completion="<{translation}|{text}>", split=ALL)
    )
    assert frame.row(0)[3:] == ("1", "< mot 1 |word 1>")
    assert frame.height == ROWS - 1


@pytest.mark.parametrize("completion", ["the same", "{", "{a!r}"])
def test_a_broken_completion_is_an_error(pairs: Dataset, ctx: Context, completion: str) -> None:
    with pytest.raises(InputError, match="completion: "):
        formatters.prompt_completion.__luthier__.check(  # type: ignore[attr-defined]
            prompt="{text}", completion=completion, max_prompt_characters=100
        )


@pytest.mark.parametrize("system", [None, "Be brief."])
def test_chat_of_prompt_and_answer(pairs: Dataset, ctx: Context, system: str | None) -> None:
    frame = together(
        formatters.chat(pairs, ctx, prompt="Translate {text}", answer="{translation}", system=system, split=ALL)
    )
    expected = [{"role": "user", "content": "Translate word 1"}, {"role": "assistant", "content": "mot 1"}]
    if system:
        expected.insert(0, {"role": "system", "content": system})
    assert frame["messages"].to_list()[0] == expected
    assert frame.height == ROWS - 1


@pytest.mark.parametrize("form", ["lists", "json"])
def test_chat_of_a_column(
    make_dataset: Callable[..., Dataset], ctx: Context, form: str, caplog: pytest.LogCaptureFixture
) -> None:
    conversations = [ANSWERED] * 20 + [ANSWERED[:1], None]
    written: list[Any] = conversations if form == "lists" else [json.dumps(each) for each in conversations]
    data = make_dataset({"text": ["t"] * 22, "messages": written}, cuts=[5])
    with caplog.at_level(logging.WARNING):
        frame = together(formatters.chat(data, ctx, messages="messages", system="Be brief.", split=ALL))
    assert frame.schema["messages"] == pl.List(pl.Struct({"role": pl.String, "content": pl.String}))
    assert frame["messages"].to_list() == [[{"role": "system", "content": "Be brief."}, *ANSWERED]] * 20
    assert "2 of 22 conversations are malformed" in caplog.text


@pytest.mark.parametrize(
    "value",
    [
        None,
        "{",
        "[" * 100_000,
        "3",
        [],
        [*ANSWERED, ANSWERED[0]],
        [ANSWERED[1]],
        [ANSWERED[0], {"role": "assistant", "content": " "}],
        [ANSWERED[0], {"role": "robot", "content": "Hello"}],
        [ANSWERED[0], {"role": "assistant"}],
        [*ANSWERED, {"role": "system", "content": "late"}, ANSWERED[1]],
        '[{"role": "user", "content": "\\ud800"}, {"role": "assistant", "content": "x"}]',
    ],
)
def test_what_is_no_conversation(value: Any) -> None:
    assert conversation(value) is None


def test_a_conversation_keeps_its_own_system_message() -> None:
    own = [{"role": "system", "content": "Mine."}, *ANSWERED]
    assert conversation(own, "Yours.") == own


def test_a_column_without_conversations_is_an_error(pairs: Dataset, ctx: Context) -> None:
    with pytest.raises(InputError, match="'number' is Int64, not a list of messages"):
        together(formatters.chat(pairs, ctx, messages="number"))


def test_classes_are_sorted_and_counted(pairs: Dataset, ctx: Context) -> None:
    split = Split(valid=0.2, test=0.2)
    frame = together(formatters.classification(pairs, ctx, label="kind", min_class_size=2, split=split))
    assert frame.columns == ["id", "group", "split", "text", "label"]
    assert frame.height == ROWS - 1
    table = pl.read_parquet(ctx.notes / "tables" / "classes.parquet")
    assert table["label"].to_list() == ["even", "odd"]
    assert table.select(pl.sum_horizontal("train", "valid", "test")).to_series().to_list() == [30, 29]


def test_only_the_classes_that_are_named(pairs: Dataset, ctx: Context) -> None:
    frame = together(formatters.classification(pairs, ctx, label="kind", classes=["rare", "even"], split=ALL))
    assert set(frame["label"]) == {"rare", "even"}


@pytest.mark.parametrize(
    ("configuration", "message"),
    [
        ({"classes": ["even", "od"]}, "class 'od' has 0 rows, not 1"),
        ({"min_class_size": 30}, "1 classes of 30 rows or more"),
        ({"classes": ["even", "rare"], "min_class_size": 2}, "class 'rare' has 1 rows, not 2"),
    ],
)
def test_classes_that_will_not_do(pairs: Dataset, ctx: Context, configuration: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        together(formatters.classification(pairs, ctx, label="kind", **configuration))
    assert "even (30)" in error.value.remedy
