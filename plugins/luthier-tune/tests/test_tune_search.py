"""Lists of values for `lora`, through the engine, on a tiny model."""

from __future__ import annotations

import pytest

import luthier

PLUGIN = '''
import shutil
from pathlib import Path
import polars as pl
from luthier import Context, Dataset, Location, Model, component, hookimpl

@component(gives="prompt-completion")
def examples(ctx: Context, *, path: Location) -> pl.DataFrame:
    """Read the examples."""
    return pl.read_parquet(ctx.open(path)).select("id", "group", "split", "prompt", "completion")

@component(gives="causal-lm")
def tiny(ctx: Context, *, path: Location) -> None:
    """Copy a model."""
    shutil.copytree(ctx.open(path), ctx.output, dirs_exist_ok=True)

@hookimpl
def luthier_sources():
    return [examples]

@hookimpl
def luthier_architectures():
    return [tiny]
'''


@pytest.fixture
def recipe(tmp_path, monkeypatch, tiny, examples):
    """A recipe that tunes the tiny model, given the parameters of `lora`."""
    (tmp_path / "plugins.d").mkdir()
    (tmp_path / "plugins.d" / "tiny.py").write_text(PLUGIN)
    monkeypatch.setenv("LUTHIER_PLUGINS", "tune,models,tiny")
    monkeypatch.delenv("LUTHIER_HOME", raising=False)
    monkeypatch.chdir(tmp_path)

    def make(**parameters):
        parameters = {"rank": 2, "valid_examples": 4, "warmup_steps": 1} | parameters
        return (
            luthier.Recipe("search")
            .step("source", "examples", path=str(examples.path / "shard-00000.parquet"))
            .step("architecture", "tiny", path=str(tiny.path))
            .step("tune", "lora", **parameters)
        )

    return make


def test_the_rate_that_learns_is_chosen_and_one_that_diverges_is_lost(recipe):
    rates = [1e-6, 5e-3, 1e30]
    found = luthier.run(recipe(learning_rate=rates, max_steps=12), display=False, jobs=1)
    search = found.step("lora").search
    assert [(trial.values["learning_rate"], trial.budget, trial.state) for trial in search.trials] == [
        (1e-6, 4, "done"),
        (5e-3, 4, "done"),
        (1e30, 4, "failed"),
        (5e-3, 12, "done"),
    ]
    assert "diverged" in search.failures()[0]
    assert search.chosen == {"learning_rate": 5e-3}
    assert found.metrics["lora"]["steps"] == 12
    alone = luthier.run(recipe(learning_rate=5e-3, max_steps=12), display=False, jobs=1)
    assert alone.step("lora").cached
    assert alone.step("lora").artifact == found.step("lora").artifact


def test_what_is_not_validated_is_not_compared(recipe):
    with pytest.raises(luthier.InputError, match="valid_examples is 0, and candidates are compared on the valid"):
        luthier.plan(recipe(rank=[2, 4], valid_examples=0))
