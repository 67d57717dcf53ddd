"""Mixtures of two datasets, and the documents of certain values."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import luthier
from luthier import Context, Dataset, InputError, LuthierError
from luthier.testing import make_context, run_component
from luthier_text.cleaners import mix, values

MakeDataset = Callable[..., Dataset]


def examples(directory: Path, rows: Sequence[tuple[str, str, str, str]]) -> Dataset:
    directory.mkdir()
    columns = ("id", "group", "split", "text")
    pl.DataFrame(rows, schema=dict.fromkeys(columns, pl.String), orient="row").write_parquet(
        directory / "shard-00000.parquet"
    )
    return Dataset.at(directory, "language-modelling")


def share_of(rows: pl.DataFrame) -> float:
    sizes = rows.group_by(pl.col("id").str.starts_with("o")).agg(pl.col("text").str.len_chars().sum())
    counted: Mapping[bool, int] = dict(sizes.iter_rows())
    return counted.get(True, 0) / sum(counted.values())


@pytest.fixture
def two(tmp_path: Path) -> tuple[Dataset, Dataset]:
    sides = ["train", "train", "train", "valid", "test"]
    domain = [(f"d{row}", f"d{row}", sides[row % 5], "domain text " * 20) for row in range(50)]
    general = [(f"o{row}", f"o{row}", sides[row % 5], "other ") for row in range(5000)]
    return examples(tmp_path / "domain", domain), examples(tmp_path / "general", general)


def test_the_second_dataset_has_its_share_of_the_text_in_each_split(two: Any, ctx: Context) -> None:
    mixed = pl.concat(mix(*two, ctx, share=0.2))
    assert mixed.filter(pl.col("id").str.starts_with("d")).equals(two[0].frame())
    for side in ("train", "valid", "test"):
        assert share_of(mixed.filter(pl.col("split") == side)) == pytest.approx(0.2, abs=0.01)
    assert ctx.metrics["share"].value == pytest.approx(0.2, abs=0.01)


def test_the_draw_depends_on_ids_and_seed_alone(two: Any, tmp_path: Path) -> None:
    def drawn(name: str, other: Dataset, seed: int) -> set[str]:
        ctx = make_context(tmp_path / name, seed=seed)
        return set(pl.concat(mix(two[0], other, ctx, share=0.1))["id"])

    turned = examples(tmp_path / "turned", two[1].frame().reverse().rows())
    assert drawn("a", two[1], 1) == drawn("b", turned, 1) != drawn("c", two[1], 2)


def test_without_a_share_it_is_the_first_alone(two: Any, ctx: Context) -> None:
    assert pl.concat(mix(*two, ctx, share=0)).equals(two[0].frame())


def test_what_one_holds_out_is_not_trained_on_by_way_of_the_other(tmp_path: Path, ctx: Context) -> None:
    held = examples(tmp_path / "one", [("d1", "shared", "test", "held out"), ("d2", "mine", "train", "text " * 50)])
    leaky = [("o1", "shared", "train", "held out, nearly"), ("d2", "mine", "train", "text"), ("o2", "x", "train", "y")]
    mixed = pl.concat(mix(held, examples(tmp_path / "other", leaky), ctx, share=0.9))
    assert mixed["id"].to_list() == ["d1", "d2", "o2"]


def test_too_little_text_is_told(two: Any, ctx: Context, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        mixed = pl.concat(mix(two[1], two[0], ctx, share=0.9))
    assert mixed.height == 5050
    assert "has text for a share of 0.29 only, not 0.9" in caplog.text


def test_a_dataset_mixed_with_itself_is_refused(two: Any, ctx: Context) -> None:
    with pytest.raises(InputError, match="no row of the second dataset can be added"):
        list(mix(two[0], two[0], ctx, share=0.1))


def test_columns_of_both(make_dataset: MakeDataset, ctx: Context) -> None:
    one = make_dataset({"id": ["a"], "text": ["one text"], "stars": [3], "mine": ["x"]})
    other = make_dataset({"id": ["b"], "text": ["another text"], "stars": ["many"], "theirs": [True]})
    mixed = pl.concat(mix(one, other, ctx, share=0.9))
    assert mixed.select("id", "stars", "mine", "theirs").rows() == [("a", "3", "x", None), ("b", "many", None, True)]


def test_conversations_are_measured_by_what_is_said(tmp_path: Path, ctx: Context) -> None:
    def talks(name: str, count: int, words: str) -> Dataset:
        (tmp_path / name).mkdir()
        rows = [
            {"id": f"{name}{row}", "group": f"{name}{row}", "split": "train", "messages": [turn("user", words)]}
            for row in range(count)
        ]
        pl.DataFrame(rows).write_parquet(tmp_path / name / "shard-00000.parquet")
        return Dataset.at(tmp_path / name, "chat")

    def turn(role: str, content: str) -> dict[str, str]:
        return {"role": role, "content": content}

    mixed = pl.concat(mix(talks("d", 10, "x" * 90), talks("o", 100, "x" * 10), ctx, share=0.1))
    assert mixed.filter(pl.col("id").str.starts_with("o")).height == 10


def test_documents_of_some_values(tmp_path: Path) -> None:
    rows = [{"text": "a", "section": "games"}, {"text": "b", "section": None}, {"text": "c", "section": "kde"}]
    kept = run_component(values, rows, directory=tmp_path, column="section", values=["games", "math"])
    assert kept.frame["text"].to_list() == ["a"]


RECIPE = """
luthier: 1
name: mixture
steps:
  - source: jsonl
    id: domain
    path: domain.jsonl
  - format: language-modelling
    id: pages
    split: {valid: 0.2, test: 0.2}
  - source: jsonl
    id: general
    path: general.jsonl
  - format: language-modelling
    id: prose
    split: {valid: 0.2, test: 0.2}
  - clean: mix
    from: pages
    other: prose
    share: 0.25
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    for name in ("domain", "general"):
        rows = [{"text": f"{name} text number {row}"} for row in range(200)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    return tmp_path / "recipe.yaml"


def test_a_recipe_mixes_two_sources(recipe: Path) -> None:
    run = luthier.run(recipe, display=False)
    assert run.metrics["mix"]["share"] == pytest.approx(0.25, abs=0.02)
    texts = run.dataset("mix").frame()["text"]
    assert texts.str.starts_with("domain").sum() == 200
    assert 60 <= texts.str.starts_with("general").sum() <= 72
    assert run.metrics == luthier.run(recipe, display=False).metrics


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ("from: pages", "other: required, but missing"),
        ("from: pages\n    other: prose, general", "prose, general"),
        ("from: pages\n    other: pages", "mix.other: clean:mix is given 'pages' twice"),
        (
            "from: pages\n    other: general",
            "two datasets of one form; 'pages' gives language-modelling, 'general' gives",
        ),
    ],
)
def test_what_cannot_be_mixed_is_refused_while_planning(recipe: Path, named: str, message: str) -> None:
    recipe.write_text(RECIPE.replace("from: pages\n    other: prose", named))
    with pytest.raises(LuthierError) as refused:
        luthier.plan(recipe)
    assert message in str(refused.value)
