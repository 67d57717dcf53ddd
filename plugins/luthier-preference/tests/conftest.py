"""A tiny model, and preferences that it can learn: answers in one word are liked, long ones are not."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from luthier import Dataset, Model

WORDS = ["table", "row", "file", "array", "format", "read", "write", "number", "name", "value"]


def splits(count: int) -> list[str]:
    return ["valid" if number % 4 == 3 else "train" for number in range(count)]


def pair_rows(count: int = 32) -> pl.DataFrame:
    names = [f"e{number}" for number in range(count)]
    words = [[WORDS[(number * 7 + place * 3) % len(WORDS)] for place in range(3)] for number in range(count)]
    return pl.DataFrame(
        {
            "id": names,
            "group": names,
            "split": splits(count),
            "prompt": [f"Summarize in one line: {' '.join(each)}" for each in words],
            "chosen": [f"The {first}." for first, _, _ in words],
            "rejected": [f"Write the {second} and the {third} to a file" for _, second, third in words],
        }
    )


def judgement_rows(count: int = 32) -> pl.DataFrame:
    pairs = pair_rows(count)
    liked = pl.Series("label", [number % 3 > 0 for number in range(count)])
    answer = pl.when(liked).then(pl.col("chosen")).otherwise(pl.col("rejected"))
    return pairs.select("id", "group", "split", "prompt", answer.alias("completion"), liked)


def write_dataset(directory: Path, frame: pl.DataFrame, form: str) -> Dataset:
    directory.mkdir(parents=True, exist_ok=True)
    frame.write_parquet(directory / "shard-00000.parquet")
    return Dataset.at(directory, form)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> Model:
    from luthier_models.testing import write_tiny_model

    return Model.at(write_tiny_model(tmp_path_factory.mktemp("tiny") / "model"), "causal-lm", "0" * 64)


@pytest.fixture(scope="session")
def pairs(tmp_path_factory) -> Dataset:
    return write_dataset(tmp_path_factory.mktemp("pairs"), pair_rows(), "preference")


@pytest.fixture(scope="session")
def judgements(tmp_path_factory) -> Dataset:
    return write_dataset(tmp_path_factory.mktemp("judgements"), judgement_rows(), "unpaired-preference")
