"""Tuning classifiers: the loss of transformers, frozen bodies computed once, resumed runs, and what is refused."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path

import polars as pl
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import pipeline
from typer.testing import CliRunner

import luthier
import luthier_models
import luthier_tune
from luthier import Dataset, InputError, Model
from luthier.artifacts import build_manifest
from luthier.cli import app
from luthier.testing import arguments, make_context
from luthier_models.loading import load_by_config
from luthier_models.prompts import PromptEncoder
from luthier_models.testing import write_tiny_classifier
from luthier_tune.head_only import HeadLoss
from luthier_tune.lean import LeanModel, lean_or_plain
from luthier_tune.loss import CompletionLoss
from luthier_tune.options import Training
from luthier_tune.some_layers import LayerSettings, objective_of, partial_student
from luthier_tune.training import Trainer

PAIRS = [([5, 6, 7, 8, 9], [0]), ([5, 6], [1]), ([30, 31, 32], [1]), ([30, 31, 32, 40, 41, 42, 43], [0])]
TOPICS = {"games": ["play", "level", "score", "enemy"], "science": ["graph", "atom", "data", "star"]}
STRATEGIES = {
    "full": {"learning_rate": 2e-3},
    "lora": {"rank": 4, "learning_rate": 5e-3},
    "layers": {"top": 0, "learning_rate": 2e-2},
}


def write_dataset(directory: Path, frame: pl.DataFrame) -> Dataset:
    directory.mkdir(parents=True, exist_ok=True)
    frame.write_parquet(directory / "shard-00000.parquet")
    return Dataset.at(directory, "classification")


def sentences(count: int, seed: int) -> pl.DataFrame:
    rng = random.Random(seed)
    rows = []
    for number in range(count):
        topic = ("games", "science")[number % 2]
        words = [*rng.choices(TOPICS[topic], k=3), *rng.choices(["the", "of", "and"], k=rng.randint(1, 6))]
        rng.shuffle(words)
        split = "valid" if number % 8 > 5 else "train"
        rows.append({"id": f"e{number}", "split": split, "text": " ".join(words), "label": topic})
    return pl.DataFrame(rows).with_columns(group="id")


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Dataset:
    return write_dataset(tmp_path_factory.mktemp("data"), sentences(64, 1))


@pytest.fixture(scope="module", params=["decoder", "encoder"])
def model(request, tmp_path_factory) -> Model:
    directory = tmp_path_factory.mktemp(request.param) / "model"
    return Model.at(write_tiny_classifier(directory, request.param, labels=[*TOPICS]), "sequence-classifier", "0" * 64)


def tuned(directory: Path, name: str, model: Model, data: Dataset, **config):
    ctx = make_context(directory, seed=3)
    usual = {"valid_examples": 16, "warmup_steps": 2, "batch_size": 8, "max_steps": 40}
    tuner = getattr(luthier_tune, name)
    tuner(model, data, ctx, **arguments(tuner, **(usual | config)))
    return ctx


def hash_of(directory: Path) -> str:
    return build_manifest(directory, "model", "sequence-classifier").hash


def test_loss_and_gradients_are_those_of_transformers(model, caplog):
    ours, theirs = (load_by_config(model.path).double().train() for _ in range(2))
    objective = CompletionLoss(lean_or_plain(ours, make_context(Path("unused")).log))
    assert isinstance(objective.packed, LeanModel) == (ours.config.model_type == "llama")
    total = torch.zeros((), dtype=torch.float64)
    for _, batch in objective.batches(PAIRS):
        total = total + objective.loss(batch)
    total.backward()
    expected = sum(theirs(input_ids=torch.tensor([ids]), labels=torch.tensor(label)).loss for ids, label in PAIRS)
    expected.backward()
    torch.testing.assert_close(total, expected, rtol=1e-6, atol=0)
    gradients = dict(theirs.named_parameters())
    for name, parameter in ours.named_parameters():
        expected = gradients[name].grad
        # Rotations are in single precision on both paths.
        torch.testing.assert_close(parameter.grad, expected, rtol=0, atol=1e-5 * float(expected.abs().max()), msg=name)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy_learns_to_tell_two_topics(tmp_path, model, data, strategy):
    ctx = tuned(tmp_path, strategy, model, data, **STRATEGIES[strategy])
    metrics = {name: metric.value for name, metric in ctx.metrics.items()}
    assert metrics["valid_loss"] < 0.5 * metrics["valid_loss_before"]
    assert metrics["examples"] == 320
    classifier = luthier_models.transformers(Model.at(ctx.output, "sequence-classifier"), ctx)
    unseen = sentences(20, 2)
    right = sum(map(str.__eq__, classifier.generate(unseen["text"].to_list()), unseen["label"].to_list()))
    assert right >= 15  # a frozen body of random weights tells little
    changed = {name for name, value in load_file(ctx.output / "model.safetensors").items() if not value.equal(
        load_file(model.path / "model.safetensors")[name])}  # fmt: skip
    in_head = {name for name in changed if name.startswith(("score.", "classifier.", "head."))}
    assert in_head
    assert (changed == in_head) == (strategy == "layers")


def test_the_adapter_has_the_head_beside_it(tmp_path, model, data):
    ctx = tuned(tmp_path, "lora", model, data, rank=2, learning_rate=5e-3, max_steps=4)
    adapted = PeftModel.from_pretrained(load_by_config(model.path), ctx.output / "adapter").eval()
    merged = load_by_config(ctx.output)
    ids = torch.tensor([PAIRS[0][0]])
    with torch.no_grad():
        torch.testing.assert_close(adapted(input_ids=ids).logits, merged(input_ids=ids).logits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("config", [{"top": 0}, {"top": 1}, {"top": 1, "rank": 2}])
def test_kept_activations_change_nothing_but_rounding(tmp_path, model, data, config):
    losses = []
    for activations in ("float32", "recompute"):
        settings = {"learning_rate": 1e-3, "max_steps": 6, "activations": activations}
        ctx = tuned(tmp_path / activations, "layers", model, data, **settings, **config)
        table = pl.read_parquet(ctx.output.parent / "notes" / "tables" / "learning-curve.parquet")
        losses.append(table["loss"].to_list())
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_a_frozen_body_reads_each_example_once(tmp_path, model):
    ctx = make_context(tmp_path, seed=3)
    student = partial_student(model, LayerSettings(top=0), ctx)
    settings = Training(max_epochs=3, batch_size=2, keep="last")
    objective = objective_of(student, LayerSettings(top=0), PAIRS, PAIRS[:2], settings=settings, ctx=ctx)
    assert isinstance(objective, HeadLoss)
    inner = student.packed.hidden
    calls: list[int] = []
    student.packed.hidden = lambda batch: calls.append(len(batch.sizes)) or inner(batch)  # type: ignore[method-assign]
    Trainer(objective, student.parameters, PAIRS, PAIRS[:2], settings=settings, ctx=ctx).run()
    assert sum(calls) < 3 * len(PAIRS)
    calls.clear()
    for _, batch in objective.batches(PAIRS):
        objective.loss(batch)
    assert not calls
    kept = [path for path in (ctx.checkpoint / "activations").iterdir() if path.name == "float16"]
    assert [path.stat().st_size for path in kept] == [2 * 64 * (len(PAIRS) + 2)]


@pytest.mark.parametrize("strategy", ["lora", "layers"])
def test_a_killed_run_gives_the_same_bytes(tmp_path, model, data, strategy, monkeypatch):
    config = STRATEGIES[strategy] | {"max_steps": 8, "checkpoint_minutes": 0.0}
    whole = tuned(tmp_path / "whole", strategy, model, data, **config)
    advance, steps = Trainer._advance, []

    def stop(trainer):
        if len(steps) == 5:
            raise KeyboardInterrupt
        steps.append(trainer.progress.step)
        advance(trainer)

    monkeypatch.setattr(Trainer, "_advance", stop)
    with pytest.raises(KeyboardInterrupt):
        tuned(tmp_path / "killed", strategy, model, data, **config)
    monkeypatch.undo()
    resumed = tuned(tmp_path / "killed", strategy, model, data, **config)
    assert hash_of(resumed.output) == hash_of(whole.output)


def test_labels_of_other_data_are_refused(tmp_path, model, data):
    frame = data.frame().with_columns(pl.col("label").replace("science", "biology"))
    other = write_dataset(tmp_path / "other", frame)
    with pytest.raises(InputError, match="the model's head has no label 'biology'; it has games, science"):
        tuned(tmp_path / "run", "full", model, other)


def test_rows_without_text_or_label_are_counted_and_long_ones_cut(tmp_path, model, data):
    frame = data.frame().head(6).with_columns(split=pl.lit("train"))
    text = pl.when(pl.col("id") == "e0").then(pl.lit(" ")).when(pl.col("id") == "e1").then(pl.lit("star " * 500))
    frame = frame.with_columns(
        text=text.otherwise("text"), label=pl.when(pl.col("id") == "e2").then(None).otherwise("label")
    )
    ctx = tuned(tmp_path / "run", "full", model, write_dataset(tmp_path / "odd", frame), max_steps=1)
    assert (ctx.metrics["skipped_examples"].value, ctx.metrics["shortened_examples"].value) == (2, 1)
    nothing = write_dataset(tmp_path / "none", frame.with_columns(label=pl.lit(None, pl.String)))
    with pytest.raises(InputError, match="none of the 6 training examples can be used: they have no text or no label"):
        tuned(tmp_path / "again", "full", model, nothing)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_what_training_cuts_off_is_not_read_afterwards_either(tmp_path, model, data, strategy, caplog):
    ctx = tuned(tmp_path / "run", strategy, model, data, max_length=8, max_steps=1)
    classifier = luthier_models.transformers(Model.at(ctx.output, "sequence-classifier"), ctx)
    beginning = "play the atom of the star and level"
    assert len(classifier.encoder.document(beginning)) > 8
    one, other = (
        score.log_probabilities for score in classifier.score([beginning, f"{beginning} graph"], ["games"] * 2)
    )
    assert one == other
    assert "2 of 2 texts lose their ends: the model reads 8 tokens" in caplog.text
    # So do others that load it, and a training of that classifier has its own length.
    theirs = pipeline("text-classification", model=str(ctx.output), device="cpu", truncation=True)(beginning)[0]
    scores = dict(zip(TOPICS, classifier.score([beginning] * 2, [*TOPICS]), strict=True))
    assert math.exp(scores[theirs["label"]].log_probabilities[0]) == pytest.approx(theirs["score"], abs=1e-5)
    again = tuned(tmp_path / "again", strategy, Model.at(ctx.output, "sequence-classifier"), data, max_steps=1)
    assert PromptEncoder.from_directory(again.output).text_length == 128  # the model's context


@pytest.mark.parametrize("family", ["roberta", "distilbert"])
def test_encoders_whose_layers_lie_deeper_are_tuned_too(tmp_path, data, family, caplog):
    """Their heads read more than one row of numbers, or do more than their modules: they are computed whole."""
    path = write_tiny_classifier(tmp_path / "model", family, labels=[*TOPICS])
    model = Model.at(path, "sequence-classifier", "0" * 64)
    before = load_file(path / "model.safetensors")
    strategies = {
        "full": ("full", {"learning_rate": 2e-3}),
        "lora": ("lora", {"learning_rate": 5e-3, "rank": 4}),
        "head": ("layers", {"learning_rate": 2e-2, "top": 0}),
        "top": ("layers", {"learning_rate": 5e-3, "top": 1}),
    }
    touched = {}
    for name, (tuner, config) in strategies.items():
        ctx = tuned(tmp_path / name, tuner, model, data, max_steps=24, **config)
        assert ctx.metrics["valid_loss"].value < 0.8 * ctx.metrics["valid_loss_before"].value, name
        after = load_file(ctx.output / "model.safetensors")
        touched[name] = {tensor for tensor in before if not after[tensor].equal(before[tensor])}
    in_head = {"classifier.", "pre_classifier."}
    assert all(tensor.startswith((*in_head,)) for tensor in touched["head"])
    assert {tensor.partition("layer.")[2].partition(".")[0] for tensor in touched["top"]} == {"", "1"}
    assert "what enters the head" in caplog.text
    with pytest.raises(InputError, match="`top` is 3, and the model has 2 layers"):
        tuned(tmp_path / "more", "layers", model, data, top=3)


def test_nothing_to_train_is_refused(tmp_path, tiny, examples):
    with pytest.raises(InputError, match="no classification head"):
        tuned(tmp_path, "layers", tiny, examples, top=0)
    with pytest.raises(InputError, match="with `top: 0` none is trained"):
        luthier_tune.check_layers(top=0, names=[], rank=4, max_steps=1, max_epochs=None, max_minutes=None)


RECIPE = """luthier: 1
name: topics
seed: 7
steps:
  - source: jsonl
    path: rows.jsonl
  - format: classification
    label: topic
    split: {valid: 0.1, test: 0.25}
  - architecture: fresh
    family: modernbert
    parameters: 60K
    tokenizer: {kind: word, size: 64}
  - tune: classification-head
  - tune: full
    learning_rate: 0.003
    batch_size: 16
    max_epochs: 6
  - validate: classification
    id: measured
    gate: {accuracy: {at_least: 0.9}}
