"""Classifiers, exported by torch's own exporter: bodies of decoders, ModernBERT, BERT; and their runtime."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from luthier import InputError, Model, OnnxModel, find_model
from luthier.testing import make_context
from luthier_onnx.classifier import GraphClassifier

LABELS = ("bad", "good", "neither")
# The last two end with the token of padding: one is a text, and one is nothing else.
TEXTS = ["Return the number of items.", "Öffne die Datei: 開く", "Write " * 30, "a", "", "Say it.<|pad|>", "<|pad|>"]
slow = pytest.mark.slow


def write_bert(directory: Path) -> Path:
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    from luthier_models.normalise import save_model
    from luthier_models.testing import tiny_tokenizer

    tokenizer = tiny_tokenizer(None)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=128,
        initializer_range=0.2,
        pad_token_id=tokenizer.pad_token_id,
        id2label=dict(enumerate(LABELS)),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        save_model(BertForSequenceClassification(config), tokenizer, directory)
    return directory


@pytest.fixture(
    scope="session", params=["decoder", pytest.param("encoder", marks=slow), pytest.param("bert", marks=slow)]
)
def classifier(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):
    """A model, what `dynamo` made of it, and the metrics."""
    from luthier_models.testing import write_tiny_classifier
    from luthier_onnx import dynamo

    room = tmp_path_factory.mktemp("classifier")
    if request.param == "bert":
        model = write_bert(room / "model")
    else:
        model = write_tiny_classifier(room / "model", request.param, labels=LABELS)
    ctx = make_context(room / "export")
    dynamo(Model.at(model, "sequence-classifier"), ctx)
    return model, ctx.output, {name: metric.value for name, metric in ctx.metrics.items()}


def test_an_exported_classifier_was_compared_with_pytorch(classifier):
    _, _, metrics = classifier
    assert metrics["export_logit_error"] < 1e-4
    assert metrics["export_greedy_agreement"] == metrics["export_top1_agreement"] == 1


@pytest.mark.parametrize("batch", [1, 3, 8])
def test_labels_scores_and_logits_are_those_of_pytorch_in_padded_batches(classifier, batch):
    from luthier_models.classifying import TransformersClassifier

    model, onnx_model, _ = classifier
    ours, theirs = GraphClassifier(onnx_model, batch_size=batch), TransformersClassifier(model, batch_tokens=1)
    assert ours.labels == theirs.labels == LABELS
    some = [LABELS[number % 3] for number in range(len(TEXTS))]
    for mine, other in zip(ours.logits(TEXTS, some), theirs.logits(TEXTS, some), strict=True):
        assert mine.shape == (1, 3)
        np.testing.assert_allclose(mine, other, rtol=1e-3, atol=1e-4)
    for mine, other in zip(ours.score(TEXTS, some), theirs.score(TEXTS, some), strict=True):
        np.testing.assert_allclose(mine.log_probabilities, other.log_probabilities, atol=1e-4)
    assert ours.generate(TEXTS) == theirs.generate(TEXTS)


def test_an_exported_classifier_is_found_and_served_as_one(classifier, luthier_context):
    from luthier_onnx import onnxruntime

    _, onnx_model, _ = classifier
    found = find_model(str(onnx_model))
    assert isinstance(found, OnnxModel)
    assert found.form == "sequence-classifier"
    served = onnxruntime(found, luthier_context)
    assert served.generate(TEXTS[:2]) == GraphClassifier(onnx_model).generate(TEXTS[:2])
    with pytest.raises(InputError, match="no label 'other'; it has bad, good, neither"):
        served.score(TEXTS[:1], ["other"])
    with pytest.raises(InputError, match="given a conversation"):
        served.generate([[{"role": "user", "content": "Hello."}]])


def test_labels_that_are_not_the_graphs_are_refused(classifier, tmp_path):
    copy = shutil.copytree(classifier[1], tmp_path / "copy")
    config = json.loads((copy / "config.json").read_text())
    config["id2label"], config["label2id"] = {"0": "one", "1": "two"}, {"one": 0, "two": 1}
    (copy / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=r"names 2 labels, and model\.onnx gives 3 logits"):
        GraphClassifier(copy)
