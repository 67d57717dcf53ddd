"""The real conflict: transformers 4 plugins in one recipe with tuning on transformers 5."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from luthier import distributions, environments

EXAMPLES = Path(__file__).parents[1] / "examples"
QUICKSTART = EXAMPLES / "quickstart" / "recipe.yaml"
PLANNED = """
import json, sys
import luthier
print(json.dumps({each.node.id: each.node.environment for each in luthier.plan(sys.argv[1])}))
"""
RECIPE = """
luthier: 1
name: two-transformers
seed: 3
steps:
  - source: jsonl
    path: data.jsonl
  - format: summarization
    prompt: "Say it: {text}"
    target: summary
    split: {valid: 0.2, test: 0.2}
  - architecture: pretrained
    model: model
  - tune: TUNER
    max_steps: 2
    batch_size: 2
  - export: optimum
  - validate: parity
    max_examples: 3
    gate:
      mean_kl: {at_most: 1.0e-6}
      top1_agreement: {at_least: 0.99}
"""


def install_example(directory: Path) -> dict[str, str]:
    """Put the example beside the main environment; the environment variables that find it there."""
    quietly = ["install", "--quiet", "--no-deps", "--no-build-isolation"]
    source = EXAMPLES / "tuner-trl"
    command = [sys.executable, "-m", "pip", *quietly, "--target", str(directory), str(source)]
    subprocess.run(command, check=True)
    variables = {name: value for name, value in os.environ.items() if not name.startswith("LUTHIER_")}
    return {**variables, "PYTHONPATH": os.pathsep.join(filter(None, (str(directory), os.environ.get("PYTHONPATH"))))}


class Project:
    def __init__(self, directory: Path) -> None:
        from luthier_models.testing import write_tiny_model

        self.directory = directory
        # A base of the rotary embedding that is not the default: transformers 4 would lose it in silence.
        write_tiny_model(directory / "model", rope_theta=100.0)
        rows = [{"text": f"the table number {n} " * (1 + n % 4), "summary": f"table {n}"} for n in range(60)]
        (directory / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        self._variables = install_example(directory / "path") | {"LUTHIER_CACHE": str(directory / "cache")}

    def luthier(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", "from luthier.cli import main; main()", *arguments],
            cwd=self.directory,
            env=self._variables,
            capture_output=True,
            text=True,
            check=False,
        )

    def run(self, tuner: str) -> dict[str, Any]:
        (self.directory / "recipe.yaml").write_text(RECIPE.replace("TUNER", tuner))
        done = self.luthier("run", "recipe.yaml", "--build-environments")
        assert done.returncode == 0, done.stderr[-3000:]
        shown: dict[str, Any] = json.loads(self.luthier("runs", "show", "latest", "--json").stdout)
        return shown


def versions() -> dict[str, str]:
    return {name: found.version for name, found in distributions.distributions_in().items()}


def main_environment() -> dict[str, object]:
    """The RECORD of each distribution, and the size and time of change of each file but Python's caches."""
    state: dict[str, object] = {
        name: distributions.record_hash(found) for name, found in distributions.distributions_in().items()
    }
    for site in {environments.site_of(Path(sys.prefix), scheme) for scheme in ("purelib", "platlib")}:
        for folder, below, names in os.walk(site):
            below[:] = [name for name in below if name != "__pycache__"]
            for path in (os.path.join(folder, name) for name in names):
                status = os.lstat(path)
                state[path] = (status.st_size, status.st_mtime_ns)
    return state


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return Project(tmp_path_factory.mktemp("conflicts"))


def test_the_quickstart_plans_with_the_tuner_on_an_older_trl(tmp_path: Path) -> None:
    text = QUICKSTART.read_text()
    assert text.count("tune: lora") == 1
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(text.replace("tune: lora", "tune: trl-sft"))
    variables = install_example(tmp_path / "path") | {"LUTHIER_CACHE": str(tmp_path / "cache")}
    command = [sys.executable, "-c", PLANNED, str(recipe)]
    planned = subprocess.run(command, cwd=tmp_path, env=variables, capture_output=True, text=True, check=False)
    assert planned.returncode == 0, planned.stderr
    places = json.loads(planned.stdout)
    assert {name: place for name, place in places.items() if place} == {"trl-sft": "luthier-trl"}


@pytest.mark.slow
@pytest.mark.parametrize("tuner", ["lora", "trl-sft"])
def test_plugins_on_transformers_4_work_in_a_recipe_on_transformers_5(project: Project, tuner: str) -> None:
    before, untouched = versions(), main_environment()
    run = project.run(tuner)
    assert run["state"] == "done"
    metrics = {step["id"]: step["metrics"] for step in run["steps"]}
    assert metrics["parity"]["mean_kl"] < 1e-6
    assert metrics[tuner]["train_loss"] > 0
    after = main_environment()
    assert {name for name in untouched.keys() | after.keys() if untouched.get(name) != after.get(name)} == set()
    built = json.loads(project.luthier("env", "list", "--json").stdout)["environments"]
    assert {each["plugin"] for each in built} >= {"luthier-optimum"}
    for each in built:
        assert each["own_bytes"] < 150e6
        assert each["installed"]["transformers"].startswith("4.57")
        assert before["transformers"].startswith("5.")
        assert each["linked"]["torch"] == before["torch"]
    completion = project.luthier("generate", "latest", "Say it: the table number 3", "--max-new-tokens", "4")
    assert completion.returncode == 0, completion.stderr
