"""Training of all weights, on a tiny model and on a fresh one."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM

import luthier_models
import luthier_tune
from luthier import InputError, LuthierError, Model
from luthier.artifacts import build_manifest
from luthier.testing import arguments, make_context
from luthier_models import Vocabulary, fresh
from luthier_tune.training import Trainer

CONFIG = {"learning_rate": 3e-3, "valid_examples": 4, "warmup_steps": 2}


def tuned(directory, model, data, **config):
    ctx = make_context(directory, seed=3)
    luthier_tune.full(model, data, ctx, **arguments(luthier_tune.full, **(CONFIG | config)))
    return ctx


def identity(ctx):
    return build_manifest(ctx.output, "model", "causal-lm").hash


def test_every_weight_learns(tmp_path, tiny, examples):
    ctx = tuned(tmp_path, tiny, examples, max_epochs=6)
    values = {name: metric.value for name, metric in ctx.metrics.items()}
    assert values["valid_loss"] < values["valid_loss_before"] - 1
    before = dict(AutoModelForCausalLM.from_pretrained(tiny.path).named_parameters())
    after = dict(AutoModelForCausalLM.from_pretrained(ctx.output).named_parameters())
    assert before.keys() == after.keys()
    assert all(not torch.equal(before[name], after[name]) for name in before)
    assert (ctx.output / "tokenizer.json").read_bytes() == (tiny.path / "tokenizer.json").read_bytes()


def test_the_same_seed_gives_the_same_bytes_also_after_an_interruption(tmp_path, tiny, examples, monkeypatch):
    whole = tuned(tmp_path / "whole", tiny, examples, max_steps=8, checkpoint_minutes=0.0)
    saved = []

    def stop_at_five(self, *arguments):
        if self.progress.step == 5:
            saved.append(self.progress.step)
            raise KeyboardInterrupt
        return advance(self, *arguments)

    advance = Trainer._advance
    monkeypatch.setattr(Trainer, "_advance", stop_at_five)
    with pytest.raises(KeyboardInterrupt):
        tuned(tmp_path / "again", tiny, examples, max_steps=8, checkpoint_minutes=0.0)
    monkeypatch.undo()
    assert saved == [5]
    again = tuned(tmp_path / "again", tiny, examples, max_steps=8, checkpoint_minutes=0.0)
    assert len(again.events) < len(whole.events)
    assert identity(again) == identity(whole)


def test_a_fresh_model_of_characters_learns_its_text(tmp_path, make_dataset, rows):
    data = make_dataset(rows(), "language-modelling")
    ctx = make_context(tmp_path / "fresh", seed=3)
    fresh(data, ctx, parameters="60K", tokenizer=Vocabulary(kind="character", size=80), max_length=128)
    model = Model.at(ctx.output, "causal-lm", "0" * 64)
    values = tuned(tmp_path / "tuned", model, data, max_epochs=40, max_length=128).metrics
    # An untrained model knows nothing: the logarithm of its vocabulary.
    assert values["valid_loss_before"].value > 2.5
    assert values["valid_loss"].value < 1.2


@pytest.mark.parametrize(
    "family",
    ["smollm3", "gpt2", *(pytest.param(name, marks=pytest.mark.slow) for name in ("olmo2", "stablelm", "opt"))],
)
def test_each_form_of_layers_learns_and_generates(tmp_path, make_dataset, rows, family):
    data = make_dataset(rows(), "language-modelling")
    made = make_context(tmp_path / "fresh", seed=3)
    tokenizer = Vocabulary(kind="character", size=80)
    fresh(data, made, family=family, parameters="60K", tokenizer=tokenizer, max_length=48)
    # Texts are longer than 48 tokens, and the tuner may read more: learned positions must hold all the same.
    longer = {"max_epochs": 10, "max_length": 512, "batch_size": 4}
    ctx = tuned(tmp_path / "tuned", Model.at(made.output, "causal-lm", "0" * 64), data, **longer)
    assert ctx.metrics["valid_loss"].value < ctx.metrics["valid_loss_before"].value - 0.5
    generator = luthier_models.transformers(Model.at(ctx.output, "causal-lm", "1" * 64), ctx, batch_size=2)
    together = generator.generate(["The table", "The row of the"], max_new_tokens=20)
    assert together == [
        generator.generate([prompt], max_new_tokens=20)[0] for prompt in ("The table", "The row of the")
    ]
    assert all(together)
    with pytest.raises(InputError, match="context of 48"):
        generator.generate(["The table"], max_new_tokens=48)


def test_divergence_is_refused(tmp_path, tiny, examples):
    with pytest.raises(InputError, match="diverged"):
        tuned(tmp_path, tiny, examples, learning_rate=1e30, max_steps=20)


def test_a_disk_without_place_for_the_result_is_one_error(tmp_path, tiny, examples):
    resource = pytest.importorskip("resource")
    before, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
    try:
        with pytest.raises(LuthierError, match="no space left for the tuned model") as refused:
            tuned(tmp_path, tiny, examples, max_steps=1, keep="last")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (before, hard))
    assert "Free space" in refused.value.remedy
