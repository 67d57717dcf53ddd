"""Integers in graphs: what is packed is what was chosen, read back or found again by its values."""

from __future__ import annotations

import shutil

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from luthier import InputError, Model
from luthier.testing import make_context
from luthier_models.loading import load_causal_lm
from luthier_onnx import genai
from luthier_onnx.packed import PACKED_FILE, PackedMatrix, read_packed, write_packed
from luthier_onnx.packing import PackableGraph, pack_exactly
from luthier_onnx.runtime import GenaiGenerator

PROMPTS, COMPLETIONS = ["Return the number of items."], ["The number of items in the list, or None."]


def random_matrix(seed: int, rows: int, columns: int, bits: int, block_size: int, *, middle: bool = False):
    rng = np.random.default_rng(seed)
    blocks = -(-columns // block_size)
    most = 2**bits
    return PackedMatrix(
        rng.integers(0, most, (rows, columns), np.uint8),
        rng.uniform(0.01, 0.02, (rows, blocks)).astype(np.float32),
        np.full((rows, blocks), most // 2, np.uint8) if middle else rng.integers(0, most, (rows, blocks), np.uint8),
        bits,
        block_size,
    )


def same(one: PackedMatrix, other: PackedMatrix) -> bool:
    return (one.bits, one.block_size) == (other.bits, other.block_size) and all(
        np.array_equal(getattr(one, name), getattr(other, name)) for name in ("integers", "scales", "zero_points")
    )


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 99), st.integers(1, 5), st.integers(1, 70), st.sampled_from([4, 8]), st.sampled_from([16, 32]))
def test_a_packed_matrix_is_read_back_as_it_was(tmp_path_factory, seed, rows, columns, bits, block_size):
    directory = tmp_path_factory.mktemp("packed")
    matrix = random_matrix(seed, rows, columns, bits, block_size)
    write_packed(directory, {"a.weight": matrix})
    assert same(read_packed(directory)["a.weight"], matrix)


def quantized(directory, source, matrices):
    """A copy of a model whose weights are what the matrices stand for, with their integers beside it."""
    shutil.copytree(source, directory)
    tensors = load_file(directory / "model.safetensors")
    save_file(tensors | {name: each.values for name, each in matrices.items()}, directory / "model.safetensors")
    write_packed(directory, matrices)
    return directory


@pytest.fixture(scope="module")
def matrices(tiny_llama):
    """Random integers for every matrix of the model, of 4 and of 8 bits; those of a layer's attention alike."""
    found = {}
    for seed, (name, weight) in enumerate(load_causal_lm(tiny_llama).named_parameters()):
        if weight.ndim == 2:
            bits, block_size = (8, 64) if "embed" in name or "down" in name else (4, 32 if "layers.0" in name else 16)
            found[name] = random_matrix(seed, *weight.shape, bits, block_size, middle="up_proj" in name)
    return found


def test_an_export_packs_exactly_the_integers_that_were_chosen(tiny_llama, matrices, tmp_path):
    model = quantized(tmp_path / "model", tiny_llama, matrices)
    ctx = make_context(tmp_path / "export")
    genai(Model.at(model, "causal-lm"), ctx)
    graph = onnx.load(ctx.output / "model.onnx").graph
    stored = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    products = [node for node in graph.node if node.op_type == "MatMulNBits"]
    assert not [node for node in graph.node if node.op_type in ("MatMul", "Gather") and "embed" in node.name]
    chosen = {each.blocks[0].tobytes(): each for each in matrices.values()}
    rows = 0
    for node in products:
        blocks, scales, *zero_points = (stored[name] for name in node.input[1:])
        start = 0
        while start < len(blocks):
            matrix = chosen.pop(blocks[start].tobytes())
            part = slice(start, start + len(matrix.integers))
            assert np.array_equal(blocks[part], matrix.blocks)
            assert np.array_equal(scales[part], matrix.scales)
            if zero_points:
                assert np.array_equal(zero_points[0][part], matrix.packed_zero_points)
            else:
                assert matrix.is_symmetric
            start = part.stop
        rows += len(blocks)
    assert not chosen
    assert rows == sum(len(matrix.integers) for matrix in matrices.values())


def test_the_packed_graph_computes_what_the_integers_stand_for(tiny_llama, matrices, tmp_path):
    model = quantized(tmp_path / "model", tiny_llama, matrices)
    whole, packed = make_context(tmp_path / "whole"), make_context(tmp_path / "packed")
    genai(Model.at(model, "causal-lm"), packed)
    (model / PACKED_FILE).unlink()
    genai(Model.at(model, "causal-lm"), whole)
    [theirs], [ours] = (GenaiGenerator(each.output).logits(PROMPTS, COMPLETIONS) for each in (whole, packed))
    # Inputs of products are rounded to 8 bits as they run.
    assert np.abs(ours - theirs).max() < 0.1 * np.abs(theirs).max()
    assert np.corrcoef(ours.ravel(), theirs.ravel())[0, 1] > 0.999
    assert packed.metrics["megabytes"].value < whole.metrics["megabytes"].value


def test_integers_that_are_not_of_the_graph_are_refused(tiny_llama, matrices, tmp_path):
    ctx = make_context(tmp_path / "export")
    genai(Model.at(tiny_llama, "causal-lm"), ctx)
    before = (ctx.output / "model.onnx").read_bytes()
    with pytest.raises(InputError, match="not in the exported graph") as caught:
        pack_exactly(ctx.output, matrices)
    assert "quantize: int4" in caught.value.remedy
    assert (ctx.output / "model.onnx").read_bytes() == before


@pytest.mark.parametrize("damage", ["cut", "foreign"])
def test_a_damaged_file_of_integers_is_refused(matrices, tmp_path, damage):
    write_packed(tmp_path, dict(list(matrices.items())[:1]))
    path = tmp_path / PACKED_FILE
    path.write_bytes(path.read_bytes()[:200]) if damage == "cut" else save_file({"a": np.zeros(1)}, path)
    with pytest.raises(InputError, match="cannot be read as quantized weights"):
        read_packed(tmp_path)


def test_a_file_that_is_no_graph_is_refused(tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"no graph")
    with pytest.raises(InputError, match="is no ONNX graph"):
        PackableGraph(tmp_path)
    with pytest.raises(InputError, match="there is no"):
        PackableGraph(tmp_path / "elsewhere")


def test_blocks_that_do_not_divide_an_embedding_are_refused(tiny_llama, tmp_path):
    ctx = make_context(tmp_path)
    genai(Model.at(tiny_llama, "causal-lm"), ctx)
    graph = PackableGraph(ctx.output)
    [table] = [name for name in graph.names if graph.is_table(name)]
    assert graph.is_head(table)
    with pytest.raises(InputError, match="do not divide"):
        graph.pack(table, random_matrix(0, *graph.rows(table).shape, 8, 128))
