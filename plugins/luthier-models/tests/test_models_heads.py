"""Classification heads on decoders and encoders: made anew, called in batches, read by the runtime."""

from __future__ import annotations

import math
import random
from pathlib import Path

import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForMaskedLM,
    DistilBertConfig,
    DistilBertForMaskedLM,
    RobertaConfig,
    RobertaForMaskedLM,
    pipeline,
)

import luthier_models
from luthier import Dataset, InputError, Model
from luthier.artifacts import build_manifest
from luthier.testing import make_context
from luthier_models import Vocabulary
from luthier_models.batching import batched
from luthier_models.heads import head_modules
from luthier_models.loading import load_by_config, load_model
from luthier_models.normalise import save_model
from luthier_models.packing import PackedModel
from luthier_models.padding import PaddedClassifier
from luthier_models.testing import tiny_tokenizer, write_tiny_classifier, write_tiny_model

TEXTS = ["Return the number of rows.", "Write the array to a file; an existing file is replaced.", "A fox."]
PAIRS = [([5, 6, 7, 8, 9], [0]), ([5, 6], [1]), ([30, 31, 32], [2]), ([30, 31, 32, 40, 41, 42, 43], [1])]


def labelled(directory: Path, rows: list[tuple[str, str | None]], split: str = "train") -> Dataset:
    directory.mkdir()
    ids = [f"row-{number}" for number in range(len(rows))]
    texts, labels = zip(*rows, strict=True)
    columns = {"id": ids, "group": ids, "split": [split] * len(ids), "text": texts, "label": labels}
    pl.DataFrame(columns, schema=dict.fromkeys(columns, pl.String)).write_parquet(directory / "shard-00000.parquet")
    return Dataset.at(directory, "classification")


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Dataset:
    rows = [(text, "abc"[number % 3]) for number, text in enumerate(TEXTS * 4)]
    return labelled(tmp_path_factory.mktemp("data") / "rows", [*rows, ("no label", None)])


@pytest.fixture(scope="module", params=["decoder", "encoder", "roberta", "distilbert"])
def classifier(request, tmp_path_factory) -> Path:
    return write_tiny_classifier(tmp_path_factory.mktemp(request.param) / "model", request.param, labels="abc")


def headed(directory: Path, model: Model, data: Dataset, seed: int = 3) -> Model:
    ctx = make_context(directory, seed=seed)
    luthier_models.classification_head(model, data, ctx)
    return Model.at(ctx.output, "sequence-classifier", build_manifest(ctx.output, "model", "sequence-classifier").hash)


def test_the_body_is_kept_and_the_head_comes_from_the_seed(tmp_path, data):
    tiny = Model.at(write_tiny_model(tmp_path / "tiny"), "causal-lm")
    one, again, other = (headed(tmp_path / str(n), tiny, data, seed) for n, seed in enumerate((3, 3, 4)))
    assert one.hash == again.hash != other.hash
    before, after = load_file(tiny.path / "model.safetensors"), load_file(one.path / "model.safetensors")
    assert {name: after[name].equal(tensor) for name, tensor in before.items()} == dict.fromkeys(before, True)
    assert set(after) - set(before) == {"score.weight"}
    model = load_by_config(one.path)
    assert model.config.id2label == {0: "a", 1: "b", 2: "c"}
    assert model.config.pad_token_id == 0


def test_a_head_for_other_labels_takes_the_place_of_the_first(tmp_path, classifier):
    two = labelled(tmp_path / "rows", [("one", "left"), ("two", "right"), ("three", "left")])
    made = headed(tmp_path / "made", Model.at(classifier, "sequence-classifier"), two)
    before, after = load_by_config(classifier), load_by_config(made.path)
    assert after.config.id2label == {0: "left", 1: "right"}
    bodies = before.base_model.state_dict(), after.base_model.state_dict()
    assert all(bodies[1][name].equal(tensor) for name, tensor in bodies[0].items())
    shapes = [next(each.shape for each in reversed([*m.parameters()])) for m in (before, after)]
    assert [shape[0] for shape in shapes] == [3, 2]


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([("one", "a"), ("two", "a")], "the split 'train' has 1 different labels"),
        ([("one", "a"), ("two", "b"), ("three", "c")], "no training example has the labels 'c'"),
    ],
)
def test_labels_that_cannot_be_learnt_are_refused(tmp_path, rows, says):
    data = labelled(tmp_path / "rows", rows)
    frame = data.frame().with_columns(split=pl.when(pl.col("label") == "c").then(pl.lit("test")).otherwise("split"))
    frame.write_parquet(data.shards[0])
    tiny = Model.at(write_tiny_model(tmp_path / "tiny"), "causal-lm")
    with pytest.raises(InputError, match=says):
        headed(tmp_path / "made", tiny, data)


