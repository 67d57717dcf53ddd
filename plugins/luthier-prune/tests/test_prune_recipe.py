"""A model that lost too much does not ship: a recipe's gate refuses a cut, and lets the healed model pass."""

from __future__ import annotations

import json

import pytest

import luthier
from luthier.errors import GateRefused

START = """
luthier: 1
name: short
steps:
  - source: jsonl
    path: texts.jsonl
  - format: language-modelling
    split: {valid: 0.1, test: 0.2}
  - architecture: fresh
    parameters: 200K
    layers: 6
    tokenizer: {kind: character, size: 64}
  - tune: full
    learning_rate: 0.005
    max_steps: 80
  - validate: perplexity
    id: whole
    subjects: [candidate]
    gate: {perplexity: {at_most: 3}}
  - prune: layers
    ratio: 0.67
    curve: 3
"""
HEALING = """
  - tune: distill
    teacher: full
    learning_rate: 0.003
    max_steps: 60
"""
DELIVERY = """
  - validate: perplexity
    id: delivered
    subjects: [candidate]
    gate: {perplexity: {at_most: 3}}
"""


@pytest.mark.slow
def test_a_cut_without_healing_is_refused_and_the_healed_model_passes(tmp_path, monkeypatch):
    words = ["river", "ferry", "morning", "fog", "harbour", "crate", "apple", "bicycle"]
    texts = [f"The {first} is before the {second}, {n} times." for n, first in enumerate(words) for second in words]
    (tmp_path / "texts.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LUTHIER_PLUGINS", "models,prune,text,tune,validate")

    def run(steps: str) -> luthier.Run:
        (tmp_path / "recipe.yaml").write_text(START + steps, encoding="utf-8")
        return luthier.run("recipe.yaml", display=False, jobs=1)

    with pytest.raises(GateRefused, match="delivered: perplexity is"):
        run(DELIVERY)
    healed = run(HEALING + DELIVERY)
    cut = healed.step("layers").metrics
    assert cut["removed_layers"] == 4
    assert cut["perplexity"] > 3 * cut["perplexity_before"]
    assert healed.step("distill").metrics["teacher_kl"] < 0.5 * cut["mean_kl"]
    assert [gate.passed for gate in healed.gates] == [True, True]
