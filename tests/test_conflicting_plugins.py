"""The real conflict: transformers 4 plugins in one recipe with tuning on transformers 5. Slow: two environments."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from luthier import environments

ROOT = Path(__file__).parents[1]
TRL = ROOT / "examples" / "tuner-trl" / "src"
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

pytestmark = pytest.mark.slow


class Project:
    def __init__(self, directory: Path) -> None:
        from luthier_models.testing import write_tiny_model

        self.directory = directory
        # A base of the rotary embedding that is not the default: transformers 4 would lose it in silence.
        write_tiny_model(directory / "model", rope_theta=100.0)
        rows = [{"text": f"the table number {n} " * (1 + n % 4), "summary": f"table {n}"} for n in range(60)]
        (directory / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        self._path = directory / "path"
        self._install_example()

    def _install_example(self) -> None:
        """Put the example beside the main environment, as an editable install of it would."""
        quietly = ["install", "--quiet", "--no-deps", "--no-build-isolation"]
        command = [sys.executable, "-m", "pip", *quietly, "--target", str(self._path), str(TRL.parent)]
        subprocess.run(command, check=True)

    def luthier(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("LUTHIER_")}
        environment |= {"LUTHIER_CACHE": str(self.directory / "cache"), "PYTHONPATH": str(self._path)}
        return subprocess.run(
            [sys.executable, "-c", "from luthier.cli import main; main()", *arguments],
            cwd=self.directory,
            env=environment,
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
    return {name: found.version for name, found in environments.distributions_in().items()}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return Project(tmp_path_factory.mktemp("conflicts"))


@pytest.mark.parametrize("tuner", ["lora", "trl-sft"])
def test_plugins_on_transformers_4_work_in_a_recipe_on_transformers_5(project: Project, tuner: str) -> None:
    before = versions()
    run = project.run(tuner)
    assert run["state"] == "done"
    metrics = {step["id"]: step["metrics"] for step in run["steps"]}
    assert metrics["parity"]["mean_kl"] < 1e-6
    assert metrics[tuner]["train_loss"] > 0
    assert versions() == before
    built = json.loads(project.luthier("env", "list", "--json").stdout)["environments"]
    assert {each["plugin"] for each in built} >= {"luthier-optimum"}
    for each in built:
        assert each["own_bytes"] < 150e6
        assert each["installed"]["transformers"].startswith("4.57")
        assert before["transformers"].startswith("5.")
        assert each["linked"]["torch"] == before["torch"]
    completion = project.luthier("generate", "latest", "Say it: the table number 3", "--max-new-tokens", "4")
    assert completion.returncode == 0, completion.stderr
