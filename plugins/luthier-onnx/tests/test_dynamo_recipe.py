"""From texts to a verified ONNX model and its measures, as a recipe says it: models of our own and of both kinds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

import luthier
from luthier.cli import app

START = """
luthier: 1
name: exported
steps:
  - source: jsonl
    path: data.jsonl
  - format: FORMAT
    split: {valid: 0.1, test: 0.2}
"""
TEXTS = (
    START.replace("FORMAT", "language-modelling")
    + """
  - architecture: ARCHITECTURE
    parameters: 80K
    tokenizer: {kind: character, size: 64}
  - tune: full
    max_steps: 3
    valid_examples: 2
  - export: dynamo
  - validate: parity
    gate: {mean_kl: {at_most: 0.0001}, top1_agreement: {at_least: 1}}
  - validate: bits-per-byte
"""
)
PAIRS = (
    START.replace("FORMAT", "prompt-completion\n    prompt: 'Shout: {text}'\n    completion: '{shouted}'")
    + """
  - architecture: ARCHITECTURE
    parameters: 200K
    tokenizer: {kind: character, size: 96}
  - tune: full
    max_steps: 3
    valid_examples: 2
  - export: dynamo
  - validate: parity
    gate: {mean_kl: {at_most: 0.0001}, top1_agreement: {at_least: 1}}
  - validate: chrf
    max_new_tokens: 8
"""
)
LABELS = (
    START.replace("FORMAT", "classification\n    id: labelled\n    label: half")
    + """
  - architecture: fresh
    family: FAMILY
    parameters: 200K
    tokenizer: {kind: character, size: 96}
  - tune: classification-head
  - tune: full
    max_steps: 20
    valid_examples: 4
  - export: dynamo
  - quantize: dynamic-int8
  - validate: classification
    gate: {accuracy: {at_least: reference - 0.1}}
"""
)
slow = pytest.mark.slow


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    words = ["river", "ferry", "morning", "fog", "harbour", "crate", "apple", "bicycle"]
    texts = [f"The {first} is before the {second}, {n} times." for n, first in enumerate(words) for second in words]
    halves = ["first" if number < len(texts) // 2 else "second" for number in range(len(texts))]
    rows = [
        json.dumps({"text": text, "shouted": text.upper(), "half": half})
        for text, half in zip(texts, halves, strict=True)
    ]
    (tmp_path / "data.jsonl").write_text("\n".join(rows), encoding="utf-8")
    monkeypatch.setenv("LUTHIER_HOME", str(tmp_path / "home"))

    def run(recipe: str, architecture: str) -> luthier.Run:
        (tmp_path / "recipe.yaml").write_text(recipe.replace("ARCHITECTURE", architecture), encoding="utf-8")
        return luthier.run(tmp_path / "recipe.yaml")

    return run


@pytest.mark.parametrize(
    "architecture",
    [
        "rnn-lm\n    cell: gru",
        pytest.param("rnn-lm\n    cell: lstm", marks=slow),
        pytest.param("fresh\n    family: gpt2", marks=slow),
    ],
)
def test_texts_to_bits_per_byte(run, architecture):
    found = run(TEXTS, architecture)
    assert found.state == "done"
    exported = found.model()
    assert (exported.kind, exported.form) == ("onnx", "decoder")
    metrics = found.step("bits-per-byte").metrics
    assert 0 < metrics["bits_per_byte"] < 10
    assert found.step("dynamo").metrics["export_logit_error"] < 1e-4


@pytest.mark.parametrize(
    "architecture",
    [
        pytest.param("rnn-seq2seq", marks=slow),
        pytest.param("fresh\n    family: t5", marks=slow),
        pytest.param("fresh\n    family: marian", marks=slow),
    ],
)
def test_pairs_to_chrf(run, architecture):
    found = run(PAIRS, architecture)
    assert found.state == "done"
    assert found.model().form == "encoder-decoder"
    assert found.step("chrf").metrics["chrf"] >= 0
    assert found.step("parity").metrics["top1_agreement"] == 1


@slow
@pytest.mark.parametrize("family", ["llama", "modernbert"])
def test_texts_to_labels(run, family):
    found = run(LABELS.replace("FAMILY", family), "")
    assert found.state == "done"
    assert (found.model().kind, found.model().form) == ("onnx", "sequence-classifier")
    assert found.step("dynamic-int8").metrics["mean_kl"] < 0.05
    answer = CliRunner().invoke(app, ["generate", "latest", "The river is before the fog, 0 times."])
    assert answer.exit_code == 0
    assert answer.output.strip() in ("first", "second")
