"""The plugin keeps the rules for plugins."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest

from luthier import Dataset
from luthier.testing import conformance


@pytest.fixture
def luthier_samples(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Texts with labels: the kit's examples have a completion each, which are not labels to choose from."""
    directory = tmp_path_factory.mktemp("labelled")
    numbers = range(40)
    columns = {
        "id": [f"row-{number}" for number in numbers],
        "group": [f"row-{number}" for number in numbers],
        "split": [("train", "test")[number % 2] for number in numbers],
        "text": [f"Text {number} of some words." for number in numbers],
        "label": [("plain", "odd", "other")[number % 3] for number in numbers],
    }
    pl.DataFrame(columns).write_parquet(directory / "shard-00000.parquet")
    return {"data": Dataset.at(directory, "classification")}


test_conformance = conformance("validate", configurations={"bits-per-byte": {"baselines": ["xz", "ngram"]}})
