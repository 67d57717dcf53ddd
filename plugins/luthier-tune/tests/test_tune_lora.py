"""The tuner as a whole, on a tiny model."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time

import polars as pl
import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

import luthier_tune
from luthier import InputError
from luthier.artifacts import build_manifest
from luthier.testing import arguments, make_context
from luthier_tune.checkpoint import NAME, load_checkpoint

CONFIG = {"rank": 4, "learning_rate": 5e-3, "valid_examples": 4}


def tuned(directory, model, data, **config):
    """Tune into `directory` and give the context; a second call resumes."""
    ctx = make_context(directory, seed=3)
    luthier_tune.lora(model, data, ctx, **arguments(luthier_tune.lora, **(CONFIG | config)))
    return ctx


def identity(ctx):
    return build_manifest(ctx.output, "model", "causal-lm").hash


def curve(ctx):
    return pl.read_parquet(ctx.notes / "tables" / "learning-curve.parquet")


def test_importing_the_plugin_loads_no_heavy_library():
    heavy = ["torch", "transformers", "peft", "polars", "pyarrow", "numpy", "pydantic", "safetensors"]
    code = f"import luthier_tune, sys; print([m for m in {heavy} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_it_learns_and_keeps_the_adapter_beside_the_merged_model(tmp_path, tiny, examples):
    ctx = tuned(tmp_path, tiny, examples, max_epochs=8)
    values = {name: metric.value for name, metric in ctx.metrics.items()}
    assert values["steps"] == 40
    assert values["examples"] == 160
    assert values["valid_loss"] < values["valid_loss_before"] - 1
    assert curve(ctx).columns[:4] == ["step", "loss", "learning_rate", "seconds"]
    assert curve(ctx)["loss"][-5:].mean() < curve(ctx)["loss"][:5].mean() - 1
    ids = torch.tensor([[1, 30, 40, 50, 60]])
    with torch.no_grad():
        merged = AutoModelForCausalLM.from_pretrained(ctx.output)(ids).logits
        base = AutoModelForCausalLM.from_pretrained(tiny.path)
        before = base(ids).logits
        adapted = PeftModel.from_pretrained(base, ctx.output / "adapter")(ids).logits
    torch.testing.assert_close(merged, adapted, atol=1e-4, rtol=1e-4)
    assert float((merged - before).abs().max()) > 0.1
    assert (ctx.output / "chat_template.jinja").read_bytes() == (tiny.path / "chat_template.jinja").read_bytes()
    assert {"tokenizer.json", "generation_config.json", "config.json"} <= {p.name for p in ctx.output.iterdir()}


def test_the_bytes_depend_on_nothing_but_the_inputs(tmp_path, tiny, examples):
    options = {"max_steps": 7, "dropout": 0.1, "evaluate_every": 2}
    first = tuned(tmp_path / "a", tiny, examples, **options)
    # A worker that did other things before, with another random state.
    torch.manual_seed(99)
    state = torch.rand(5) is not None and torch.get_rng_state()
    second = tuned(tmp_path / "b", tiny, examples, **options)
    assert identity(first) == identity(second)
    assert torch.equal(torch.get_rng_state(), state)
    assert identity(tuned(tmp_path / "c", tiny, examples, **options | {"dropout": 0.2})) != identity(first)


class Killed(BaseException):
    pass


@pytest.mark.parametrize("stop_at", [1, 4, 6])
def test_a_killed_step_goes_on_with_the_same_losses_and_bytes(tmp_path, tiny, examples, stop_at):
    options = {"max_steps": 8, "dropout": 0.1, "checkpoint_minutes": 0.0, "evaluate_every": 3}
    whole = tuned(tmp_path / "whole", tiny, examples, **options)
    ctx = make_context(tmp_path / "killed", seed=3)

    def emit(event):
        if event["type"] == "progress" and event["done"] == stop_at:
            raise Killed

    ctx._emit = emit
    with pytest.raises(Killed):
        luthier_tune.lora(tiny, examples, ctx, **arguments(luthier_tune.lora, **(CONFIG | options)))
    resumed = tuned(tmp_path / "killed", tiny, examples, **options)
    assert resumed.events[0]["done"] == max(stop_at, 1)
    assert curve(resumed)["loss"].to_list() == curve(whole)["loss"].to_list()
    assert identity(resumed) == identity(whole)
    assert resumed.metrics["valid_loss"] == whole.metrics["valid_loss"]


def test_sigkill_of_the_process_loses_nothing(tmp_path, tiny, examples):
    options = CONFIG | {"max_steps": 60, "checkpoint_minutes": 0.0}
    code = f"""
