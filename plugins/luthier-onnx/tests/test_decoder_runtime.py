"""Plain ONNX Runtime on a decoder graph. genai's builder writes one of the same inputs and outputs."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from luthier import InputError, Model
from luthier.testing import make_context
from luthier_models.runtime import TransformersGenerator
from luthier_onnx import genai, one_by_one
from luthier_onnx.decoder import DecoderGenerator

PROMPTS = ["Return the number of items.", "Öffne die Datei: 開く", "Write " * 60]
COMPLETIONS = ["The number of items in the list.", "négatif", "it to a file."]


@pytest.fixture(scope="module")
def directory(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    ctx = make_context(tmp_path_factory.mktemp("export"))
    genai(Model.at(tiny_llama, "causal-lm"), ctx)
    shutil.copy(tiny_llama / "config.json", ctx.output / "config.json")
    return ctx.output


@pytest.fixture(scope="module")
def generator(directory: Path) -> DecoderGenerator:
    return DecoderGenerator(directory)


@pytest.fixture(scope="module")
def reference(tiny_llama: Path) -> TransformersGenerator:
    return TransformersGenerator(tiny_llama)


@pytest.mark.parametrize("chunk", [1, 7, 128])
def test_logits_equal_those_of_pytorch_however_they_are_chunked(generator, reference, monkeypatch, chunk):
    monkeypatch.setattr(one_by_one, "CHUNK", chunk)
    ours, theirs = generator.logits(PROMPTS, COMPLETIONS), reference.logits(PROMPTS, COMPLETIONS)
    for mine, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-3, atol=1e-3)


def test_completions_equal_those_of_pytorch(generator, reference):
    assert generator.generate(PROMPTS, max_new_tokens=12) == reference.generate(PROMPTS, max_new_tokens=12)


def test_scores_equal_those_of_pytorch(generator, reference):
    for mine, other in zip(generator.score(PROMPTS, COMPLETIONS), reference.score(PROMPTS, COMPLETIONS), strict=True):
        np.testing.assert_allclose(mine.log_probabilities, other.log_probabilities, atol=1e-3)


def test_a_directory_without_a_graph_or_with_a_broken_one_is_refused(directory, tmp_path):
    with pytest.raises(InputError, match=r"there is no .*model\.onnx"):
        DecoderGenerator(tmp_path)
    copy = shutil.copytree(directory, tmp_path / "copy")
    (copy / "model.onnx").write_bytes((copy / "model.onnx").read_bytes()[:1000])
    with pytest.raises(InputError, match="cannot be loaded by onnxruntime"):
        DecoderGenerator(copy)
