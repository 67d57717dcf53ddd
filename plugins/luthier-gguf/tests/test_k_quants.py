"""llama.cpp's quantizer on exported models."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from gguf import GGUFReader

from luthier import InputError, Model, OnnxModel
from luthier.testing import make_context
from luthier_gguf import gguf, k_quants, library
from luthier_models.runtime import TransformersGenerator

pytest.importorskip("llama_cpp", reason=library.INSTALL)

from luthier_gguf.llama import quantize
from luthier_gguf.runtime import LlamaCppGenerator

PROMPT, COMPLETION = "Return the number of items.", "The number of items in the list, or None."


@pytest.fixture(scope="module")
def source(tiny):
    """A model whose rows, unlike those of most tiny ones, are multiples of 256, but for one matrix in each layer."""
    return tiny("llama", hidden_size=256, intermediate_size=320, head_dim=64)


@pytest.fixture(scope="module")
def export(source, tmp_path_factory):
    def write(precision):
        ctx = make_context(tmp_path_factory.mktemp(precision))
        gguf(Model.at(source, "causal-lm"), ctx, precision=precision)
        return OnnxModel.at(ctx.output, "gguf")

    return write


def test_more_bits_lose_less(source, export, tmp_path):
    exported = export("f32")
    [expected] = TransformersGenerator(source, dtype="float32").logits([PROMPT], [COMPLETION])
    sizes, errors = [], []
    for precision in ("q2_k", "q4_k_m", "q6_k"):
        ctx = make_context(tmp_path / precision)
        k_quants(exported, ctx, precision=precision)
        assert sorted(path.name for path in ctx.output.iterdir()) == sorted(
            path.name for path in exported.path.iterdir()
        )
        [found] = LlamaCppGenerator(ctx.output, threads=1).logits([PROMPT], [COMPLETION])
        sizes.append(ctx.metrics["megabytes"].value)
        errors.append(float((found - expected).std() / expected.std()))
    assert sizes == sorted(sizes)
    assert errors == sorted(errors, reverse=True)


def test_the_table_says_which_matrices_got_another_type(export, tmp_path):
    ctx = make_context(tmp_path)
    k_quants(export("f32"), ctx, precision="q4_k_m")
    types = dict(pl.read_parquet(ctx.notes / "tables" / "types.parquet").select("type", "tensors").iter_rows())
    found = {each.name: each.tensor_type.name for each in GGUFReader(ctx.output / "model.gguf").tensors}
    assert types.keys() == {name.lower() for name in found.values()}
    assert found["blk.0.attn_q.weight"] == "Q4_K"
    assert not found["blk.0.ffn_down.weight"].endswith("_K")  # rows of 320


def test_q8_0_is_the_same_from_llama_cpp_and_from_the_exporter(export, tmp_path):
    quantize(export("f32").path / "model.gguf", tmp_path / "theirs.gguf", 7, 1)
    ours = {each.name: each for each in GGUFReader(export("q8_0").path / "model.gguf").tensors}
    theirs = {each.name: each for each in GGUFReader(tmp_path / "theirs.gguf").tensors}
    assert ours.keys() == theirs.keys()
    for name, each in ours.items():
        assert each.tensor_type == theirs[name].tensor_type
        np.testing.assert_array_equal(each.data, theirs[name].data)


def test_what_is_quantized_already_is_refused(export, tmp_path):
    ctx = make_context(tmp_path)
    with pytest.raises(InputError, match="quantized already, as q8_0"):
        k_quants(export("q8_0"), ctx, precision="q4_k_m")
    assert list(ctx.output.iterdir()) == []
