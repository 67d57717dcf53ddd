"""A project with a small recipe whose runs are logged, and MLflow's own view of them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from luthier.cli import app

PLUGIN = '''
import json, os
import polars as pl
from luthier import Location, component, hookimpl

def numbers(ctx, *, path: Location, prefix: str = "number"):
    """Numbers."""
    yield pl.DataFrame({"text": [f"{prefix} {word}" for word in ctx.open(path).read_text().split()]})

@component(gives="toy-lm")
def blank(ctx):
    """Nothing yet."""
    (ctx.output / "model.json").write_text("{}")

def learn(model, data, ctx, *, rates: dict[str, float] = {"first": 0.5}, good: float = 0.75):
    """Learn."""
    if os.environ.get("LEARN") == "fail":
        raise ValueError("the lights went out")
    (ctx.output / "model.json").write_text(json.dumps({"good": good}))
    ctx.metric("loss", 1.5)
    ctx.table("learning-curve", pl.DataFrame({"step": [1, 2, 3], "loss": [3.0, 2.0, None], "note": ["a", "b", "c"]}))
    ctx.table("validation-losses", pl.DataFrame({"step": [0, 3], "loss": [4.0, 1.5]}))

class Toy:
    def __init__(self, good):
        self.good = good
    def generate(self, prompts, *, max_new_tokens=128, stop=()):
        return [str(self.good) for _ in prompts]

def transformers(model):
    """Load."""
    return Toy(json.loads((model.path / "model.json").read_text()).get("good", 0.0))

def score(subject, ctx):
    """How good it is."""
    ctx.metric("goodness", float(subject.generate(["How good?"])[0]))

@hookimpl
def luthier_sources(): return [numbers]
@hookimpl
def luthier_architectures(): return [blank]
@hookimpl
def luthier_tuners(): return [learn]
@hookimpl
def luthier_runtimes(): return [transformers]
@hookimpl
def luthier_validators(): return [score]
@hookimpl
def luthier_run_finished(run):
    run.report_path.write_text("<h1>a report</h1>")
'''
RECIPE = """
luthier: 1
name: numbers
seed: 7
steps:
  - source: numbers
    path: words.txt
  - architecture: blank
  - tune: learn
  - validate: score
    gate:
      goodness: {at_least: base + 0.5}
"""


@pytest.fixture(scope="session")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty database of mlflow's; to make its tables takes seconds."""
    from luthier_mlflow._client import connect

    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    connect(f"sqlite:///{path.as_posix()}").search_experiments()
    return path


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, database: Path) -> Path:
    (tmp_path / "plugins.d").mkdir()
    (tmp_path / "plugins.d" / "little.py").write_text(PLUGIN)
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    (tmp_path / "words.txt").write_text("one two three")
    (tmp_path / ".luthier").mkdir()
    shutil.copy(database, tmp_path / ".luthier" / "mlflow.db")
    for name in [name for name in os.environ if name.startswith(("MLFLOW_", "LUTHIER_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("LUTHIER_PLUGINS", "mlflow,little")
    monkeypatch.setenv("LUTHIER_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def cli(project: Path) -> Callable[..., Any]:
    """Call `luthier ARGUMENTS…` in this process, in the project."""
    return lambda *arguments: CliRunner().invoke(app, [*arguments, "--jobs", "1", "--quiet"])


@pytest.fixture
def client(project: Path) -> Any:
    from luthier_mlflow._client import connect

    return connect(f"sqlite:///{(project / '.luthier' / 'mlflow.db').as_posix()}")


@pytest.fixture
def logged(client: Any) -> Callable[[], list[Any]]:
    """The runs in MLflow, oldest first."""

    def call() -> list[Any]:
        experiment = client.get_experiment_by_name("numbers")
        found = client.search_runs([experiment.experiment_id], order_by=["attributes.start_time"]) if experiment else []
        return list(found)

    return call
