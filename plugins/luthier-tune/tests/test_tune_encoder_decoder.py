"""Tuning encoder-decoders: transformers' own loss, adapters on every linear layer, and a task learnt from nothing."""

from __future__ import annotations

import json
import random

import polars as pl
import pytest
import torch
from torch.nn.functional import cross_entropy, log_softmax, softmax
from transformers import AutoModelForSeq2SeqLM
from typer.testing import CliRunner

import luthier
import luthier_tune
from luthier import InputError, Model
from luthier.artifacts import build_manifest
from luthier.cli import app
from luthier.testing import arguments, make_context
from luthier_models.batching import batched
from luthier_models.loading import load_by_config
from luthier_models.testing import write_tiny_encoder_decoder
from luthier_tune.distillation import DistillationLoss, Mixture
from luthier_tune.loss import CompletionLoss

PAIRS = [([5, 6, 7, 8, 2], [9, 10, 2]), ([5, 2], [11, 2]), ([30, 31, 32, 2], [40, 41, 42, 43, 44, 2])]


@pytest.fixture(scope="module", params=["t5", "marian", "rnn-seq2seq"])
def family(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def model(family, tmp_path_factory) -> Model:
    directory = write_tiny_encoder_decoder(tmp_path_factory.mktemp("student") / "model", family)
    return Model.at(directory, "seq2seq-lm", "0" * 64)


def tuned(tuner, directory, model, data, **config):
    ctx = make_context(directory, seed=3)
    tuner(model, data, ctx, **arguments(tuner, **({"valid_examples": 4, "warmup_steps": 2} | config)))
    return ctx


def test_loss_and_gradients_are_those_of_transformers(model):
    ours, theirs = (load_by_config(model.path).double().train() for _ in range(2))
    objective = CompletionLoss(batched(ours))
    total = torch.zeros((), dtype=torch.float64)
    for _, batch in objective.batches(PAIRS):
        total = total + objective.loss(batch)
    total.backward()
    expected = torch.zeros((), dtype=torch.float64)
    for given, targets in PAIRS:
        labels = torch.tensor([targets])
        expected = expected + theirs(input_ids=torch.tensor([given]), labels=labels).loss * len(targets)
    expected.backward()
    torch.testing.assert_close(total, expected, rtol=1e-6, atol=0)
    gradients = dict(theirs.named_parameters())
    for name, parameter in ours.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(parameter.grad, gradients[name].grad, rtol=1e-4, atol=1e-6, msg=name)


def test_validation_losses_are_by_example_and_in_order(model):
    objective = CompletionLoss(batched(load_by_config(model.path)))
    found = {}
    for members, batch in objective.batches(PAIRS):
        found |= dict(zip(members, objective.losses(batch), strict=True))
    assert [len(found[number]) for number in range(3)] == [len(targets) for _, targets in PAIRS]
    for number, pair in enumerate(PAIRS):
        ((_, batch),) = objective.batches([pair])
        torch.testing.assert_close(found[number], objective.losses(batch)[0], rtol=1e-4, atol=1e-4)


def test_lora_reaches_every_linear_layer_and_the_merged_model_learnt(tmp_path, model, examples):
    ctx = tuned(luthier_tune.lora, tmp_path, model, examples, rank=4, max_epochs=8, learning_rate=1e-2)
    values = {name: metric.value for name, metric in ctx.metrics.items()}
    assert values["valid_loss"] < values["valid_loss_before"] - 0.3
    before = dict(AutoModelForSeq2SeqLM.from_pretrained(model.path).named_parameters())
    after = dict(AutoModelForSeq2SeqLM.from_pretrained(ctx.output).named_parameters())
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    modules = load_by_config(model.path).named_modules()
    linear = {f"{name}.weight" for name, module in modules if isinstance(module, torch.nn.Linear) and name != "lm_head"}
    assert changed == linear
    assert any(part in name for name in changed for part in ("encoder_attn", "EncDecAttention", "query"))


def test_a_frozen_encoder_stays_as_it_is_while_the_decoder_learns(tmp_path, model, examples):
    ctx = tuned(luthier_tune.layers, tmp_path, model, examples, names=["decoder"], max_steps=4, learning_rate=1e-3)
    before = dict(AutoModelForSeq2SeqLM.from_pretrained(model.path).named_parameters())
    after = dict(AutoModelForSeq2SeqLM.from_pretrained(ctx.output).named_parameters())
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    # The embedding is of both sides, so that it learns with the decoder.
    layers = ("encoder.layers", "encoder.block", "encoder.forwards", "encoder.backwards")
    assert not [name for name in changed if any(part in name for part in layers)]
    with pytest.raises(InputError, match="no single list of layers"):
        tuned(luthier_tune.layers, tmp_path / "top", model, examples, top=1, max_steps=4)


def test_the_same_seed_gives_the_same_bytes(tmp_path, model, examples):
    made = [tuned(luthier_tune.full, tmp_path / name, model, examples, max_steps=4) for name in "ab"]
    assert len({build_manifest(ctx.output, "model", "seq2seq-lm").hash for ctx in made}) == 1


@pytest.fixture(scope="module")
def teacher(family, tmp_path_factory) -> Model:
    """Another model of the student's family and tokenizer."""
    directory = write_tiny_encoder_decoder(tmp_path_factory.mktemp("teacher") / "model", family, seed=5)
    return Model.at(directory, "seq2seq-lm", "1" * 64)


def test_the_distillation_loss_is_that_of_its_definition(model, teacher):
    student, guide = (load_by_config(each.path).double() for each in (model, teacher))
    mixture = Mixture(temperature=2.0, teacher_weight=0.4)
    objective = DistillationLoss(batched(student), batched(guide), mixture)
    batches = list(objective.batches(PAIRS))
    total = sum(objective.loss(batch) for _, batch in batches)
    total.backward()
    expected = torch.zeros((), dtype=torch.float64)
    for given, targets in PAIRS:
        labels = torch.tensor([targets])
        ours, theirs = (each(input_ids=torch.tensor([given]), labels=labels).logits[0] for each in (student, guide))
        wanted = softmax(theirs / 2, dim=1)
        kl = (wanted * (wanted.log() - log_softmax(ours / 2, dim=1))).sum()
        expected = expected + 0.4 * 4 * kl + 0.6 * cross_entropy(ours, labels[0], reduction="sum")
    got = {name: parameter.grad.clone() for name, parameter in student.named_parameters() if parameter.grad is not None}
    student.zero_grad()
    torch.testing.assert_close(total.double(), expected, rtol=1e-5, atol=0)
    expected.backward()
    for name, parameter in student.named_parameters():
        if name in got:
            torch.testing.assert_close(got[name], parameter.grad, rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.parametrize("rank", [None, 4])
def test_a_student_comes_nearer_to_its_teacher(tmp_path, model, teacher, examples, rank):
    ctx = make_context(tmp_path, seed=3)
    config = {"teacher_weight": 1.0, "rank": rank, "max_steps": 20, "learning_rate": 1e-2, "valid_examples": 4}
    luthier_tune.distill(model, teacher, examples, ctx, **arguments(luthier_tune.distill, **config))
    values = {name: metric.value for name, metric in ctx.metrics.items()}
    assert values["teacher_kl"] < 0.8 * values["teacher_kl_before"]
    assert load_by_config(ctx.output).config.model_type == load_by_config(model.path).config.model_type


def test_a_conversation_needs_a_template(tmp_path, model, make_dataset, rows):
    talk = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    frame = rows(6).select("id", "group", "split").with_columns(messages=pl.Series([talk] * 6))
    with pytest.raises(InputError, match="has no chat template"):
        tuned(luthier_tune.full, tmp_path / "run", model, make_dataset(frame, "chat"), max_steps=1)


LEXICON = {
    "ba": "cedi",
    "ce": "fono",
    "di": "rute",
    "fo": "gaku",
    "gu": "lemi",
    "ka": "wizu",
    "le": "sabo",
    "mi": "tevo",
}

RECIPE = """
luthier: 1
name: words
seed: 7
steps:
  - source: jsonl
    path: words.jsonl
  - format: prompt-completion
    prompt: "{text}"
    completion: "{translation}"
    split: {valid: 0.05, test: 0.1}
  - architecture: ARCHITECTURE
    parameters: 300K
    tokenizer: {kind: word, size: 100}
  - tune: full
    max_epochs: 6
    learning_rate: 3e-3
    batch_size: 32
    max_length: 64
  - validate: chrf
    gate: {chrf: {at_least: 90}}
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder with sentences of eight words and their translation, word by word."""
    draw = random.Random(5)
    texts = {tuple(draw.choices(sorted(LEXICON), k=draw.randint(2, 5))) for _ in range(1200)}
    rows = [{"text": " ".join(words), "translation": " ".join(LEXICON[word] for word in words)} for words in texts]
    (tmp_path / "words.jsonl").write_text("\n".join(json.dumps(row) for row in sorted(rows, key=str)))
    monkeypatch.setenv("LUTHIER_PLUGINS", "text,models,tune,validate,onnx")
    monkeypatch.delenv("LUTHIER_HOME", raising=False)
    monkeypatch.chdir(tmp_path)

    def write(architecture, recipe=RECIPE):
        (tmp_path / "recipe.yaml").write_text(recipe.replace("ARCHITECTURE", architecture))
        return tmp_path / "recipe.yaml"

    return write


@pytest.mark.parametrize("architecture", ["fresh\n    family: marian", "rnn-seq2seq"])
def test_a_recipe_translates_unseen_sentences_with_an_encoder_decoder_from_scratch(project, architecture):
    recipe = project(architecture)
    # The gate holds it to a chrF of 90: a refused one is exit code 4.
    done = CliRunner().invoke(app, ["run", str(recipe), "--jobs", "1", "--quiet"])
    assert done.exit_code == 0, done.output


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        (
            'format: prompt-completion\n    prompt: "{text}"\n    completion: "{translation}"',
            "format: language-modelling",
            "tune:full: an encoder-decoder learns completions of prompts",
        ),
        (
            "  - validate: chrf",
            "  - export: genai\n  - validate: chrf",
            "export:genai takes model of the form causal-lm; 'full' gives seq2seq-lm",
        ),
    ],
)
def test_what_an_encoder_decoder_cannot_do_is_refused_while_planning(project, old, new, says):
    assert old in RECIPE
    with pytest.raises(InputError) as caught:
        luthier.plan(project("fresh\n    family: t5", RECIPE.replace(old, new)))
    assert says in str(caught.value)
