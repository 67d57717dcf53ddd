"""Splits and formatters: nothing that belongs together falls on both sides; prompts fit; errors help."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from luthier import Context, Dataset, InputError
from luthier_text import formatters
from luthier_text._examples import render
from luthier_text._split import side_of
from luthier_text._template import Template
from luthier_text.formatters import Split

MakeDataset = Callable[..., Dataset]


def summarize(data: Dataset, ctx: Context, **configuration: Any) -> pl.DataFrame:
    return pl.concat(list(formatters.summarization(data, ctx, **configuration)))


@pytest.fixture
def documents(make_dataset: MakeDataset) -> Dataset:
    rows = 400
    return make_dataset(
        {
            "text": [f"body {row}" for row in range(rows)],
            "summary": [f" summary {row} " if row % 10 else " " for row in range(rows)],
            "package": [f"p{row % 50}" for row in range(rows)],
            "number": list(range(rows)),
        },
        cuts=[100, 101, 350],
    )


def test_examples_have_the_form(documents: Dataset, ctx: Context) -> None:
    frame = summarize(documents, ctx, prompt="{number}: {text} {{}}", split=Split(test=0.2, valid=0.2, by="package"))
    assert frame.columns == ["id", "group", "split", "prompt", "completion"]
    assert frame.height == 360
    assert frame.row(0) == ("d0001", "p1", side_of("p1", Split(test=0.2, valid=0.2)), "1: body 1 {}", "summary 1")
    assert frame.group_by("group").agg(pl.col("split").n_unique())["split"].max() == 1
    assert set(frame["split"]) == {"train", "valid", "test"}


def test_language_modelling(documents: Dataset, ctx: Context) -> None:
    frame = pl.concat(
        list(formatters.language_modelling(documents, ctx, column="summary", split=Split(test=0.3, valid=0.1)))
    )
    assert frame.columns == ["id", "group", "split", "text"]
    assert frame.height == 360
    assert frame["group"].to_list() == frame["id"].to_list()


@given(st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_neither_packages_nor_clusters_straddle(make_dataset: MakeDataset, ctx: Context, data: st.DataObject) -> None:
    rows = data.draw(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 60)), min_size=60, max_size=80))
    columns = {
        "text": ["t"] * len(rows),
        "summary": ["s"] * len(rows),
        "package": [f"p{package}" for package, _ in rows],
        "group": [f"g{group}" if group < 8 else f"own{row}" for row, (_, group) in enumerate(rows)],
    }
    split = Split(valid=0.0, test=0.4, by="package")
    try:
        frame = summarize(make_dataset(columns, data.draw(st.lists(st.integers(1, 50), max_size=3))), ctx, split=split)
    except InputError:
        return  # all in one component: the guard's business, tested below
    joined = frame.with_columns(pl.Series("package", columns["package"]), pl.Series("cluster", columns["group"]))
    for column in ("package", "cluster", "group"):
        assert joined.group_by(column).agg(pl.col("split").n_unique())["split"].max() == 1


def test_cluster_over_two_packages_joins_them(make_dataset: MakeDataset, ctx: Context) -> None:
    packages = [f"p{row}" for row in range(300)]
    groups = [f"g{row}" for row in range(300)]
    groups[1] = groups[2] = "shared"
    split = Split(test=0.3, valid=0.1, by="package")
    data = make_dataset({"text": ["t"] * 300, "summary": ["s"] * 300, "package": packages, "group": groups})
    frame = summarize(data, ctx, split=split)
    assert frame["group"].to_list()[:4] == ["p0", "p1", "p1", "p3"]
    assert frame["split"][1] == frame["split"][2] == side_of("p1", split)


def test_split_is_stable_when_documents_are_added(documents: Dataset, make_dataset: MakeDataset, ctx: Context) -> None:
    split = Split(test=0.2, valid=0.2, by="package")
    before = summarize(documents, ctx, split=split)
    more = pl.concat(
        [documents.frame(), documents.frame().with_columns(id="x" + pl.col("id"), group="x" + pl.col("id"))]
    )
    after = summarize(make_dataset(more.to_dict()), ctx, split=split)
    assert (
        after.filter(pl.col("id").is_in(before["id"].to_list()))
        .select("id", "split")
        .equals(before.select("id", "split"))
    )


def test_salt_gives_another_split() -> None:
    names = [f"p{n}" for n in range(200)]
    sides = [[side_of(name, Split(test=0.5, salt=salt)) for name in names] for salt in ("", "1")]
    assert sides[0] != sides[1]
    assert 60 < sides[0].count("test") < 140


@pytest.mark.parametrize(("valid", "test"), [(0.7, 0.5), (0.5, 0.5)])
def test_shares_leave_something_to_train_on(valid: float, test: float) -> None:
    with pytest.raises(ValueError, match="leave nothing to train on"):
        Split(valid=valid, test=test)


@pytest.mark.parametrize("value", [float(f"0.{n}") for n in (1, 3, 6)])
def test_shares_of_many_groups(value: float) -> None:
    tested = [side_of(str(n), Split(test=value, valid=0.0)) for n in range(4000)].count("test")
    assert abs(tested / 4000 - value) < 0.03


def test_an_empty_split_is_an_error_with_the_number_of_groups(make_dataset: MakeDataset, ctx: Context) -> None:
    data = make_dataset({"text": ["t"] * 50, "summary": ["s"] * 50, "package": ["one"] * 50})
    with pytest.raises(InputError, match="is empty: 50 rows in 1 groups by 'package'") as error:
        summarize(data, ctx, split=Split(by="package"))
    assert "salt" in error.value.remedy
    assert summarize(data, ctx, split=Split(test=0.0, valid=0.0, by="package"))["split"].unique().to_list() == ["train"]


def test_no_rows_at_all_is_an_error(make_dataset: MakeDataset, ctx: Context) -> None:
    with pytest.raises(InputError, match="there are no rows"):
        summarize(make_dataset({"text": [], "summary": []}), ctx)


def test_rows_of_which_none_makes_an_example_are_an_error_that_blames_no_share(
    make_dataset: MakeDataset, ctx: Context
) -> None:
    with pytest.raises(InputError, match="none of the 2 rows makes an example") as error:
        summarize(make_dataset({"text": ["t", "u"], "summary": ["", None]}), ctx)
    assert "salt" not in error.value.remedy


def test_lumpy_shares_are_warned_of(make_dataset: MakeDataset, ctx: Context, caplog: pytest.LogCaptureFixture) -> None:
    split = Split(test=0.2, valid=0.0, by="package")
    tested = next(f"p{n}" for n in range(99) if side_of(f"p{n}", split) == "test")
    trained = next(f"p{n}" for n in range(99) if side_of(f"p{n}", split) == "train")
    data = make_dataset({"text": ["t"] * 10, "summary": ["s"] * 10, "package": [tested] * 9 + [trained]})
    with caplog.at_level(logging.WARNING):
        summarize(data, ctx, split=split)
    assert "split 'test' has 90.0% of the rows, not 20.0%" in caplog.text


def test_missing_values_of_the_split_column_stand_for_themselves(make_dataset: MakeDataset, ctx: Context) -> None:
    data = make_dataset({"text": ["t"] * 100, "summary": ["s"] * 100, "package": [None] * 99 + ["p"]})
    frame = summarize(data, ctx, split=Split(test=0.3, valid=0.3, by="package"))
    assert frame["group"].n_unique() == 100


@pytest.mark.parametrize(
    ("configuration", "message"),
    [
        ({"prompt": "{text"}, "prompt: "),
        ({"prompt": "{}"}, "is not the name of a column"),
        ({"prompt": "{text!r}"}, "is not the name of a column"),
        ({"prompt": "{text.upper}"}, "is not the name of a column"),
    ],
)
def test_a_broken_prompt_is_an_error(
    documents: Dataset, ctx: Context, configuration: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        summarize(documents, ctx, **configuration)


@pytest.mark.parametrize(
    ("text", "prompt"),
    [
        ("one two three", "Sum: one two three."),
        ("one two three four", "Sum: one two three."),
        ("one two threesome", "Sum: one two."),
        ("onetwothreefour", "Sum: onetwothreefo."),
        ("one two      three", "Sum: one two."),
        ("", "Sum: ."),
    ],
)
def test_long_text_is_cut_at_the_end_of_a_word(text: str, prompt: str) -> None:
    frame = pl.DataFrame({"text": [text]})
    assert frame.select(render(Template.parse("Sum: {text}."), 19)).item() == prompt


@given(st.text(max_size=60), st.text(max_size=20), st.integers(0, 50))
def test_prompts_fit(text: str, name: str, limit: int) -> None:
    frame = pl.DataFrame({"text": [text], "name": [name]})
    prompt = frame.select(render(Template.parse("{name}: {text}"), limit)).item()
    assert prompt.startswith(f"{name}: ")
    assert len(prompt) <= max(limit, len(name) + 2)
    assert text.startswith(prompt[len(name) + 2 :])


def test_what_a_column_holds_out_is_the_test_split_and_nothing_that_it_does_not(
    make_dataset: MakeDataset, ctx: Context
) -> None:
    said = [True, True, False, None] * 100
    columns = {"text": ["t"] * 400, "summary": ["s"] * 400, "kept": said, "group": [f"g{row}" for row in range(400)]}
    columns["group"][6] = columns["group"][0]  # a near-duplicate of what is held out, say
    frame = summarize(make_dataset(columns), ctx, split=Split(held_out="kept", valid=0.3, test=0.3))
    sides = frame["split"].to_list()
    assert {side for side, held in zip(sides, said, strict=True) if held} == {"test"}
    assert sides[6] == "test"
    assert {side for row, side in enumerate(sides) if said[row] is False and row != 6} == {"train", "valid"}
    assert {side for side, held in zip(sides, said, strict=True) if held is None} == {"train", "valid", "test"}


def test_a_column_that_holds_nothing_out_or_says_something_else_is_an_error(
    make_dataset: MakeDataset, ctx: Context
) -> None:
    data = make_dataset({"text": ["t"] * 50, "summary": ["s"] * 50, "kept": [False] * 50, "other": ["x"] * 50})
    with pytest.raises(InputError, match="'kept' holds nothing out"):
        summarize(data, ctx, split=Split(held_out="kept"))
    with pytest.raises(InputError, match="'other' is String, not true and false"):
        summarize(data, ctx, split=Split(held_out="other"))
    with pytest.raises(InputError, match="no column 'kepd'"):
        summarize(data, ctx, split=Split(held_out="kepd"))
