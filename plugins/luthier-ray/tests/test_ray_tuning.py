"""The same recipe on a Ray cluster of this machine's and in one process gives the same model; a death loses nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest
from safetensors.torch import load_file

import luthier

pytestmark = pytest.mark.slow

WORDS = ["table", "row", "file", "array", "format", "read", "write", "number", "name", "value"]
RECIPE = """
luthier: 1
name: tuned
seed: 3
steps:
  - source: jsonl
    path: examples.jsonl
  - format: prompt-completion
    prompt: "Summarize in one line: {{text}}"
    completion: "{{summary}}"
    split: {{valid: 0.2, test: 0.1}}
  - architecture: pretrained
    model: {model}
  - tune: lora
    rank: 4
    max_steps: {steps}
    batch_size: 8
    valid_examples: 4
    warmup_steps: 1
    checkpoint_minutes: 0.0
    {more}
"""
ON_RAY = "processes: 2\n    executor: {name: ray, address: local}"


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    from luthier_models.testing import write_tiny_model

    return write_tiny_model(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture
def tune(tmp_path, model, monkeypatch):
    """Run the recipe in the test's folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LUTHIER_PLUGINS", "text,models,tune,ray")
    texts = [" ".join(WORDS[(i * 7 + j * 3) % len(WORDS)] for j in range(3 + i % 9)) for i in range(40)]
    rows = [{"text": f"{i} {text}", "summary": f"The {text.split()[0]} of {i}."} for i, text in enumerate(texts)]
    (tmp_path / "examples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def call(more: str = "", steps: int = 6, **options) -> luthier.Run:
        recipe = tmp_path / "recipe.yaml"
        recipe.write_text(RECIPE.format(model=model, more=more, steps=steps))
        return luthier.run(recipe, display=False, jobs=1, device="cpu", **options)

    call.model = model
    return call


def losses(run: luthier.Run) -> list[float]:
    report = run.report("lora")
    assert report
    return report.table("learning-curve")["loss"].to_list()


def test_a_cluster_computes_what_one_process_does(tune):
    one = tune()
    two = tune(ON_RAY)
    assert losses(two) == pytest.approx(losses(one), rel=1e-5)
    assert two.metrics["lora"] == pytest.approx(one.metrics["lora"], rel=1e-5)
    expected = load_file(one.model().path / "adapter" / "adapter_model.safetensors")
    for name, value in load_file(two.model().path / "adapter" / "adapter_model.safetensors").items():
        assert value.numpy() == pytest.approx(expected[name].numpy(), rel=1e-3, abs=1e-4)
    # Nothing of Ray's is left in the store, and nothing runs on.
    assert not list(two.path.parents[1].glob("work/*"))


def test_a_process_that_dies_is_told_and_the_step_goes_on_from_its_checkpoint(tune, tmp_path):
    whole = tune("processes: 2", steps=40)
    killed = threading.Thread(target=kill_one_once, args=(tmp_path,))
    killed.start()
    with pytest.raises(luthier.LuthierError, match=r"process \d of 2 died in the middle of its work: .*died"):
        tune(ON_RAY, steps=40, force=["lora"])
    killed.join()
    begun = time.time()
    again = tune(ON_RAY, steps=40, force=["lora"])
    events = [json.loads(line) for line in (again.path / "events.jsonl").read_text().splitlines()]
    steps = [event["done"] for event in events if event["type"] == "step_progress" and event["time"] > begun]
    assert steps[0] > 1
    assert losses(again) == pytest.approx(losses(whole), rel=1e-5)


def kill_one_once(project: Path) -> None:
    """Kill the second worker, once there is a checkpoint."""
    while not list(project.glob(".luthier/work/*/checkpoint/training.safetensors")):
        time.sleep(0.05)
    workers = [each for each in psutil.process_iter() if any("RayTrainWorker" in word for word in each.cmdline())]
    second = max(workers, key=lambda each: each.create_time())
    os.kill(second.pid, signal.SIGKILL)


@pytest.fixture
def command(tune, tmp_path):
    """Start a run of the recipe in the test's folder as a command of its own."""
    started: list[subprocess.Popen[str]] = []

    def call(more: str, steps: int) -> subprocess.Popen[str]:
        (tmp_path / "recipe.yaml").write_text(RECIPE.format(model=tune.model, more=more, steps=steps))
        arguments = ["run", "recipe.yaml", "--device", "cpu", "--jobs", "1"]
        process = subprocess.Popen(
            [sys.executable, "-c", "from luthier.cli import main; main()", *arguments],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield call
    for process in started:
        process.kill()
        process.communicate()


def of_ray() -> set[int]:
    """The processes of any Ray: its servers, its agents, its workers."""
    found = set()
    for each in psutil.process_iter(["cmdline", "name"]):
        words = [each.info["name"] or "", *(each.info["cmdline"] or [])]
        if any(mark in word for word in words for mark in ("raylet", "gcs_server", "ray::", "/ray/_private/")):
            found.add(each.pid)
    return found


def wait_until(condition, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end and not condition():
        time.sleep(0.1)
    return bool(condition())


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_a_command_that_is_ended_ends_its_cluster(command, tmp_path, sent):
    before = of_ray()
    process = command(ON_RAY, steps=100_000)
    assert wait_until(lambda: list(tmp_path.glob(".luthier/work/*/checkpoint/training.safetensors")), 400)
    assert of_ray() - before
    process.send_signal(sent)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    assert wait_until(lambda: not of_ray() - before, 60)
