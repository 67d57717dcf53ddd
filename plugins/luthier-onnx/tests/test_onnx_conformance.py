"""The plugin keeps the rules for plugins."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from luthier import Model, OnnxModel
from luthier.testing import conformance, make_context


@pytest.fixture(scope="session")
def luthier_samples(tiny_llama: Path, recurrent: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    from luthier_onnx import genai

    model = Model.at(tiny_llama, "causal-lm", "0" * 64)
    ctx = make_context(tmp_path_factory.mktemp("genai"))
    genai(model, ctx)
    return {"model": model, "onnx": [OnnxModel.at(ctx.output, "genai"), OnnxModel.at(recurrent.onnx, "decoder")]}


test_conformance = conformance("onnx", slow={"export:dynamo/killed", "export:genai/killed"})
