"""The plugin keeps the rules for plugins."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from luthier import Model, OnnxModel
from luthier.testing import conformance, make_context


@pytest.fixture(scope="session")
def luthier_samples(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    from luthier_onnx import genai

    def exported(room: str) -> Path:
        ctx = make_context(tmp_path_factory.mktemp(room))
        genai(model, ctx)
        return ctx.output

    model = Model.at(tiny_llama, "causal-lm", "0" * 64)
    # optimum's exports have the same inputs and outputs, and the model's own configuration.
    decoder = exported("decoder")
    shutil.copy(tiny_llama / "config.json", decoder / "config.json")
    return {"model": model, "onnx": [OnnxModel.at(exported("genai"), "genai"), OnnxModel.at(decoder, "decoder")]}


test_conformance = conformance("onnx")
