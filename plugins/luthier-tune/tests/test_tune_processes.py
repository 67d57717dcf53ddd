"""Several processes compute what one would, and end together."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import polars as pl
import psutil
import pytest
from safetensors.torch import load_file

import luthier
import luthier_tune
from luthier import InputError, Job, LuthierError
from luthier.artifacts import build_manifest
from luthier.testing import arguments, make_context
from luthier_tune.activations import ActivationCache
from luthier_tune.distributed import Group

CONFIG = {"learning_rate": 5e-3, "valid_examples": 3, "warmup_steps": 1, "checkpoint_minutes": 0.0, "evaluate_every": 2}
# Of 20 examples: every other step has a single one, and the second process nothing to do.
BATCHES = {"batch_size": 19, "max_steps": 6}


def alone(tuner, directory, model, data, **config):
    ctx = make_context(directory, seed=3)
    tuner(model, data, ctx, **arguments(tuner, **(CONFIG | config)))
    return ctx


def job(tuner, directory, model, data, processes=2, device="cpu", local_plugins=(), **config) -> Job:
    """What the engine gives an executor."""
    ctx = make_context(directory)
    inputs = {
        name: {"kind": each.kind, "form": each.form, "path": str(each.path), "hash": each.hash}
        for name, each in {"model": model, "data": data}.items()
    }
    request = {
        "task": "directory",
        "stage": "tune",
        "component": tuner.__name__,
        "config": CONFIG | config | {"processes": processes},
        "inputs": inputs,
        "output": str(ctx.output),
        "notes": str(ctx.notes),
        "checkpoint": str(ctx.checkpoint),
        "seed": 3,
        "device": device,
    }
    return Job(processes, device, request, tuple(map(str, local_plugins)))


def together(tuner, directory, model, data, on_step=lambda step: None, **options) -> list[dict]:
    """Have a tuner's work done by processes of this machine; gives what they tell."""
    told = []
    for message in luthier_tune.local(job(tuner, directory, model, data, **options)):
        told.append(message)
        if message["type"] == "progress":
            on_step(message["done"])
        if message["type"] == "error":
            raise LuthierError(message["message"], message["remedy"])
    return told


def curve(directory):
    return pl.read_parquet(directory / "notes" / "tables" / "learning-curve.parquet")


def metrics(directory):
    return {each["name"]: each for each in json.loads((directory / "notes" / "metrics.json").read_text())}


def identity(directory):
    return build_manifest(directory / "output", "model", "causal-lm").hash


@pytest.fixture(autouse=True)
def only_these_plugins(monkeypatch):
    monkeypatch.setenv("LUTHIER_PLUGINS", "models,tune")
    monkeypatch.setenv("OMP_NUM_THREADS", "2")


@pytest.fixture
def started():
    """The processes that a test has started by now, the oldest first: servers of other tests may still run."""
    others = set(psutil.Process().children())
    return lambda: sorted(set(psutil.Process().children()) - others, key=lambda each: each.pid)


def test_two_processes_compute_what_one_would_also_after_one_died(tmp_path, tiny, examples, started):
    options = {"rank": 4, **BATCHES}
    one = alone(luthier_tune.lora, tmp_path / "one", tiny, examples, **options)
    told = together(luthier_tune.lora, tmp_path / "two", tiny, examples, **options)
    assert sorted(message["rank"] for message in told if message["type"] == "done") == [0, 1]
    assert [message["done"] for message in told if message["type"] == "progress"] == [1, 2, 3, 4, 5, 6]
    for name in ("loss", "gradient_norm", "tokens", "examples", "learning_rate"):
        expected = curve(tmp_path / "one")[name].to_list()
        assert curve(tmp_path / "two")[name].to_list() == pytest.approx(expected, rel=1e-5)
    got = metrics(tmp_path / "two")
    for name, metric in one.metrics.items():
        assert got[name]["value"] == pytest.approx(metric.value, rel=1e-5)
    assert got["valid_loss"]["per_example"] == pytest.approx(one.metrics["valid_loss"].per_example, rel=1e-5)
    expected = load_file(one.output / "adapter" / "adapter_model.safetensors")
    for name, value in load_file(tmp_path / "two" / "output" / "adapter" / "adapter_model.safetensors").items():
        assert value.numpy() == pytest.approx(expected[name].numpy(), rel=1e-3, abs=1e-4)

    def kill_the_second(step):
        if step == 3:
            started()[1].kill()

    with pytest.raises(LuthierError, match="process 1 of 2 was killed, as the system does where memory runs") as died:
        together(luthier_tune.lora, tmp_path / "died", tiny, examples, kill_the_second, **options)
    assert "run again to go on from it" in died.value.remedy
    assert started() == []
    again = together(luthier_tune.lora, tmp_path / "died", tiny, examples, **options)
    assert next(message["done"] for message in again if message["type"] == "progress") > 2
    assert identity(tmp_path / "died") == identity(tmp_path / "two")
    assert started() == []


