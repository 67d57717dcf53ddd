"""Distillation: the loss against its definition, and students of tiny teachers."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys

import pytest
import sentencepiece
import torch
from torch.nn.functional import cross_entropy, log_softmax, softmax
from transformers import AutoModelForCausalLM

import luthier_tune
from luthier import InputError, Model
from luthier.artifacts import build_manifest
from luthier.testing import arguments, make_context
from luthier_models.loading import load_causal_lm
from luthier_models.packing import PackedModel, pack
from luthier_models.testing import write_tiny_model
from luthier_tune.distillation import DistillationLoss, Mixture, check_vocabularies, divergence
from luthier_tune.training import Trainer

PAIRS = [([1, 5, 9], [4, 2, 7]), ([1, 6], [8, 3, 2, 9, 2]), ([3, 3, 1, 7], [5])]
CONFIG = {"learning_rate": 3e-3, "warmup_steps": 2, "valid_examples": 4, "max_length": 96}


@pytest.fixture(scope="module")
def teacher(tmp_path_factory) -> Model:
    """Another model than the student, wider, of the same tokenizer."""
    path = write_tiny_model(tmp_path_factory.mktemp("teacher") / "model", seed=5, width=96)
    return Model.at(path, "causal-lm", "1" * 64)


def distilled(directory, model, teacher, data, **config):
    ctx = make_context(directory, seed=3)
    luthier_tune.distill(model, teacher, data, ctx, **arguments(luthier_tune.distill, **(CONFIG | config)))
    return ctx


def identity(ctx):
    return build_manifest(ctx.output, "model", "causal-lm").hash


def values(ctx):
    return {name: metric.value for name, metric in ctx.metrics.items()}


@pytest.mark.parametrize("weight", [0.3, 1.0])
def test_the_loss_and_its_gradients_are_those_of_the_definition(tiny, teacher, monkeypatch, weight):
    monkeypatch.setattr("luthier_tune.loss.CHUNK", 3)
    student, guide = (PackedModel(load_causal_lm(each.path)) for each in (tiny, teacher))
    student.model.requires_grad_(True)
    row = pack(PAIRS)
    objective = DistillationLoss(student, guide, Mixture(temperature=2.0, teacher_weight=weight))
    loss = objective.loss(row)
    loss.backward()
    got = {name: p.grad.clone() for name, p in student.model.named_parameters()}
    student.model.zero_grad()

    logits = student.logits(row)
    with torch.no_grad():
        wanted = softmax(guide.logits(row) / 2, dim=1)
    kl = (wanted * (wanted.log() - log_softmax(logits / 2, dim=1))).sum()
    expected = weight * 4 * kl + (1 - weight) * cross_entropy(logits, row.labels, reduction="sum")
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-5)
    expected.backward()
    for name, parameter in student.model.named_parameters():
        torch.testing.assert_close(got[name], parameter.grad, rtol=1e-3, atol=1e-4, msg=name)


def test_rows_for_tokens_that_only_one_model_has_are_left_out():
    ours, theirs = torch.randn(4, 10), torch.randn(4, 16)
    torch.testing.assert_close(divergence(ours, theirs, 1.5), divergence(ours, theirs[:, :10], 1.5))
    torch.testing.assert_close(divergence(ours, ours, 2.0), torch.zeros(4), atol=1e-6, rtol=0)


@pytest.mark.parametrize("rank", [None, 8])
def test_the_student_comes_nearer_to_its_teacher(tmp_path, tiny, teacher, examples, rank):
    ctx = distilled(tmp_path, tiny, teacher, examples, teacher_weight=1.0, max_steps=25, rank=rank)
    told = values(ctx)
    assert told["teacher_kl"] < told["teacher_kl_before"] - 0.5
    assert told["steps"] == 25
    assert (ctx.output / "adapter").is_dir() == (rank is not None)
    # What was written is what was measured.
    student, guide = PackedModel(load_causal_lm(ctx.output)), PackedModel(load_causal_lm(teacher.path))
    objective = DistillationLoss(student, guide, Mixture(temperature=1.0, teacher_weight=1.0))
    before = DistillationLoss(PackedModel(load_causal_lm(tiny.path)), guide, Mixture(temperature=1, teacher_weight=1))
    assert torch.cat(objective.divergences(PAIRS)).mean() < torch.cat(before.divergences(PAIRS)).mean()


def test_a_model_taught_by_itself_learns_the_data_and_keeps_to_what_it_was(tmp_path, tiny, examples):
    free = values(distilled(tmp_path / "free", tiny, tiny, examples, teacher_weight=0.01, max_steps=20))
    kept = values(distilled(tmp_path / "kept", tiny, tiny, examples, teacher_weight=0.8, max_steps=20))
    assert kept["teacher_kl_before"] == pytest.approx(0.0, abs=1e-5)
    assert kept["valid_loss"] < kept["valid_loss_before"] - 0.5
    assert kept["teacher_kl"] < free["teacher_kl"] - 0.2


def test_a_teacher_of_another_vocabulary_is_refused_before_any_work(tmp_path, tiny, teacher, examples):
    other = tmp_path / "other"
    write_tiny_model(other)
    tokenizer = json.loads((other / "tokenizer.json").read_text())
    merged = max(tokenizer["model"]["vocab"], key=tokenizer["model"]["vocab"].get)
    tokenizer["model"]["vocab"]["zebra"] = tokenizer["model"]["vocab"].pop(merged)
    tokenizer["model"]["merges"].pop()
    (other / "tokenizer.json").write_text(json.dumps(tokenizer))
    (other / "model.safetensors").unlink()  # No weights are read.
    with pytest.raises(InputError, match=r"another vocabulary .* here, and there it is 'zebra'"):
        distilled(tmp_path / "work", tiny, Model.at(other, "causal-lm"), examples, max_steps=2)


def write_marian_tokenizer(directory, *, reads, writes):
    """Marian's with a table of ids for each side."""
    directory.mkdir()
    text = "a river and a bridge of wood over it; nobody knows why it is closed"
    for name in ("source", "target"):
        model = io.BytesIO()
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter([text] * 4),
            model_writer=model,
            vocab_size=40,
            hard_vocab_limit=False,
            bos_id=-1,
            eos_id=0,
            unk_id=1,
            minloglevel=2,
        )
        (directory / f"{name}.spm").write_bytes(model.getvalue())
    for name, pieces in (("vocab.json", reads), ("target_vocab.json", writes)):
        table = {piece: number for number, piece in enumerate(["</s>", "<unk>", "<pad>", *pieces])}
        (directory / name).write_text(json.dumps(table))
    (directory / "config.json").write_text(json.dumps({"model_type": "marian"}))
    (directory / "tokenizer_config.json").write_text(json.dumps({"separate_vocabs": True}))
    return directory


