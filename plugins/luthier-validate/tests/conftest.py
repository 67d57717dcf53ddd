from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from luthier import Dataset

# importmode=importlib puts no test folder on the path; the toy is shared by name.
_spec = importlib.util.spec_from_file_location("toy_generator", Path(__file__).with_name("toy_generator.py"))
assert _spec is not None
assert _spec.loader is not None
sys.modules["toy_generator"] = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(sys.modules["toy_generator"])


@pytest.fixture
def pairs(tmp_path: Path) -> Callable[..., Dataset]:
    """Makes a prompt-completion dataset of (prompt, completion) pairs, all of the split `test`."""

    def make(*rows: tuple[str, str], split: str = "test") -> Dataset:
        ids = [f"row-{number:03}" for number in range(len(rows))]
        columns = {
            "id": ids,
            "group": ids,
            "split": [split] * len(rows),
            "prompt": [prompt for prompt, _ in rows],
            "completion": [completion for _, completion in rows],
        }
        return _write(tmp_path, "prompt-completion", columns)

    return make


@pytest.fixture
def texts(tmp_path: Path) -> Callable[..., Dataset]:
    """Makes a language-modelling dataset, all of the split `test`."""

    def make(*rows: str) -> Dataset:
        ids = [f"row-{number:03}" for number in range(len(rows))]
        columns = {"id": ids, "group": ids, "split": ["test"] * len(rows), "text": list(rows)}
        return _write(tmp_path, "language-modelling", columns)

    return make


def _write(directory: Path, form: str, columns: dict[str, list[str]]) -> Dataset:
    schema = dict.fromkeys(columns, pl.String)
    root = directory / "data"
    root.mkdir(exist_ok=True)
    pl.DataFrame(columns, schema=schema).write_parquet(root / "shard-00000.parquet")
    return Dataset.at(root, form)
