"""The quickstart's own recipe, made small: real docstrings, the real model, every stage, the command line."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

RECIPE = Path(__file__).parents[1] / "examples" / "quickstart" / "recipe.yaml"
SMALL = {
    "docstrings.packages": [
        "click",
        "rich",
        "typer",
        "pydantic",
        "filelock",
        "hypothesis",
        "fsspec",
        "jinja2",
        "httpx2",
    ],
    "docstrings.per_package": 30,
    "summarization.split.test": 0.3,
    "summarization.split.valid": 0.2,
    "summarization.split.by": "source",
    "summarization.split.salt": "13",
    "lora.max_minutes": None,
    "lora.max_steps": 2,
    "lora.max_length": 128,
    "lora.valid_examples": 2,
    "rouge.max_examples": 3,
    "rouge.max_new_tokens": 8,
    "parity.max_examples": 3,
    # Two steps teach nothing: this gate must refuse, and that one hold.
    "rouge.gate.rougeL": [{"at_least": "base + 0.9"}],
    "parity.gate.top1_agreement.at_least": 0.5,
    "parity.gate.mean_kl.at_most": 0.1,
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("end-to-end")


def luthier(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from luthier.cli import main; main()", *arguments]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LUTHIER_")}
    environment["LUTHIER_HOME"] = str(home)
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def run_small(home: Path) -> subprocess.CompletedProcess[str]:
    changes = [part for name, value in SMALL.items() for part in ("--set", f"{name}={json.dumps(value)}")]
    return luthier(home, "run", str(RECIPE), *changes)


def test_the_quickstart_made_small_runs_through_every_stage(home):
    finished = run_small(home)
    assert finished.returncode == 4, finished.stderr
    assert "rougeL" in finished.stderr
    shown = json.loads(luthier(home, "runs", "show", "latest", "--json").stdout)
    assert shown["state"] == "refused"
    assert {step["state"] for step in shown["steps"]} == {"done"}
    metrics = {step["id"]: step["metrics"] for step in shown["steps"]}
    assert metrics["lora"]["steps"] == 2
    assert {"rougeL", "base.rougeL"} <= set(metrics["rouge"])
    assert metrics["parity"]["mean_kl"] < 0.1
    gates = {(gate["step"], gate["metric"]): gate["passed"] for gate in shown["gates"]}
    assert gates == {("rouge", "rougeL"): False, ("parity", "mean_kl"): True, ("parity", "top1_agreement"): True}
    run = home / "runs" / shown["id"]
    assert not (run / "model").exists()
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "rougeL" in page
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", page)


def test_a_second_run_does_nothing_and_is_refused_again(home):
    again = run_small(home)
    assert again.returncode == 4
    assert len(list((home / "runs").iterdir())) == 1


def test_the_base_and_the_exported_model_answer(home):
    shown = json.loads(luthier(home, "runs", "show", "latest", "--json").stdout)
    base = next(step["artifact"] for step in shown["steps"] if step["id"] == "pretrained")
    question = ("What is the capital of France?", "--max-new-tokens", "12")
    known = luthier(home, "generate", str(home / "objects" / base / "content"), *question)
    assert known.returncode == 0, known.stderr
    assert "Paris" in known.stdout
    # After two steps of another task it may say anything; it must say something.
    exported = luthier(home, "generate", "latest", *question)
    assert exported.returncode == 0, exported.stderr
    assert exported.stdout.strip()