def test_kept_activations_are_shared_by_the_processes(tmp_path, tiny, examples):
    options = {"top": 1, "activations": "float32", "learning_rate": 3e-3, **BATCHES}
    one = alone(luthier_tune.layers, tmp_path / "one", tiny, examples, **options)
    together(luthier_tune.layers, tmp_path / "two", tiny, examples, **options)
    losses = curve(tmp_path / "one")["loss"].to_list()
    assert curve(tmp_path / "two")["loss"].to_list() == pytest.approx(losses, rel=1e-5)
    expected = one.metrics["valid_loss"].value
    assert metrics(tmp_path / "two")["valid_loss"]["value"] == pytest.approx(expected, rel=1e-5)
    # All 20 and 3 examples are there, whichever process computed them.
    kept = tmp_path / "two" / "checkpoint" / "activations"
    assert (kept / "float32").stat().st_size == (tmp_path / "one" / "checkpoint/activations/float32").stat().st_size
    assert (kept / "index").read_bytes().count(b"\2") >= 20 + 3


def test_another_process_that_makes_the_file_of_activations_too_takes_nothing_away(tmp_path, monkeypatch):
    import logging

    import torch

    def cache():
        return ActivationCache(tmp_path, [3, 2], 4, "float32", logging.getLogger("test"))

    ours, others = cache(), cache()
    states = torch.randn(3, 4)
    ours.put(0, states)
    monkeypatch.setattr(Path, "is_file", lambda path: False)  # as if it had looked before we wrote
    others.put(1, states[:2])
    monkeypatch.undo()
    assert torch.equal(ours.get(0), states)
    assert torch.equal(ours.get(1), states[:2])


def test_an_error_of_the_processes_is_told(tmp_path, tiny, examples, started):
    wrong = job(luthier_tune.lora, tmp_path, tiny, examples, max_steps=1, targets=["q_prj"])
    messages = list(luthier_tune.local(wrong))
    assert messages[-1]["type"] == "error"
    assert "`targets` names 'q_prj'" in messages[-1]["message"]
    assert messages[-1]["refused"]
    assert started() == []


