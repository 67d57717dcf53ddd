from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from luthier import Dataset, Model, OnnxModel
from luthier.testing import make_context

TEXT = "the number of items in a list is read from a file, and written to the table if no value is found"


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    import numpy as np
    import polars as pl

    directory = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(TEXT.split(), 40)) for _ in range(60)]
    ids = [f"row-{number}" for number in range(len(texts))]
    splits = ["valid" if number % 3 == 0 else "train" for number in range(len(texts))]
    rows = pl.DataFrame({"id": ids, "group": ids, "split": splits, "text": texts})
    rows.write_parquet(directory / "shard-00000.parquet")
    return Dataset.at(directory, "language-modelling")


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from luthier_models.testing import write_tiny_model

    return write_tiny_model(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(scope="session")
def uneven(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model, some of whose norms' outputs are far larger than others, as in trained models."""
    import shutil

    import torch

    from luthier_models.loading import load_causal_lm

    directory = tmp_path_factory.mktemp("uneven") / "model"
    shutil.copytree(tiny, directory)
    model = load_causal_lm(tiny, dtype="float32")
    generator = torch.Generator().manual_seed(6)
    with torch.no_grad():
        for layer in model.model.layers:
            for norm in (layer.input_layernorm, layer.post_attention_layernorm):
                factors = torch.randn(norm.weight.shape, generator=generator).mul(1.2).exp()
                norm.weight.mul_(factors / factors.square().mean().sqrt())
    model.save_pretrained(directory)
    return directory


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


@pytest.fixture(scope="session")
def luthier_configurations() -> dict[str, dict[str, Any]]:
    """Little calibration data, for speed; `mixed` has no budget by default."""
    return {
        "gptq": {"calibration_tokens": 512},
        "awq": {"calibration_tokens": 512},
        "mixed": {"calibration_tokens": 512, "max_megabytes": 0.22},
        "smooth": {"calibration_tokens": 512},
    }
