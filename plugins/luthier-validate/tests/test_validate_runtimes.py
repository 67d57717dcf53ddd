"""The validators on a model that PyTorch and ONNX Runtime run; needs luthier-models, -onnx and -quantize."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("luthier_models")
pytest.importorskip("luthier_onnx")
pytest.importorskip("luthier_quantize")

from luthier import Model, OnnxModel
from luthier.testing import make_context
from luthier_models.runtime import TransformersGenerator
from luthier_models.testing import write_tiny_model
from luthier_onnx import genai
from luthier_onnx.runtime import GenaiGenerator
from luthier_quantize import int4, int8
from luthier_validate import chrf, classification, parity, perplexity, rouge

ROWS = [
    ("Summarize:\nThe cache keeps every answer. It may fill.", "Keeps answers."),
    ("Summarize:\nRaise an error. Then stop.", "Raises an error."),
    ("Summarize:\nÖffne die Datei.", "Öffnet."),
]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("tiny") / "model")


def test_both_runtimes_measure_the_same(tiny, pairs, tmp_path):
    export = make_context(tmp_path / "export")
    genai(Model.at(tiny, "causal-lm"), export)
    data = pairs(*ROWS)
    subject, reference = GenaiGenerator(export.output), TransformersGenerator(tiny)
    found = []
    for number, model in enumerate((subject, reference)):
        ctx = make_context(tmp_path / str(number))
        perplexity(model, data, ctx)
        rouge(model, data, ctx, max_new_tokens=8)
        chrf(model, data, ctx, max_new_tokens=8)
        classification(model, data, ctx)
        found.append({name: metric.value for name, metric in ctx.metrics.items()})
    assert found[0] == pytest.approx(found[1], rel=1e-4)
    ctx = make_context(tmp_path / "parity")
    parity(subject, reference, data, ctx)
    assert ctx.metrics["mean_kl"].value < 1e-8
    assert ctx.metrics["top1_agreement"].value == 1
    assert ctx.metrics["perplexity_ratio"].value == pytest.approx(1, abs=1e-4)


def test_quantization_shows(tiny, pairs, tmp_path):
    data, reference = pairs(*ROWS), TransformersGenerator(tiny)
    export = make_context(tmp_path / "export")
    genai(Model.at(tiny, "causal-lm"), export)
    found = {}
    for quantize in (int8, int4):
        name = quantize.__name__
        packed, ctx = make_context(tmp_path / name), make_context(tmp_path / f"{name}-parity")
        quantize(OnnxModel.at(export.output, "genai"), packed)
        parity(GenaiGenerator(packed.output), reference, data, ctx)
        found[name] = ctx.metrics["mean_kl"].value
    assert 0 < found["int8"] < 0.05 < found["int4"]