def test_more_processes_than_devices_are_refused(tmp_path, tiny, examples, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    monkeypatch.setenv("LOCAL_RANK", "1")
    ctx = make_context(tmp_path, device="cuda")
    ctx.processes = 2
    with pytest.raises(InputError, match="'cuda:1' was asked for, but PyTorch finds 1 CUDA devices"):
        luthier_tune.full(tiny, examples, ctx, **arguments(luthier_tune.full, processes=2, max_steps=1))


def test_processes_that_nobody_started_are_refused(tmp_path, tiny, examples):
    with pytest.raises(InputError, match="`processes` is 2, and 1 are there"):
        alone(luthier_tune.full, tmp_path, tiny, examples, processes=2, max_steps=1)


def test_an_error_waits_for_the_death_that_caused_it():
    """Who dies breaks the connections of the others, whose errors may be heard first."""
    import queue

    from luthier_tune.launching import _messages

    class Rank:
        def __init__(self, death=None):
            self._death = death

        def death(self):
            return self._death

    broken = {"type": "error", "exit_code": 3, "message": "RuntimeError: Connection closed by peer", "rank": 0}
    heard = queue.Queue()
    for each in [(0, {"type": "log"}), (0, broken), (0, None), (1, None)]:
        heard.put(each)
    told = _messages([Rank(), Rank(LuthierError("process 1 of 2 was killed"))], heard)
    assert next(told) == {"type": "log"}
    with pytest.raises(LuthierError, match="process 1 of 2 was killed"):
        next(told)
    refused = {"type": "error", "exit_code": 1, "message": "the data is empty", "rank": 1}
    for each in [(0, broken), (1, refused)]:
        heard.put(each)
    assert next(_messages([Rank(), Rank()], heard)) == refused
    for each in [(0, broken), (0, None), (1, None)]:
        heard.put(each)
    assert list(_messages([Rank(), Rank()], heard)) == [broken]


@pytest.fixture
def on_cpus(tmp_path, monkeypatch):
    """What lets processes shard a model over CPUs, which torch can do and users have no reason to."""
    plugin = tmp_path / "on_cpus.py"
    plugin.write_text("""
import luthier_tune.options
from luthier import hookimpl

luthier_tune.options.SHARDED_ON = ("cuda", "cpu")

@hookimpl
def luthier_tuners():
    return []
""")
    monkeypatch.setenv("LUTHIER_PLUGINS", "models,tune,on_cpus")
    return [plugin]


@pytest.mark.parametrize(
    ("tuner", "options"),
    [
        (luthier_tune.full, {"fsdp": {}, "learning_rate": 1e-3}),
        pytest.param(
            luthier_tune.lora,
            {"rank": 4, "fsdp": {"activation_checkpointing": True, "reshard_after_forward": False}},
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_sharded_model_learns_what_a_whole_one_does(tmp_path, tiny, examples, on_cpus, tuner, options):
    whole = alone(tuner, tmp_path / "one", tiny, examples, **{**options, "fsdp": None}, **BATCHES)
    told = together(tuner, tmp_path / "two", tiny, examples, local_plugins=on_cpus, **options, **BATCHES)
    [sizes] = [re.findall(r"\d+", each["message"]) for each in told if "is sharded over" in each.get("message", "")]
    _, part, everything = map(int, sizes)
    assert part < 0.51 * everything, "each process has half of the weights"
    for name in ("loss", "gradient_norm"):
        expected = curve(tmp_path / "one")[name].to_list()
        assert curve(tmp_path / "two")[name].to_list() == pytest.approx(expected, rel=1e-4)
    got = metrics(tmp_path / "two")
    for name, metric in whole.metrics.items():
        assert got[name]["value"] == pytest.approx(metric.value, rel=1e-4)
    expected = load_file(whole.output / "model.safetensors")
    written = load_file(tmp_path / "two" / "output" / "model.safetensors")
    assert written.keys() == expected.keys()
    for name, value in written.items():
        assert value.numpy() == pytest.approx(expected[name].numpy(), rel=1e-3, abs=1e-4)
    config = json.loads((tmp_path / "two" / "output" / "config.json").read_text())
    assert config["architectures"] == ["LlamaForCausalLM"]


@pytest.mark.slow
def test_a_sharded_training_goes_on_after_a_kill(tmp_path, tiny, examples, on_cpus, started):
    options = {"fsdp": {}, "learning_rate": 1e-3, "local_plugins": on_cpus, **BATCHES}
    together(luthier_tune.full, tmp_path / "undisturbed", tiny, examples, **options)

    def kill_one(step):
        if step == 3:
            started()[0].kill()

    with pytest.raises(LuthierError, match="was killed"):
        together(luthier_tune.full, tmp_path / "died", tiny, examples, kill_one, **options)
    again = together(luthier_tune.full, tmp_path / "died", tiny, examples, **options)
    assert next(message["done"] for message in again if message["type"] == "progress") > 2
    assert identity(tmp_path / "died") == identity(tmp_path / "undisturbed")


def test_sharding_is_for_gpus(tmp_path, tiny, examples):
    ctx = make_context(tmp_path)
    with pytest.raises(InputError, match="shards a model over GPUs, and the device is cpu") as told:
        luthier_tune.full(tiny, examples, ctx, **arguments(luthier_tune.full, processes=2, fsdp={}))
    assert "`processes` alone trains on CPUs" in told.value.remedy


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"fsdp": {}}, "`processes` is 1"),
        ({"processes": 2, "fsdp": {"auto_wrap_policy": "size_based_wrap"}}, "`min_num_params` and"),
        ({"processes": 2, "fsdp": {"reshard_after_foward": True}}, "did you mean 'reshard_after_forward'"),
        ({"processes": 2, "fsdp": {"cpu_offload": "yes"}}, "fsdp.cpu_offload"),
    ],
)
def test_a_wrong_sharding_is_found_while_planning(tmp_path, monkeypatch, config, told):
    recipe = {
        "luthier": 1,
        "steps": [
            {"source": "jsonl", "path": "rows.jsonl"},
            {"format": "prompt-completion", "prompt": "{a}", "completion": "{b}"},
            {"architecture": "pretrained", "model": "."},
            {"tune": "lora", **config},
        ],
    }
    monkeypatch.setenv("LUTHIER_PLUGINS", "text,models,tune")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.jsonl").write_text('{"a": "1", "b": "2"}\n')
    (tmp_path / "recipe.yaml").write_text(json.dumps(recipe))
    with pytest.raises(LuthierError, match=told):
        luthier.plan(tmp_path / "recipe.yaml")


@pytest.mark.slow
def test_minutes_end_for_all_processes_at_once(tmp_path, tiny, examples):
    told = together(luthier_tune.full, tmp_path, tiny, examples, max_minutes=0.02)
    steps = [message["done"] for message in told if message["type"] == "progress"]
    assert steps[-1] == metrics(tmp_path)["steps"]["value"] == len(steps)


def test_items_are_dealt_out():
    dealt = [Group(rank, 3).share(range(8)) for rank in range(3)]
    assert sorted(number for part in dealt for number in part) == list(range(8))
    assert Group().share([1, 2]) == [1, 2]


@pytest.mark.slow
def test_torchrun_starts_the_processes(tmp_path, tiny, examples):
    alone(luthier_tune.lora, tmp_path / "one", tiny, examples, rank=4, **BATCHES)
    script = tmp_path / "script.py"
    script.write_text(f"""
import pathlib, luthier_tune
from luthier import Dataset, Model
from luthier.testing import arguments, make_context
ctx = make_context(pathlib.Path({str(tmp_path / "two")!r}), seed=3)
luthier_tune.lora(
    Model.at(pathlib.Path({str(tiny.path)!r}), "causal-lm", {tiny.hash!r}),
    Dataset.at(pathlib.Path({str(examples.path)!r}), "prompt-completion"),
    ctx, **arguments(luthier_tune.lora, rank=4, **{CONFIG | BATCHES!r}))
""")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    subprocess.run(command, check=True)
    losses = curve(tmp_path / "two")["loss"]
    assert losses.to_list() == pytest.approx(curve(tmp_path / "one")["loss"].to_list(), rel=1e-5)
    assert (tmp_path / "two" / "output" / "model.safetensors").exists()
