"""DPO and KTO on a tiny model: what is learnt, what is refused, what survives."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest
import torch
from transformers import AutoModelForCausalLM

import luthier
import luthier_preference
from luthier import Dataset, InputError, Model
from luthier.artifacts import build_manifest
from luthier.nodes import RecipeError
from luthier.testing import arguments, make_context
from luthier_models.prompts import PromptEncoder
from luthier_preference.callback import CourseCallback
from luthier_preference.checkpoints import find_checkpoint, seal
from luthier_preference.examples import encode_split
from luthier_tune.checkpoint import Progress

COMPONENTS = {"dpo": luthier_preference.dpo, "kto": luthier_preference.kto}
FORMS = {"dpo": "preference", "kto": "unpaired-preference"}
CONFIG = {"learning_rate": 3e-3, "warmup_steps": 2, "rank": 4, "checkpoint_minutes": 100.0}


@pytest.fixture
def datasets(pairs, judgements) -> dict[str, Dataset]:
    return {"dpo": pairs, "kto": judgements}


def tuned(directory, name, model, data, **config):
    """Tune into `directory` and give the context; a second call resumes."""
    ctx = make_context(directory, seed=3)
    COMPONENTS[name](model, data, ctx, **arguments(COMPONENTS[name], **(CONFIG | config)))
    return ctx


def identity(ctx) -> str:
    return build_manifest(ctx.output, "model", "causal-lm").hash


def values(ctx) -> dict[str, float]:
    return {name: metric.value for name, metric in ctx.metrics.items()}


def log_probability(model, encoder: PromptEncoder, prompt: str, answer: str) -> float:
    """Of an answer after a prompt, without any of the code under test."""
    given, targets = encoder.pair(prompt, answer)
    with torch.no_grad():
        logits = model(torch.tensor([[*given, *targets]])).logits[0].log_softmax(1)
    return sum(float(logits[len(given) - 1 + place, target]) for place, target in enumerate(targets))


@pytest.mark.parametrize("liked", [True, False])
def test_thumbs_of_one_kind_are_warned_of(tmp_path, tiny, judgements, caplog, liked):
    frame = judgements.frame().with_columns(pl.lit(liked).alias("label"))
    (tmp_path / "data").mkdir()
    frame.write_parquet(tmp_path / "data" / "shard-00000.parquet")
    tuned(tmp_path / "run", "kto", tiny, Dataset.at(tmp_path / "data", "unpaired-preference"), max_steps=1)
    assert f"all training examples are {'liked' if liked else 'disliked'}" in caplog.text


@pytest.mark.parametrize("name", ["dpo", pytest.param("kto", marks=pytest.mark.slow)])
def test_what_people_prefer_becomes_likelier_on_held_out_prompts(tmp_path, tiny, datasets, pairs, name):
    ctx = tuned(tmp_path, name, tiny, datasets[name], max_steps=12, evaluate_every=5)
    told = values(ctx)
    assert told["reward_accuracy"] == 1.0
    assert told["reward_margin"] > 1.0
    assert told["steps"] == 12
    measured = luthier_table(ctx, "validation-losses")
    assert measured["step"].to_list() == [0, 5, 10, 12]
    assert measured["reward_margin"][0] == 0.0
    assert measured["reward_accuracy"][0] == 0.5
    # The written model has what was measured: beta times the change of the log-probabilities.
    encoder = PromptEncoder.from_directory(tiny.path)
    models = [AutoModelForCausalLM.from_pretrained(path).eval() for path in (tiny.path, ctx.output)]
    margins = []
    for row in pairs.frame("valid").to_dicts():
        old, new = (
            [log_probability(model, encoder, row["prompt"], row[kind]) for kind in ("chosen", "rejected")]
            for model in models
        )
        margins.append(0.1 * ((new[0] - old[0]) - (new[1] - old[1])))
    assert all(margin > 0 for margin in margins)
    if name == "dpo":
        assert told["reward_margin"] == pytest.approx(sum(margins) / len(margins), rel=1e-3)
        losses = [math.log1p(math.exp(-margin)) for margin in margins]
        assert told["valid_loss"] == pytest.approx(sum(losses) / len(losses), rel=1e-3)


def luthier_table(ctx, name):
    return pl.read_parquet(ctx.notes / "tables" / f"{name}.parquet")


@pytest.mark.parametrize("name", ["dpo", "kto"])
def test_the_result_is_a_whole_model_with_its_adapter(tmp_path, tiny, datasets, name):
    ctx = tuned(tmp_path, name, tiny, datasets[name], max_steps=2, valid_examples=0)
    assert {path.name for path in tiny.path.iterdir()} == {path.name for path in ctx.output.iterdir()} - {"adapter"}
    for file in ("config.json", "generation_config.json", "tokenizer.json", "chat_template.jinja"):
        assert (ctx.output / file).read_bytes() == (tiny.path / file).read_bytes(), file
    adapter = json.loads((ctx.output / "adapter" / "adapter_config.json").read_text())
    assert (adapter["r"], adapter["lora_alpha"], adapter["base_model_name_or_path"]) == (4, 8.0, tiny.hash)
    assert "reward_accuracy" not in values(ctx)


@pytest.mark.parametrize("name", ["dpo", pytest.param("kto", marks=pytest.mark.slow)])
@pytest.mark.parametrize("stop_at", [3, pytest.param(8, marks=pytest.mark.slow)])
def test_a_stopped_step_goes_on_to_the_same_bytes(tmp_path, tiny, datasets, monkeypatch, name, stop_at):
    options = {"max_steps": 9, "evaluate_every": 4}
    whole = tuned(tmp_path / "whole", name, tiny, datasets[name], **options)
    note = CourseCallback._note

    def stop(self, step, logs):
        if step == stop_at:
            raise KeyboardInterrupt
        note(self, step, logs)

    monkeypatch.setattr(CourseCallback, "_note", stop)
    with pytest.raises(KeyboardInterrupt):
        tuned(tmp_path / "again", name, tiny, datasets[name], checkpoint_minutes=0.0, **options)
    monkeypatch.undo()
    again = tuned(tmp_path / "again", name, tiny, datasets[name], **options)
    assert again.events[0]["done"] == stop_at
    assert identity(again) == identity(whole)
    assert values(again) == values(whole)
    assert luthier_table(again, "learning-curve")["loss"].to_list() == (
        luthier_table(whole, "learning-curve")["loss"].to_list()
    )


@pytest.mark.slow
def test_sigkill_of_the_process_loses_nothing(tmp_path, tiny, pairs):
    options = CONFIG | {"max_steps": 30, "checkpoint_minutes": 0.0, "valid_examples": 0}
    code = f"""
