"""The exporter on a tiny model of each family: read back by transformers, or tensor by tensor."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType, GGUFReader, dequantize
from safetensors.torch import load_file

from luthier import InputError, Model, PluginError
from luthier.artifacts import build_manifest
from luthier.testing import make_context
from luthier_gguf import comparison, gguf, tensors
from luthier_gguf import export as exporting
from luthier_models import verification
from luthier_models.prompts import PromptEncoder
from luthier_models.testing import CHATML, tiny_tokenizer

DYNAMIC = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}
YARN = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 2.0, "original_max_position_embeddings": 64}
IN_A_NEW_PROCESS = verification.compared  # as it is before the tests' fixture
STEPS = {"f16": 2**11, "bf16": 2**8, "q8_0": 254, "q5_1": 31, "q5_0": 31, "q4_1": 15, "q4_0": 15}


def export(directory, room, precision="f32"):
    ctx = make_context(room)
    gguf(Model.at(directory, "causal-lm"), ctx, precision=precision)
    return ctx


def stored(file):
    return {each.name: each for each in GGUFReader(file).tensors}


@pytest.fixture
def without_llama_cpp(monkeypatch):
    monkeypatch.setattr(exporting, "is_installed", lambda: False)


def test_transformers_reads_the_same_model(read_back, tiny, tmp_path, without_llama_cpp):
    ctx = export(tiny(read_back, tied=read_back != "qwen2"), tmp_path)
    assert ctx.metrics["export_logit_error"].value < 1e-5
    assert ctx.metrics["export_mean_kl"].value < 1e-9


def test_what_transformers_does_not_read_has_every_weight_in_its_place(
    unread, tiny, tmp_path, caplog, without_llama_cpp
):
    directory = tiny(unread, tied=False)
    ctx = export(directory, tmp_path)
    assert "was not read back" in caplog.text
    assert "export_mean_kl" not in ctx.metrics
    found, source = stored(ctx.output / "model.gguf"), load_file(directory / "model.safetensors")
    assert len(found) == len(source)
    places = {
        "attn_v.weight": "self_attn.v_proj.weight",
        "attn_output.weight": "self_attn.o_proj.weight",
        "ffn_gate.weight": "mlp.gate_proj.weight",
        "ffn_up.weight": "mlp.up_proj.weight",
        "ffn_down.weight": "mlp.down_proj.weight",
    }
    if unread == "olmo2":
        places |= {
            "attn_q.weight": "self_attn.q_proj.weight",
            "attn_k.weight": "self_attn.k_proj.weight",
            "attn_q_norm.weight": "self_attn.q_norm.weight",
            "attn_k_norm.weight": "self_attn.k_norm.weight",
            "post_attention_norm.weight": "post_attention_layernorm.weight",
            "post_ffw_norm.weight": "post_feedforward_layernorm.weight",
        }
    else:
        places |= {"attn_norm.weight": "input_layernorm.weight", "ffn_norm.weight": "post_attention_layernorm.weight"}
        # Rows 0 and 8 of a head of 16 are turned together: llama.cpp turns neighbours.
        query = source["model.layers.1.self_attn.q_proj.weight"]
        np.testing.assert_array_equal(found["blk.1.attn_q.weight"].data[:4], query[[0, 8, 1, 9]])
    for theirs, ours in places.items():
        np.testing.assert_array_equal(found[f"blk.1.{theirs}"].data, source[f"model.layers.1.{ours}"])
    np.testing.assert_array_equal(found["output.weight"].data, source["lm_head.weight"])
    np.testing.assert_array_equal(found["token_embd.weight"].data, source["model.embed_tokens.weight"])


@pytest.mark.parametrize(
    ("name", "head"), [("llama", False), ("gpt2", False), ("smollm3", False), ("olmo2", True), ("stablelm", True)]
)
def test_a_tied_head_is_written_for_those_that_want_one(name, head, tiny, tmp_path):
    found = stored(export(tiny(name), tmp_path).output / "model.gguf")
    assert ("output.weight" in found) is head


@pytest.mark.parametrize("precision", list(STEPS))
def test_matrices_have_the_precision_and_vectors_float32(precision, tiny, tmp_path):
    directory = tiny("llama")
    found = stored(export(directory, tmp_path, precision).output / "model.gguf")
    matrix = found["blk.0.ffn_up.weight"]
    assert matrix.tensor_type == GGMLQuantizationType[precision.upper()]
    assert found["blk.0.attn_norm.weight"].tensor_type == GGMLQuantizationType.F32
    expected = load_file(directory / "model.safetensors")["model.layers.0.mlp.up_proj.weight"].numpy()
    values = dequantize(matrix.data, matrix.tensor_type)
    assert 0 < np.abs(values - expected).max() < 2 * np.abs(expected).max() / STEPS[precision]


def test_rows_that_blocks_do_not_divide_stay_in_float16(tiny, tmp_path):
    found = stored(export(tiny("llama", intermediate_size=72), tmp_path, "q8_0").output / "model.gguf")
    assert found["blk.0.ffn_down.weight"].tensor_type == GGMLQuantizationType.F16
    assert found["blk.0.ffn_up.weight"].tensor_type == GGMLQuantizationType.Q8_0


def test_the_settings_are_the_models(tiny, tmp_path):
    fields = GGUFReader(export(tiny("llama, stretched"), tmp_path).output / "model.gguf").fields
    expected = {
        "general.architecture": "llama",
        "llama.block_count": 2,
        "llama.context_length": 128,
        "llama.embedding_length": 64,
        "llama.feed_forward_length": 96,
        "llama.attention.head_count": 4,
        "llama.attention.head_count_kv": 2,
        "llama.rope.dimension_count": 16,
        "llama.rope.freq_base": 123.0,
        "llama.rope.scaling.type": "linear",
        "llama.rope.scaling.factor": 2.0,
    }
    assert {name: fields[name].contents() for name in expected} == expected


def test_a_part_of_a_head_without_positions_is_told(tiny, tmp_path):
    fields = GGUFReader(export(tiny("stablelm"), tmp_path).output / "model.gguf").fields
    assert fields["stablelm.rope.dimension_count"].contents() == 4


def test_llama_3_divides_each_frequency_by_its_factor(tiny, tmp_path):
    found = stored(export(tiny("llama of version 3"), tmp_path).output / "model.gguf")
    factors = found["rope_freqs.weight"].data
    assert factors.shape == (8,)
    # Turns of fewer than 8 tokens are left alone, those of more than 32 are slowed by the factor.
    assert factors[0] == pytest.approx(1)
    assert factors[-1] == pytest.approx(8)
    assert (np.diff(factors) >= -1e-6).all()


def test_the_same_model_gives_the_same_bytes(tiny, tmp_path):
    directory = tiny("llama")
    one, two = (export(directory, tmp_path / name, "q4_0").output for name in ("one", "two"))
    assert build_manifest(one, "onnx", "gguf") == build_manifest(two, "onnx", "gguf")


def test_an_unknown_architecture_is_refused_with_those_that_work(tiny, tmp_path):
    directory = tiny("llama")
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps({**config, "model_type": "opt"}))
    with pytest.raises(InputError, match="does not know the architecture opt") as caught:
        export(directory, tmp_path)
    assert "llama, mistral, qwen2, qwen3, smollm3, olmo2, stablelm, gpt2" in caught.value.remedy


@pytest.mark.parametrize(
    ("name", "settings", "what"),
    [
        ("llama", {"hidden_act": "gelu"}, "hidden_act 'gelu'"),
        ("mistral", {"sliding_window": 64}, "sliding_window 64"),
        ("smollm3", {"no_rope_layers": [0, 0, 0, 0]}, "layers without positions other than every fourth"),
        ("llama", {"rope_parameters": DYNAMIC}, "'dynamic'"),
        ("qwen2", {"rope_parameters": YARN}, "'yarn'"),
        ("gpt2", {"activation_function": "relu"}, "activation_function 'relu'"),
    ],
)
def test_a_setting_that_llama_cpp_does_not_know_is_refused(name, settings, what, tiny, tmp_path):
    with pytest.raises(InputError, match=what):
        export(tiny(name, **settings), tmp_path)


def test_a_weight_without_a_place_is_refused_and_nothing_is_kept(tiny, tmp_path, monkeypatch):
    original = tensors.gguf.get_tensor_name_map
    monkeypatch.setattr(tensors.gguf, "get_tensor_name_map", lambda arch, layers: original(arch, 1))
    ctx = make_context(tmp_path)
    with pytest.raises(InputError, match=r"no place for the weight model\.layers\.1"):
        gguf(Model.at(tiny("llama"), "causal-lm"), ctx, precision="f32")
    assert list(ctx.output.iterdir()) == []


def test_a_file_that_is_another_model_does_not_count(tiny, tmp_path, monkeypatch, without_llama_cpp):
    monkeypatch.setattr(tensors, "rotary_pairs", lambda values, heads: values)
    ctx = make_context(tmp_path)
    with pytest.raises(PluginError, match="is another one: read back by transformers"):
        gguf(Model.at(tiny("llama"), "causal-lm"), ctx, precision="f32")
    assert list(ctx.output.iterdir()) == []


def test_it_is_a_new_process_that_says_so(tiny, tmp_path, monkeypatch, without_llama_cpp):
    monkeypatch.setattr(verification, "compared", IN_A_NEW_PROCESS)
    monkeypatch.setattr(tensors, "rotary_pairs", lambda values, heads: values)
    ctx = make_context(tmp_path)
    with pytest.raises(PluginError, match="is another one: read back by transformers"):
        gguf(Model.at(tiny("llama"), "causal-lm"), ctx, precision="f32")
    assert ctx.metrics["export_logit_error"].value > comparison.LOGIT_ERROR
    assert list(ctx.output.iterdir()) == []


def test_one_of_the_texts_that_are_compared_is_as_long_as_asked():
    encoder = PromptEncoder(tiny_tokenizer(CHATML))
    for longest in (48, 700, 5000):
        lengths = [len(ids) for ids in comparison.held_out(encoder, longest)]
        assert lengths[-1] == longest
        assert max(lengths[:-1]) <= lengths[-1]


def test_numbers_that_are_not_finite_are_refused():
    with pytest.raises(PluginError, match="not finite"):
        comparison.compare(lambda ids: np.zeros((1, 4), np.float32), lambda ids: np.full((1, 4), np.nan), [[1]])


@pytest.mark.parametrize("heads", [1, 2, 4])
def test_positions_turn_the_same_pairs_after_the_rows_are_reordered(heads):
    width, inputs, angle = 8, 5, torch.linspace(0.1, 1.3, 4)
    weights, hidden = torch.randn(heads * width, inputs), torch.randn(inputs)
    cos, sin = angle.cos(), angle.sin()
    first, second = (weights @ hidden).view(heads, 2, width // 2).unbind(1)
    halves = torch.stack([first * cos - second * sin, second * cos + first * sin], -1)
    reordered = torch.from_numpy(tensors.rotary_pairs(weights.numpy(), heads)) @ hidden
    even, odd = reordered.view(heads, width // 2, 2).unbind(-1)
    pairs = torch.stack([even * cos - odd * sin, odd * cos + even * sin], -1)
    torch.testing.assert_close(pairs, halves)
