"""The plugin keeps the rules for plugins."""

from __future__ import annotations

from typing import Any

import pytest

from luthier import Model, OnnxModel
from luthier.testing import conformance, make_context
from luthier_gguf import gguf


@pytest.fixture(scope="session")
def luthier_samples(tiny: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    model = Model.at(tiny("llama"), "causal-lm", "0" * 64)
    ctx = make_context(tmp_path_factory.mktemp("exported"))
    gguf(model, ctx, precision="f16")
    return {"model": model, "onnx": OnnxModel.at(ctx.output, "gguf", "1" * 64)}


# As with the other exporters: each run of it starts a process that loads PyTorch.
test_conformance = conformance("gguf", slow={"export:gguf/killed"})