def test_an_architecture_without_a_classifier_is_refused(tmp_path, data):
    ctx = make_context(tmp_path / "rnn")
    luthier_models.rnn_lm(data, ctx, parameters="20K")
    with pytest.raises(InputError, match="transformers has no classifier of the architecture"):
        headed(tmp_path / "made", Model.at(ctx.output, "causal-lm"), data)


@pytest.mark.parametrize("family", ["gpt2", "opt", "smollm3", "olmo2", "stablelm", "qwen3"])
def test_every_family_of_decoders_takes_a_head_on_packed_rows(tmp_path, data, family):
    ctx = make_context(tmp_path / "fresh")
    luthier_models.fresh(
        data, ctx, family=family, parameters="40K", max_length=64, tokenizer=Vocabulary(kind="character", size=64)
    )
    model = load_by_config(headed(tmp_path / "made", Model.at(ctx.output, "causal-lm"), data).path)
    packed = batched(model)
    assert isinstance(packed, PackedModel)
    assert_logits_are_those_of_transformers(packed)


def assert_logits_are_those_of_transformers(ours) -> None:
    found: dict[int, torch.Tensor] = {}
    # The first three tokens are special ones.
    vocabulary = ours.model.config.vocab_size - 3
    pairs = [([3 + token % vocabulary for token in ids], label) for ids, label in PAIRS]
    with torch.no_grad():
        for members, batch in ours.rows(pairs, 64):
            assert batch.sizes == (1,) * len(members)
            assert batch.labels.tolist() == [pairs[member][1][0] for member in members]
            found |= zip(members, ours.logits(batch), strict=True)
        for number, (ids, _) in enumerate(pairs):
            expected = ours.model(input_ids=torch.tensor([ids])).logits[0]
            torch.testing.assert_close(found[number], expected, rtol=1e-3, atol=1e-5)


def test_batches_give_the_logits_of_single_texts(classifier):
    ours = batched(load_by_config(classifier))
    family = ours.model.config.model_type
    assert isinstance(ours, PaddedClassifier) == (family != "llama")
    # RoBERTa's head reads all rows of a text, and DistilBERT does more between its modules than to call them.
    assert (ours.head is None) == (family in ("roberta", "distilbert"))
    assert_logits_are_those_of_transformers(ours)


def test_the_runtime_agrees_with_transformers_own_pipeline(classifier, tmp_path):
    ours = luthier_models.transformers(Model.at(classifier, "sequence-classifier"), make_context(tmp_path))
    assert list(ours.labels) == ["a", "b", "c"]
    theirs = pipeline("text-classification", model=str(classifier), device="cpu")(TEXTS, top_k=None)
    for text, expected in zip(TEXTS, theirs, strict=True):
        scores = ours.score([text] * 3, "abc")
        assert {label: math.exp(score.log_probabilities[0]) for label, score in zip("abc", scores, strict=True)} == (
            pytest.approx({each["label"]: each["score"] for each in expected}, abs=1e-5)
        )
    assert ours.generate(TEXTS) == [each[0]["label"] for each in theirs]
    assert [logits.shape for logits in ours.logits(TEXTS, ["a"] * 3)] == [(1, 3)] * 3


def test_the_runtime_refuses_other_labels_and_conversations(classifier, tmp_path):
    ours = luthier_models.transformers(Model.at(classifier, "sequence-classifier"), make_context(tmp_path))
    with pytest.raises(InputError, match="the model has no label 'd'; it has a, b, c"):
        ours.score(["text"], ["d"])
    with pytest.raises(InputError, match="was given a conversation"):
        ours.generate([[{"role": "user", "content": "text"}]])


def test_a_text_longer_than_the_context_loses_its_end_with_a_warning(classifier, tmp_path, caplog):
    ours = luthier_models.transformers(Model.at(classifier, "sequence-classifier"), make_context(tmp_path))
    limit = ours.encoder.context
    beginning = "fox " * limit
    with caplog.at_level("WARNING"):
        one, two = (score.log_probabilities for score in ours.score([beginning, beginning + "end"], ["a", "a"]))
    assert one == two
    assert f"2 of 2 texts lose their ends: the model reads {limit} tokens" in caplog.text


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    return luthier_models.transformers(
        Model.at(write_tiny_classifier(tmp_path_factory.mktemp("words") / "model", "decoder"), "sequence-classifier"),
        make_context(tmp_path_factory.mktemp("context")),
    )