import pathlib, luthier_preference
from luthier import Dataset, Model
from luthier.testing import arguments, make_context
model, data = (pathlib.Path(each) for each in ({str(tiny.path)!r}, {str(pairs.path)!r}))
luthier_preference.dpo(Model.at(model, "causal-lm"), Dataset.at(data, "preference"),
    make_context(pathlib.Path({str(tmp_path / "killed")!r}), seed=3),
    **arguments(luthier_preference.dpo, **{options!r}))
"""
    checkpoints = tmp_path / "killed" / "checkpoint"
    process = subprocess.Popen([sys.executable, "-c", code])
    while not list(checkpoints.glob("checkpoint-*/progress.json")) and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    sealed = max(checkpoints.glob("checkpoint-*/progress.json"), key=lambda path: path.stat().st_mtime_ns)
    step = json.loads(sealed.read_text())["progress"]["step"]
    resumed = tuned(tmp_path / "killed", "dpo", tiny, pairs, **options)
    assert resumed.events[0]["done"] == step + 1
    assert identity(resumed) == identity(tuned(tmp_path / "whole", "dpo", tiny, pairs, **options))


def test_only_whole_checkpoints_of_this_configuration_are_gone_on_from(tmp_path, caplog):
    for step in (4, 9, 10):
        (tmp_path / f"checkpoint-{step}").mkdir()
        (tmp_path / f"checkpoint-{step}" / "optimizer.pt").write_text("moments")
    assert find_checkpoint(tmp_path, {"rank": 4}) is None
    assert list(tmp_path.iterdir()) == []
    for step in (9, 10):
        (tmp_path / f"checkpoint-{step}").mkdir()
        (tmp_path / f"checkpoint-{step}" / "optimizer.pt").write_text("moments")
        seal(tmp_path, Progress(step=step, total=12, curve=[{"loss": 1.5}]), {"rank": 4})
    (tmp_path / "checkpoint-11").mkdir()  # A kill while it was written.
    path, progress = find_checkpoint(tmp_path, {"rank": 4})
    assert path.name == "checkpoint-10"
    assert (progress.step, progress.total, progress.curve) == (10, 12, [{"loss": 1.5}])
    assert [each.name for each in tmp_path.iterdir()] == ["checkpoint-10"]
    assert find_checkpoint(tmp_path, {"rank": 8}) is None
    assert "the checkpoint" in caplog.text
    assert "is not used, and training begins anew: it was made with rank 4 (now 8)" in caplog.text
    assert list(tmp_path.iterdir()) == []


def test_minutes_become_a_number_of_steps(tmp_path, tiny, pairs):
    timed = tuned(tmp_path / "timed", "dpo", tiny, pairs, max_minutes=0.02)
    steps = int(values(timed)["steps"])
    again = tuned(tmp_path / "again", "dpo", tiny, pairs, max_steps=steps)
    assert identity(again) == identity(timed)


def test_divergence_is_refused(tmp_path, tiny, pairs):
    with pytest.raises(InputError, match="diverged at step"):
        tuned(tmp_path, "dpo", tiny, pairs, learning_rate=1e30, max_steps=20)


def test_prompts_and_answers_are_the_tokens_of_serving(tiny, pairs):
    encoder = PromptEncoder.from_directory(tiny.path)
    row = pairs.frame("train").row(0, named=True)
    example = encode_split(pairs, "train", encoder, 512).examples[0]
    assert example.given == encoder.prompt(row["prompt"])
    assert example.completions == (encoder.completion(row["chosen"]), encoder.completion(row["rejected"]))
    assert {each[-1] for each in example.completions} <= encoder.end_tokens


RECIPE = """
luthier: 1
steps:
  - source: jsonl
    path: data.jsonl
  - format: {form}
    prompt: "Q: {{text}}"
{columns}
    split: {{valid: 0.3, test: 0}}
  - architecture: pretrained
    model: {model}
  - tune: {tuner}
    max_steps: 6
    rank: 4
    learning_rate: {rate}
    valid_examples: 16