"""

MEASURE = RECIPE[RECIPE.index("  - validate") :]


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = [{"text": row["text"], "topic": row["label"]} for row in sentences(160, 5).iter_rows(named=True)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def make(old: str = "", new: str = "") -> Path:
        assert old in RECIPE
        (tmp_path / "recipe.yaml").write_text(RECIPE.replace(old, new, 1) if old else RECIPE)
        return tmp_path / "recipe.yaml"

    return make


def test_a_recipe_trains_an_encoder_from_scratch_to_classify(project):
    # The gate holds it to nine in ten: a refused one is exit code 4.
    done = CliRunner().invoke(app, ["run", str(project()), "--jobs", "1", "--quiet"])
    assert done.exit_code == 0, done.output
    classes = luthier.run("recipe.yaml", display=False).report("measured").table("classes")
    assert classes["label"].to_list() == ["games", "science"]
    shown = CliRunner().invoke(app, ["models", "show", "latest:full"])
    assert "sequence-classifier" in shown.output
    asked = CliRunner().invoke(app, ["generate", "latest:full", "enemy level score"])
    assert asked.output.strip().endswith("games"), asked.output


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        (MEASURE, "  - export: genai\n",
         "export:genai takes model of the form causal-lm; 'full' gives sequence-classifier"),
        (MEASURE,
         "  - format: prompt-completion\n    from: jsonl\n    prompt: '{text}'\n    completion: '{topic}'\n"
         "  - validate: rouge\n",
         "validate:rouge: a classifier chooses one of its labels, and writes no text; "
         "Measure it with `validate: classification`."),
        (MEASURE,
         "  - format: prompt-completion\n    from: jsonl\n    prompt: '{text}'\n    completion: '{topic}'\n"
         "  - validate: classification\n    id: measured\n",
         "validate:classification: a classifier reads texts as they are, and the data is of the form prompt-"),
        ("  - tune: full\n",
         "  - format: prompt-completion\n    from: jsonl\n    prompt: '{text}'\n    completion: '{topic}'\n"
         "  - tune: full\n",
         "tune:full: a classifier learns the labels of texts, and the data is of the form prompt-completion"),
        ("    family: modernbert\n    parameters: 60K\n    tokenizer: {kind: word, size: 64}\n"
         "  - tune: classification-head\n", "    family: llama\n",
         "tune:full: a language model learns texts, not labels; Put a head on it (`tune: classification-head`)"),
        ("  - tune: classification-head\n", "",
         "tune:full takes model of the form causal-lm or seq2seq-lm or sequence-classifier; 'fresh' gives encoder"),
        ("    family: modernbert\n", "    family: t5\n",
         "tune:classification-head takes model of the form causal-lm or encoder or sequence-classifier; "
         "'fresh' gives seq2seq-lm"),
        ("at_least: 0.9", "at_least: base + 0.1",
         "measured: no installed runtime loads model of the form 'encoder'"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_while_planning_in_one_error(project, old, new, says):
    with pytest.raises(InputError) as caught:
        luthier.plan(project(old, new))
    assert says in str(caught.value)
