"""A project with toy models of which every kind of route can be gone in a second, and the command in it."""

from __future__ import annotations

import contextlib
import json
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from typer.testing import CliRunner

import luthier
from luthier.cli import app

TOYS = Path(__file__).parent / "toys"
RECIPE = """
luthier: 1
name: letters
seed: 3
steps:
  - source: jsonl
    path: texts.jsonl
  - format: language-modelling
    split: {valid: 0.1, test: 0.3}
  - architecture: bigrams
  - export: plain
  - validate: perplexity
  - validate: vowels
    gate: {vowels: {at_least: 0}}
"""
TEXT = "the number of items in a list is read from a file, and written to the table if no value is found"


def write_texts(path: Path, count: int = 60) -> None:
    """Documents of words, a JSON line each."""
    chance = random.Random(0)
    texts = (" ".join(chance.choice(TEXT.split()) for _ in range(12)) for _ in range(count))
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")


class Result(NamedTuple):
    """What the command printed and left."""

    code: int
    out: str
    err: str
    outcome: dict[str, Any]

    def route(self, label: str) -> dict[str, Any]:
        """What was measured of a route."""
        return next(each for each in self.outcome["tried"] if each["label"] == label)


@contextlib.contextmanager
def working_in(directory: Path) -> Iterator[None]:
    """Work in a folder, with only the toys and what measures them loaded."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LUTHIER_PLUGINS", "bigrams,text,validate,optimize")
        patch.setenv("LUTHIER_CACHE", str(directory / "cache"))
        patch.delenv("LUTHIER_HOME", raising=False)
        patch.chdir(directory)
        yield


@pytest.fixture(scope="session")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the toys, and a finished run of a recipe with them."""
    directory = tmp_path_factory.mktemp("bench")
    (directory / "plugins.d").mkdir()
    shutil.copy(TOYS / "bigrams.py", directory / "plugins.d")
    (directory / "recipe.yaml").write_text(RECIPE, encoding="utf-8")
    write_texts(directory / "texts.jsonl")
    with working_in(directory):
        luthier.run("recipe.yaml", display=False, jobs=1)
    return directory


@pytest.fixture
def inside(bench: Path) -> Iterator[None]:
    """The test is done in the folder."""
    with working_in(bench):
        yield


@pytest.fixture(scope="session")
def optimize(bench: Path) -> Callable[..., Result]:
    """Call `luthier optimize ARGUMENTS…` in the folder."""

    def call(*arguments: str, output: str = "optimized") -> Result:
        given = ["optimize", *arguments, "--rounds", "1", "--new-tokens", "8", "--output", output]
        with working_in(bench):
            result = CliRunner().invoke(app, given)
        kept = bench / output / "optimize.json"
        outcome = json.loads(kept.read_text(encoding="utf-8")) if kept.exists() else {}
        return Result(result.exit_code, result.stdout, result.stderr, outcome)

    return call


@pytest.fixture(scope="session")
def searched(optimize: Callable[..., Result]) -> Result:
    """A whole search, once."""
    return optimize("latest:bigrams", "--max-kl", "0.05", "--for", "size")