def test_what_a_model_writes_is_compared_as_what_it_reads(tmp_path):
    ours = write_marian_tokenizer(tmp_path / "ours", reads="abc", writes="xyz")
    same = write_marian_tokenizer(tmp_path / "same", reads="abc", writes="xyz")
    writes = write_marian_tokenizer(tmp_path / "writes", reads="abc", writes="xzy")
    reads = write_marian_tokenizer(tmp_path / "reads", reads="acb", writes="xyz")
    check_vocabularies(ours, same)
    with pytest.raises(InputError, match=r"vocabulary of what is written than .*number 4 is 'y' here, and there it is"):
        check_vocabularies(ours, writes)
    with pytest.raises(InputError, match=r"another vocabulary than the model: 2 of the model's 6"):
        check_vocabularies(ours, reads)


def test_a_killed_step_goes_on_to_the_same_bytes(tmp_path, tiny, teacher, examples, monkeypatch):
    options = {"max_steps": 6, "checkpoint_minutes": 0.0}
    whole = distilled(tmp_path / "whole", tiny, teacher, examples, **options)
    advance = Trainer._advance

    def stop(self, *arguments):
        if self.progress.step == 4:
            raise KeyboardInterrupt
        return advance(self, *arguments)

    monkeypatch.setattr(Trainer, "_advance", stop)
    with pytest.raises(KeyboardInterrupt):
        distilled(tmp_path / "again", tiny, teacher, examples, **options)
    monkeypatch.undo()
    again = distilled(tmp_path / "again", tiny, teacher, examples, **options)
    assert len(again.events) < len(whole.events)
    assert identity(again) == identity(whole)
    assert values(again) == values(whole)


def test_the_teacher_of_a_recipe_is_the_step_that_it_names(tmp_path, tiny, examples):
    """The command line: tune, then heal towards the untuned model; the weights move back to it."""
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"""
luthier: 1
steps:
  - source: jsonl
    path: data.jsonl
  - format: prompt-completion
    prompt: "{{text}}"
    completion: "{{completion}}"
    split: {{valid: 0.3, test: 0}}
  - architecture: pretrained
    model: {tiny.path}
  - tune: full
    max_steps: 8
    learning_rate: 3e-3
  - tune: distill
    teacher: pretrained
    teacher_weight: 1.0
    learning_rate: 3e-3
    max_steps: 8
"""
    )
    rows = examples.frame().select("prompt", "completion").rename({"prompt": "text"})
    rows.write_ndjson(tmp_path / "data.jsonl")
    environment = os.environ | {"LUTHIER_PLUGINS": "tune,models,text", "LUTHIER_HOME": str(tmp_path / "home")}
    command = [sys.executable, "-c", "from luthier.cli import main; main()", "run", "recipe.yaml", "--json"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    events = map(json.loads, done.stdout.splitlines())
    metrics = next(e["metrics"] for e in events if (e["type"], e.get("step")) == ("step_finished", "distill"))
    assert 0.05 < metrics["teacher_kl"] < metrics["teacher_kl_before"]


def test_a_tied_head_gets_both_of_its_gradients(tiny, teacher):
    """The embedding learns as input and as output layer; distillation must not lose one of them."""
    student = PackedModel(AutoModelForCausalLM.from_pretrained(tiny.path))
    embedding = student.model.get_input_embeddings().weight
    assert embedding is student.model.get_output_embeddings().weight
    guide = PackedModel(load_causal_lm(teacher.path))
    DistillationLoss(student, guide, Mixture(temperature=1.0, teacher_weight=0.5)).loss(pack(PAIRS)).backward()
    unread = sorted(set(range(len(embedding))) - {token for given, targets in PAIRS for token in (*given, *targets)})
    read = [3, 5]
    assert float(embedding.grad[unread].abs().max()) > 0  # as output layer
    assert float(embedding.grad[read].abs().max()) > 0