"""
COLUMNS = {"dpo": "    chosen: chosen", "kto": "    completion: completion\n    label: thumb\n    liked: [up]"}


@pytest.fixture
def recipe(tmp_path, tiny, pairs, judgements, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LUTHIER_HOME", raising=False)
    monkeypatch.setenv("LUTHIER_PLUGINS", "preference,tune,models,text")

    def write(tuner: str, rate: object = 3e-3) -> Path:
        frame = (pairs if tuner == "dpo" else judgements).frame().rename({"prompt": "text"}).drop("split")
        if tuner == "kto":
            frame = frame.with_columns(pl.when("label").then(pl.lit("up")).otherwise(pl.lit("down")).alias("thumb"))
        frame.write_ndjson(tmp_path / "data.jsonl")
        path = tmp_path / "recipe.yaml"
        text = RECIPE.format(form=FORMS[tuner], columns=COLUMNS[tuner], model=tiny.path, tuner=tuner, rate=rate)
        path.write_text(text)
        return path

    return write


def test_a_recipe_takes_thumbs_to_a_tuned_model(tmp_path, recipe):
    recipe("kto")
    command = [sys.executable, "-c", "from luthier.cli import main; main()", "run", "recipe.yaml", "--json"]
    done = subprocess.run(command, cwd=tmp_path, env=dict(os.environ), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    events = map(json.loads, done.stdout.splitlines())
    metrics = next(e["metrics"] for e in events if (e["type"], e.get("step")) == ("step_finished", "kto"))
    assert metrics["reward_accuracy"] > 0.5
    assert metrics["steps"] == 6


def test_a_list_of_rates_is_searched_by_accuracy_and_one_that_diverges_is_lost(recipe):
    run = luthier.run(recipe("dpo", rate=[1e-9, 3e-3, 1e30]), display=False, jobs=1)
    trials = {trial.values["learning_rate"]: trial.state for trial in run.step("dpo").search.trials}
    assert trials[1e30] == "failed"
    assert run.step("dpo").search.chosen == {"learning_rate": 3e-3}


@pytest.mark.parametrize(
    ("tuner", "overrides", "expected"),
    [
        ("kto", {"kto.batch_size": 1}, "recipe.yaml:14:5: .*batch_size is 1: KTO estimates how far"),
        ("dpo", {"dpo.max_epochs": 1}, "more than one training budget: max_steps, max_epochs"),
        ("kto", {"kto.beta": 0}, "greater than 0"),
        ("dpo", {"dpo.processes": 2}, "processes: unknown key"),
        ("kto", {"kto.patience": 2, "kto.valid_examples": 0}, "`patience` waits for a better validation loss"),
    ],
)
def test_what_cannot_be_is_told_while_planning(recipe, tuner, overrides, expected):
    with pytest.raises(RecipeError, match=expected):
        luthier.plan(recipe(tuner), overrides=overrides)


def test_data_of_the_other_form_is_refused_while_planning(recipe):
    path = recipe("dpo")
    path.write_text(path.read_text().replace("tune: dpo", "tune: kto"))
    with pytest.raises(RecipeError, match="kto takes data of the form unpaired-preference; 'preference' gives"):
        luthier.plan(path)


def test_nothing_to_learn_from_is_told_before_the_work(tmp_path, tiny, pairs):
    unanswered = Dataset.at(pairs.path, "preference")
    with pytest.raises(InputError, match="none of the 24 training examples can be used") as caught:
        tuned(tmp_path, "dpo", Model.at(tiny.path, "causal-lm"), unanswered, max_length=12)
    assert "raise `max_length`" in caught.value.remedy
