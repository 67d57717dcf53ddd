"""A tiny model and a small dataset of prompts with completions."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from luthier import Dataset, Model

WORDS = ["table", "row", "file", "array", "format", "read", "write", "number", "name", "value"]


def example_rows(count: int = 24) -> pl.DataFrame:
    rows = []
    for i in range(count):
        words = [WORDS[(i * 7 + j * 3) % len(WORDS)] for j in range(3 + i % 9)]
        rows.append(
            {
                "id": f"e{i}",
                "group": f"g{i}",
                "split": "valid" if i % 6 == 5 else "train",
                "prompt": "Summarize in one line: " + " ".join(words),
                "completion": f"The {words[0]} of the {words[1]}.",
                "text": f"The {words[0]} of the {words[1]}. " * 4,
            }
        )
    return pl.DataFrame(rows)


def write_dataset(directory: Path, frame: pl.DataFrame, form: str = "prompt-completion") -> Dataset:
    directory.mkdir(parents=True, exist_ok=True)
    frame.write_parquet(directory / "shard-00000.parquet")
    return Dataset.at(directory, form)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> Model:
    from luthier_models.testing import write_tiny_model

    return Model.at(write_tiny_model(tmp_path_factory.mktemp("tiny") / "model"), "causal-lm", "0" * 64)


@pytest.fixture(scope="session")
def examples(tmp_path_factory) -> Dataset:
    return write_dataset(tmp_path_factory.mktemp("data"), example_rows())


@pytest.fixture
def make_dataset(tmp_path):
    def make(frame: pl.DataFrame, form: str = "prompt-completion") -> Dataset:
        return write_dataset(tmp_path / "data", frame, form)

    return make


@pytest.fixture
def rows():
    return example_rows
