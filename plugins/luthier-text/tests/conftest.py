"""Fixtures: a context, and datasets of any shard layout."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from luthier import Context, Dataset
from luthier.testing import make_context

MakeDataset = Callable[..., Dataset]


@pytest.fixture
def ctx(tmp_path: Path) -> Context:
    return make_context(tmp_path / "context")


@pytest.fixture
def quarantined(tmp_path: Path) -> Callable[[], list[dict[str, Any]]]:
    """The quarantined records, in order."""

    def read() -> list[dict[str, Any]]:
        path = tmp_path / "context" / "notes" / "quarantine.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    return read


@pytest.fixture
def make_dataset(tmp_path_factory: pytest.TempPathFactory) -> MakeDataset:
    """A dataset of documents from columns; `cuts` are the rows at which shards begin."""

    def make(columns: dict[str, Sequence[Any]], cuts: Sequence[int] = ()) -> Dataset:
        frame = pl.DataFrame(columns)
        for name, default in (
            ("id", [f"d{row:04}" for row in range(frame.height)]),
            ("source", ["test"] * frame.height),
        ):
            if name not in frame.columns:
                frame = frame.with_columns(pl.Series(name, default, dtype=pl.String))
        if "group" not in frame.columns:
            frame = frame.with_columns(group=pl.col("id"))
        directory = tmp_path_factory.mktemp("dataset")
        edges = [0, *sorted(set(cuts) - {0, frame.height}), frame.height]
        for number, (start, end) in enumerate(pairwise(edges)):
            frame.slice(start, end - start).write_parquet(directory / f"shard-{number:05d}.parquet")
        return Dataset.at(directory, "documents")

    return make