import pathlib, luthier_tune
from luthier import Dataset, Model
from luthier.testing import arguments, make_context
import torch; torch.set_num_threads({torch.get_num_threads()})
luthier_tune.lora(
    Model.at(pathlib.Path({str(tiny.path)!r}), "causal-lm", {tiny.hash!r}),
    Dataset.at(pathlib.Path({str(examples.path)!r}), "prompt-completion"),
    make_context(pathlib.Path({str(tmp_path / "killed")!r}), seed=3), **arguments(luthier_tune.lora, **{options!r}))
"""
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    checkpoint = tmp_path / "killed" / "checkpoint" / NAME
    while not checkpoint.exists() and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (tmp_path / "killed" / "output" / "config.json").exists()
    resumed = tuned(tmp_path / "killed", tiny, examples, **options)
    assert resumed.events[0]["done"] > 1
    assert identity(resumed) == identity(tuned(tmp_path / "whole", tiny, examples, **options))


def test_a_damaged_checkpoint_is_no_reason_to_fail(tmp_path, tiny, examples):
    (tmp_path / "a" / "checkpoint").mkdir(parents=True)
    (tmp_path / "a" / "checkpoint" / NAME).write_bytes(b"\x10" * 40)
    ctx = tuned(tmp_path / "a", tiny, examples, max_steps=3)
    assert identity(ctx) == identity(tuned(tmp_path / "b", tiny, examples, max_steps=3))


@pytest.mark.parametrize(("config", "warned"), [({"max_steps": 5}, True), ({"max_steps": 6}, False)])
def test_a_budget_that_is_all_warm_up_is_warned_of(tmp_path, tiny, examples, caplog, config, warned):
    tuned(tmp_path, tiny, examples, **config)
    assert ("the learning rate rises for 5" in caplog.text) == warned


def test_minutes_become_steps_that_can_be_repeated(tmp_path, tiny, examples, monkeypatch):
    # Each look at the clock takes a tenth of a second.
    now = iter(range(1_000_000))
    monkeypatch.setattr("luthier_tune.training.time.monotonic", lambda: next(now) / 10)
    ctx = tuned(tmp_path / "minutes", tiny, examples, max_minutes=0.1)
    steps = int(ctx.metrics["steps"].value)
    assert 5 < steps < 60
    assert ctx.events[0]["total"] is None
    assert ctx.events[-1]["total"] == steps
    assert identity(ctx) == identity(tuned(tmp_path / "steps", tiny, examples, max_steps=steps))


def test_resuming_a_budget_in_minutes_keeps_the_steps_it_settled_on(tmp_path, tiny, examples, monkeypatch):
    now = iter(range(1_000_000))
    monkeypatch.setattr("luthier_tune.training.time.monotonic", lambda: next(now) / 10)
    ctx = make_context(tmp_path, seed=3)
    totals = []

    def emit(event):
        # What is shown before is an estimate; a total that is settled is written down at once.
        totals.append(event["total"])
        if (ctx.checkpoint / NAME).exists():
            raise Killed

    ctx._emit = emit
    with pytest.raises(Killed):
        luthier_tune.lora(tiny, examples, ctx, **arguments(luthier_tune.lora, **CONFIG, max_minutes=0.1))
    # Ten times slower now; the number of steps stays.
    monkeypatch.setattr("luthier_tune.training.time.monotonic", lambda: float(next(now)))
    assert tuned(tmp_path, tiny, examples, max_minutes=0.1).metrics["steps"].value == totals[-1]


def test_language_modelling_without_validation(tmp_path, tiny, make_dataset, rows):
    data = make_dataset(rows().filter(pl.col("split") == "train"), "language-modelling")
    ctx = tuned(tmp_path, tiny, data, max_steps=3, max_length=16)
    assert "valid_loss" not in ctx.metrics
    assert ctx.metrics["tokens"].value <= 3 * 4 * 16


def test_no_example_is_longer_than_the_context(tmp_path, tiny, make_dataset, rows, caplog):
    data = make_dataset(rows().with_columns(text=pl.lit("word " * 2000)), "language-modelling")
    ctx = tuned(tmp_path, tiny, data, max_steps=2, max_length=4000)
    assert "max_length is 4000, and the model has positions for 512 tokens only" in caplog.text
    assert 0 < ctx.metrics["tokens"].value <= 2 * 4 * 512


def test_examples_that_are_left_out_are_told_of(tmp_path, tiny, make_dataset, rows, caplog):
    some = pl.when(pl.col("id") == "e1").then(pl.lit("word " * 600)).otherwise(pl.col("completion"))
    tuned(tmp_path, tiny, make_dataset(rows().with_columns(completion=some)), max_steps=1)
    assert "1 of 20 training examples are left out: their completions are empty, or longer than 512" in caplog.text


def test_named_layers_only(tmp_path, tiny, examples):
    ctx = tuned(tmp_path, tiny, examples, max_steps=1, targets=["q_proj"])
    config = json.loads((ctx.output / "adapter" / "adapter_config.json").read_text())
    assert config["target_modules"] == ["q_proj"]
    assert str(tmp_path) not in (ctx.output / "adapter" / "adapter_config.json").read_text()


def with_completion(frame, value):
    return frame.with_columns(pl.lit(value).alias("completion"))


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (lambda rows: rows.filter(pl.col("split") == "valid"), {}, "no rows in the split `train`"),
        (lambda rows: with_completion(rows, " "), {}, "none of the 20 training examples"),
        (lambda rows: with_completion(rows, "word " * 600), {}, "none of the 20 training examples"),
        (lambda rows: rows, {"targets": ["nowhere"]}, "nowhere"),
        (lambda rows: rows, {"learning_rate": 1e30, "max_steps": 20}, "diverged"),
    ],
)
def test_what_cannot_be_used_is_explained(tmp_path, tiny, make_dataset, rows, change, options, message):
    with pytest.raises(InputError, match=message) as caught:
        tuned(tmp_path, tiny, make_dataset(change(rows())), **options)
    assert caught.value.remedy


def test_a_gpu_that_is_not_there(tmp_path, tiny, examples, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(InputError, match="no CUDA device"):
        luthier_tune.lora(
            tiny, None, make_context(tmp_path, device="cuda"), **arguments(luthier_tune.lora, max_steps=1)
        )  # before anything is read: there is no data


def test_a_checkpoint_of_other_layers_is_not_used(tmp_path, tiny, examples):
    ctx = tuned(tmp_path, tiny, examples, max_steps=1, checkpoint_minutes=0.0)
    parameter = torch.nn.Parameter(torch.zeros(1))
    assert load_checkpoint(ctx.checkpoint, {"other": parameter}, torch.optim.AdamW([parameter]), {}) is None


def test_the_contract_is_kept():
    from luthier.core_stages import STAGES
    from luthier.registering import read_component

    stage = next(stage for stage in STAGES if stage.name == "tune")
    component = read_component(luthier_tune.lora, stage, distribution="luthier-tune", version="0", plugin="tune")
    assert component.name == "lora"
    assert component.canonical({"rank": 8})["rank"] == 8
    assert component.canonical({"targets": ["q_proj"]})["targets"] == ["q_proj"]