@given(st.lists(st.text(max_size=12), min_size=1, max_size=6), st.randoms())
@settings(max_examples=20, deadline=None)
def test_probabilities_sum_to_one_and_do_not_depend_on_company(words, texts, shuffled):
    labels = list(words.labels)
    rows = [[score.log_probabilities[0] for score in words.score([text] * len(labels), labels)] for text in texts]
    for row in rows:
        assert math.fsum(map(math.exp, row)) == pytest.approx(1, abs=1e-5)
    order = shuffled.sample(range(len(texts)), len(texts))
    together = words.score([texts[number] for number in order], [labels[0]] * len(texts))
    assert [each.log_probabilities[0] for each in together] == pytest.approx(
        [rows[number][0] for number in order], abs=1e-4
    )


def test_a_fresh_encoder_keeps_to_its_budget_and_counts_itself(data, tmp_path):
    ctx = make_context(tmp_path / "fresh")
    luthier_models.fresh(data, ctx, family="modernbert", parameters="60K", tokenizer=Vocabulary(size=300))
    model = load_model(ctx.output, "encoder")
    count = sum(each.numel() for each in model.parameters())
    assert 30_000 < count == ctx.metrics["parameters"].value <= 60_000
    made = load_by_config(headed(tmp_path / "made", Model.at(ctx.output, "encoder"), data).path)
    assert sorted(head_modules(made)) == ["classifier", "drop", "head"]
    assert made.config.classifier_pooling == "mean"


SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
MASKED = {
    "bert": (BertForMaskedLM, BertConfig, SIZES),
    "roberta": (RobertaForMaskedLM, RobertaConfig, SIZES),
    "distilbert": (DistilBertForMaskedLM, DistilBertConfig, {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64}),
}


@pytest.mark.parametrize("family", MASKED)
def test_an_encoder_trained_on_masked_tokens_takes_a_head(tmp_path, data, family):
    """Their checkpoints have no pooler: the head's weights, and those of BERT's pooler, come from the seed."""
    tokenizer = tiny_tokenizer(None)
    kind, configured, sizes = MASKED[family]
    config = configured(vocab_size=len(tokenizer), pad_token_id=0, **sizes)
    save_model(kind(config), tokenizer, tmp_path / "hub")
    ctx = make_context(tmp_path / "body")
    luthier_models.pretrained(ctx, model=str(tmp_path / "hub"), form="encoder")
    one, again = (headed(tmp_path / name, Model.at(ctx.output, "encoder"), data) for name in ("one", "again"))
    assert one.hash == again.hash
    before, after = kind.from_pretrained(tmp_path / "hub"), load_by_config(one.path)
    kept = after.base_model.state_dict()
    assert all(kept[name].equal(tensor) for name, tensor in before.base_model.state_dict().items())
    assert_logits_are_those_of_transformers(batched(after))


def test_pretrained_takes_classifiers_and_says_what_else_there_is(classifier, tmp_path):
    ctx = make_context(tmp_path / "taken")
    luthier_models.pretrained(ctx, model=str(classifier), form="sequence-classifier")
    assert load_by_config(ctx.output).state_dict().keys() == load_by_config(classifier).state_dict().keys()
    with pytest.raises(InputError, match=r"no causal language model but .*ForSequenceClassification") as caught:
        luthier_models.pretrained(make_context(tmp_path / "refused"), model=str(classifier))
    assert caught.value.remedy == "Write `form: sequence-classifier` beside `model`."


def test_others_load_what_is_written(classifier):
    model = AutoModelForSequenceClassification.from_pretrained(classifier).eval()
    tokenizer = AutoTokenizer.from_pretrained(classifier)
    rng = random.Random(1)
    texts = [" ".join(rng.choices(["fox", "row", "file"], k=rng.randint(1, 9))) for _ in range(5)]
    batch = tokenizer(texts, padding=True, return_tensors="pt", padding_side="right")
    batch.pop("token_type_ids", None)
    with torch.no_grad():
        together = model(**batch).logits
    ours = batched(load_by_config(classifier))
    pairs = [(tokenizer(text)["input_ids"], [0]) for text in texts]
    for members, rows in ours.rows(pairs, 512):
        torch.testing.assert_close(ours.logits(rows).detach(), together[members], rtol=1e-3, atol=1e-5)
