"""A model of more than 2 GB, which no protobuf file holds, through every exporter and made smaller after it."""

from __future__ import annotations

import json

import pytest

import luthier

LIMIT = 2**31
RECIPE = """\
luthier: 1
name: large
seed: 1
steps:
  - source: jsonl
    path: rows.jsonl
  - format: language-modelling
    split: {}
  - architecture: fresh
    parameters: 600M
    layers: 2
    width: 1024
    heads: 8
    mlp_width: 90000
    tokenizer: {kind: byte}
  - export: genai
    verified_tokens: 64
  - quantize: int8
  - export: dynamo
    from: fresh
    verified_tokens: 64
  - quantize: dynamic-int8
"""


def weights(directory) -> int:
    """The bytes of the largest file."""
    return max(path.stat().st_size for path in directory.rglob("*") if path.is_file())


@pytest.mark.slow
def test_a_model_of_more_than_2_gb_is_exported_and_made_smaller(tmp_path, monkeypatch):
    monkeypatch.setenv("LUTHIER_PLUGINS", "models,onnx,quantize,text")
    rows = [{"text": f"The ferry to island {number} leaves at {number % 24} o'clock."} for number in range(40)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    (tmp_path / "recipe.yaml").write_text(RECIPE, encoding="utf-8")
    run = luthier.run(tmp_path / "recipe.yaml", home=tmp_path / "home")
    steps = {step.id: step for step in run.steps}
    for exporter, quantizer in (("genai", "int8"), ("dynamo", "dynamic-int8")):
        whole, small = run.model(exporter).path, run.model(quantizer).path
        assert weights(whole) > LIMIT
        assert weights(small) < 0.3 * weights(whole)
        # That of what was loaded again, in a process of its own.
        assert steps[exporter].metrics["export_logit_error"] < 1e-3
        assert steps[exporter].metrics["export_greedy_agreement"] == 1
        assert 0 < steps[quantizer].metrics["mean_kl"] < 0.1
