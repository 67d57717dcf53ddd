"""Several processes compute what one would."""

from __future__ import annotations

import json
import subprocess
import sys

import polars as pl
import psutil
import pytest
import torch
from safetensors.torch import load_file

import luthier_tune
from luthier import InputError, LuthierError
from luthier.artifacts import build_manifest
from luthier.testing import arguments, make_context
from luthier_tune.adapters import AdapterSettings
from luthier_tune.distillation import Mixture
from luthier_tune.distributed import Group
from luthier_tune.options import Training
from luthier_tune.processes import _decode, _encode
from luthier_tune.prompt_tuning import PromptSettings
from luthier_tune.rescaling import FactorSettings

CONFIG = {"learning_rate": 5e-3, "valid_examples": 3, "warmup_steps": 1, "checkpoint_minutes": 0.0, "evaluate_every": 2}
# Of 20 examples: every other step has a single one, and the second process nothing to do.
BATCHES = {"batch_size": 19, "max_steps": 6}


def tune(tuner, directory, model, data, on_step=lambda step: None, **config):
    ctx = make_context(directory, seed=3)
    emit = ctx._emit

    def listen(event):
        emit(event)
        on_step(event["done"])

    ctx._emit = listen
    tuner(model, data, ctx, **arguments(tuner, **(CONFIG | config)))
    return ctx


def curve(ctx):
    return pl.read_parquet(ctx.notes / "tables" / "learning-curve.parquet")


def identity(ctx):
    return build_manifest(ctx.output, "model", "causal-lm").hash


def test_two_processes_compute_what_one_would_also_after_one_died(tmp_path, tiny, examples):
    options = {"rank": 4, **BATCHES}
    threads = torch.get_num_threads()
    one = tune(luthier_tune.lora, tmp_path / "one", tiny, examples, **options)
    two = tune(luthier_tune.lora, tmp_path / "two", tiny, examples, processes=2, **options)
    for name in ("loss", "gradient_norm", "tokens", "examples", "learning_rate"):
        assert curve(two)[name].to_list() == pytest.approx(curve(one)[name].to_list(), rel=1e-5)
    for name, metric in one.metrics.items():
        assert two.metrics[name].value == pytest.approx(metric.value, rel=1e-5)
    assert two.metrics["valid_loss"].per_example == pytest.approx(one.metrics["valid_loss"].per_example, rel=1e-5)
    expected = load_file(one.output / "adapter" / "adapter_model.safetensors")
    got = load_file(two.output / "adapter" / "adapter_model.safetensors")
    for name, value in expected.items():
        torch.testing.assert_close(got[name], value, atol=1e-4, rtol=1e-3)

    def kill_the_other(step):
        if step == 3:
            (child,) = psutil.Process().children()
            child.kill()

    with pytest.raises(LuthierError, match="process 2 of 2 of the training ended with status -9") as died:
        tune(luthier_tune.lora, tmp_path / "died", tiny, examples, kill_the_other, processes=2, **options)
    assert "goes on from the last checkpoint" in died.value.remedy
    again = tune(luthier_tune.lora, tmp_path / "died", tiny, examples, processes=2, **options)
    assert again.events[0]["done"] > 2
    assert identity(again) == identity(two)
    assert psutil.Process().children() == []
    assert torch.get_num_threads() == threads


def test_minutes_end_for_all_processes_at_once(tmp_path, tiny, examples, monkeypatch):
    now = iter(range(1_000_000))
    monkeypatch.setattr("luthier_tune.training.time.monotonic", lambda: next(now) / 10)
    ctx = tune(luthier_tune.full, tmp_path, tiny, examples, processes=2, max_minutes=0.1)
    assert 5 < ctx.metrics["steps"].value < 60
    assert ctx.events[-1]["total"] == ctx.metrics["steps"].value


def test_cached_activations_are_for_one_process(tmp_path, tiny, examples):
    with pytest.raises(LuthierError, match="`processes` is 2, and this tuner trains in one"):
        tune(luthier_tune.layers, tmp_path, tiny, examples, processes=2, max_steps=1, top=1)


def test_more_processes_than_devices_are_refused(tmp_path, tiny, examples, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    with pytest.raises(InputError, match="'cuda:1' was asked for, but PyTorch finds 1 CUDA devices"):
        luthier_tune.full(
            tiny,
            examples,
            make_context(tmp_path, device="cuda"),
            **arguments(luthier_tune.full, processes=2, max_steps=1),
        )


@pytest.mark.parametrize(
    "value",
    [
        AdapterSettings(rank=3, alpha=2.0, targets=["q_proj"], ranks={"q_proj": 2}),
        Mixture(temperature=2.0, teacher_weight=0.5),
        FactorSettings(),
        PromptSettings(tokens=4),
        Training(max_minutes=0.1),
        None,
    ],
)
def test_what_a_process_is_given_arrives_whole(value):
    assert _decode(json.loads(json.dumps(_encode(value)))) == value


def test_items_are_dealt_out():
    dealt = [Group(rank, 3).share(range(8)) for rank in range(3)]
    assert sorted(number for part in dealt for number in part) == list(range(8))
    assert Group().share([1, 2]) == [1, 2]


@pytest.mark.slow
def test_torchrun_starts_the_processes(tmp_path, tiny, examples):
    one = tune(luthier_tune.lora, tmp_path / "one", tiny, examples, rank=4, **BATCHES)
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
    losses = pl.read_parquet(tmp_path / "two" / "notes" / "tables" / "learning-curve.parquet")["loss"]
    assert losses.to_list() == pytest.approx(curve(one)["loss"].to_list(), rel=1e-5)
    assert (tmp_path / "two" / "output" / "model.safetensors").exists()
