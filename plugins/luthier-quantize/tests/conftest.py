from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from luthier import Model, OnnxModel
from luthier.testing import make_context


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from luthier_models.testing import write_tiny_model

    return write_tiny_model(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(scope="session")
def untied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from luthier_models.testing import write_tiny_model

    return write_tiny_model(tmp_path_factory.mktemp("untied") / "model", tied=False)


@pytest.fixture(scope="session")
def export(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Exports a model directory for onnxruntime-genai, once."""
    from luthier_onnx import genai

    done: dict[Path, OnnxModel] = {}

    def exported(model: Path) -> OnnxModel:
        if model not in done:
            ctx = make_context(tmp_path_factory.mktemp("export"))
            genai(Model.at(model, "causal-lm"), ctx)
            done[model] = OnnxModel.at(ctx.output, "genai", "0" * 64)
        return done[model]

    return exported


@pytest.fixture(scope="session")
def luthier_samples(tiny: Path, export: Any) -> dict[str, Any]:
    return {"model": Model.at(tiny, "causal-lm", "0" * 64), "onnx": [export(tiny)]}
