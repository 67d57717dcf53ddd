"""`int8` and `int4` on exported graphs, without data."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from luthier import InputError, OnnxModel, PluginError
from luthier.artifacts import hash_file, list_files
from luthier.testing import make_context
from luthier_models.grids import Quantized
from luthier_models.runtime import TransformersGenerator
from luthier_onnx.packed import PackedMatrix
from luthier_onnx.runtime import GenaiGenerator
from luthier_quantize import int4, int8
from luthier_quantize.weights import as_packed
from luthier_validate.divergence import kl_divergences

PROMPTS = ["Return the number of items.", "Open the file and read it."]
COMPLETIONS = ["The number of items in the list.", "Raise an error if the value is not a number."]


def quantized(component, onnx_model: OnnxModel, directory: Path, **configuration) -> Path:
    ctx = make_context(directory)
    component(onnx_model, ctx, **configuration)
    size = sum(path.stat().st_size for path in list_files(ctx.output)) / 1e6
    assert ctx.metrics["megabytes"].value == pytest.approx(size)
    assert 0 < ctx.metrics["mean_kl"].value < 3
    return ctx.output


def test_weights_that_a_finished_runs_model_shares_with_the_store_are_read(tiny, export, tmp_path):
    shared = tmp_path / "shared"
    shutil.copytree(export(tiny).path, shared)
    os.link(shared / "model.onnx.data", tmp_path / "link")
    assert quantized(int8, OnnxModel.at(shared, "genai"), tmp_path / "quantized").is_dir()


def mean_kl(reference: Path, exported: Path) -> float:
    ours, theirs = (
        np.concatenate(list(runtime(path).logits(PROMPTS, COMPLETIONS)))
        for runtime, path in ((GenaiGenerator, exported), (TransformersGenerator, reference))
    )
    return float(kl_divergences(theirs, ours).mean())


def bits_of(directory: Path) -> dict[str, set[int]]:
    """The bits of the weights, by operator; 32 for those that are left in floating point."""
    found: dict[str, set[int]] = {}
    for node in onnx.load(directory / "model.onnx", load_external_data=False).graph.node:
        if node.op_type in ("MatMul", "MatMulNBits", "GatherBlockQuantized") or "embed_tokens/Gather" in node.name:
            bits = [each.i for each in node.attribute if each.name == "bits"]
            if node.op_type != "Reshape":
                found.setdefault(node.op_type, set()).update(bits or [32])
    return found


@pytest.mark.parametrize(
    ("component", "configuration", "bits", "bound"),
    [
        (int8, {}, {"MatMulNBits": {8}, "GatherBlockQuantized": {8}}, 0.02),
        (int8, {"block_size": 16}, {"MatMulNBits": {8}, "GatherBlockQuantized": {8}}, 0.02),
        (int4, {"method": "rtn"}, {"MatMulNBits": {4, 8}, "GatherBlockQuantized": {8}}, 3),
        (int4, {"method": "hqq"}, {"MatMulNBits": {4, 8}, "GatherBlockQuantized": {8}}, 3),
        (int4, {"head": "int4"}, {"MatMulNBits": {4}, "GatherBlockQuantized": {4}}, 3),
        # One block of 64 a row: an odd number of zero points of 4 bits.
        (int4, {"head": "int4", "block_size": 64}, {"MatMulNBits": {4}, "GatherBlockQuantized": {4}}, 3),
    ],
)
def test_every_matrix_is_packed_and_the_result_is_close(
    tiny, untied, export, tmp_path, component, configuration, bits, bound
):
    model = untied if configuration.get("method") == "hqq" else tiny
    result = quantized(component, export(model), tmp_path, **configuration)
    assert bits_of(result) == bits
    assert 0 < mean_kl(model, result) < bound


def test_a_tied_embedding_is_kept_once(tiny, untied, export, tmp_path):
    once, twice = (
        (quantized(int8, export(each), tmp_path / str(number)) / "model.onnx.data").stat().st_size
        for number, each in enumerate((tiny, untied))
    )
    config = json.loads((tiny / "config.json").read_text())
    table = config["vocab_size"] * config["hidden_size"]
    assert 1.0 * table < twice - once < 1.15 * table


def test_nothing_but_the_graph_changes_and_the_bytes_are_always_the_same(tiny, export, tmp_path):
    before = {path.name: hash_file(path) for path in list_files(export(tiny).path)}
    first, second = (
        {path.name: hash_file(path) for path in list_files(quantized(int4, export(tiny), tmp_path / name))}
        for name in ("a", "b")
    )
    assert first == second
    assert set(first) == set(before)
    assert {name for name in before if before[name] != first[name]} == {"model.onnx", "model.onnx.data"}


def test_what_is_quantized_is_not_quantized_again(tiny, export, tmp_path):
    packed = quantized(int8, export(tiny), tmp_path / "first")
    with pytest.raises(InputError, match="no matrix in float32"):
        quantized(int4, OnnxModel.at(packed, "genai"), tmp_path / "second")


def test_integers_that_saturate_are_refused_and_nothing_is_kept(tiny, export, tmp_path, monkeypatch):
    # Weights that wrap around do not stop anything: only what the model says tells.
    def wrapped(found: Quantized) -> PackedMatrix:
        packed = as_packed(found)
        return replace(packed, integers=packed.integers + np.uint8(128))

    monkeypatch.setattr("luthier_quantize.weights.as_packed", wrapped)
    ctx = make_context(tmp_path)
    with pytest.raises(PluginError, match="is broken by its quantization: mean KL"):
        int8(export(tiny), ctx)
    assert list(ctx.output.iterdir()) == []


def test_the_result_is_compared_in_a_process_of_its_own(tiny, export, tmp_path, monkeypatch):
    commands = []
    run = subprocess.run

    def spied(command, **options):
        commands.append(command)
        return run(command, **options)

    monkeypatch.setattr(subprocess, "run", spied)
    exported = export(tiny)
    commands.clear()
    directory = quantized(int8, exported, tmp_path)
    [command] = commands
    assert command[:4] == [sys.executable, "-P", "-m", "luthier_onnx.comparison"]
    assert command[4:6] == [str(exported.path), str(directory)]


SIZES = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "initializer_range": 0.2,
    "tie_word_embeddings": True,
}


def write_model(directory: Path, configuration: str, **settings) -> Path:
    """A random model of a family, whose greedy completions are clear choices."""
    import transformers

    from luthier_models.normalise import save_model
    from luthier_models.testing import tiny_tokenizer
    from luthier_models.untrained import initialised

    tokenizer = tiny_tokenizer()
    config = getattr(transformers, configuration)(vocab_size=len(tokenizer), **{**SIZES, **settings})
    save_model(initialised(config, "causal-lm", 0), tokenizer, directory)
    return directory


CONVOLVING = {"layer_types": ["conv", "full_attention"], "block_multiple_of": 16, "block_auto_adjust_ff_dim": False}
WINDOWED = {"head_dim": 16, "sliding_window": 16, "query_pre_attn_scalar": 16}


@pytest.mark.parametrize(
    ("configuration", "settings"),
    [
        # Broken characters of a completion, encoded again, are more tokens than were written.
        ("LlamaConfig", {"max_position_embeddings": 64}),
        # Graphs that carry more than the keys and values of all tokens are not read in padded batches.
        ("Lfm2Config", CONVOLVING),
        pytest.param("Gemma2Config", WINDOWED, marks=pytest.mark.slow),
    ],
)
def test_families_of_other_layers_and_of_a_short_context_are_packed_too(export, tmp_path, configuration, settings):
    model = write_model(tmp_path / "model", configuration, **settings)
    quantized(int8, export(model), tmp_path / "int8", block_size=32)


def test_an_export_that_cannot_be_loaded_is_what_is_refused(tiny, export, tmp_path):
    given = shutil.copytree(export(tiny).path, tmp_path / "given")
    config = json.loads((given / "genai_config.json").read_text())
    config["model"]["vocab_size"] = 7
    (given / "genai_config.json").write_text(json.dumps(config))
    ctx = make_context(tmp_path / "work")
    with pytest.raises(InputError, match=r"given.genai_config\.json contradicts model\.onnx: vocab_size is 7"):
        int8(OnnxModel.at(given, "genai"), ctx)
    assert list(ctx.output.iterdir()) == []


def test_blocks_that_do_not_fit_are_refused(tiny, export, tmp_path):
    with pytest.raises(InputError, match="blocks of 128 do not divide"):
        quantized(int8, export(tiny), tmp_path, head_block_size=128)
