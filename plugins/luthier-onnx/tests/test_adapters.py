"""Adapters that stay apart from an exported model, and are exchanged while it is loaded."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

import luthier_onnx
from luthier import InputError, Model, OnnxModel
from luthier.testing import make_context
from luthier_models.normalise import save_model
from luthier_models.runtime import TransformersGenerator
from luthier_onnx.runtime import GenaiGenerator

PROMPTS, COMPLETIONS = ["Return the number of rows"], [" of the table, or None."]


def tuned(base, directory, *, seed=0, **options):
    """A model as `tune: lora` writes it, with an adapter of random numbers."""
    torch.manual_seed(seed)
    config = LoraConfig(**{"r": 4, "target_modules": "all-linear", "init_lora_weights": False} | options)
    adapted = get_peft_model(AutoModelForCausalLM.from_pretrained(base), config)
    adapted.save_pretrained(directory / "adapter")
    save_model(adapted.merge_and_unload(), AutoTokenizer.from_pretrained(base), directory)
    return directory


def exported(model, room, **options):
    ctx = make_context(room)
    luthier_onnx.genai(Model.at(model, "causal-lm", "0" * 64), ctx, **options)
    return ctx.output


def logits(generator):
    return next(iter(generator.logits(PROMPTS, COMPLETIONS)))


@pytest.fixture(scope="module")
def summaries(tiny_llama, tmp_path_factory):
    return tuned(tiny_llama, tmp_path_factory.mktemp("summaries") / "model")


@pytest.fixture(scope="module")
def apart(summaries, tmp_path_factory):
    return exported(summaries, tmp_path_factory.mktemp("apart"), adapter="apart")


def test_adapters_are_exchanged_over_one_loaded_model(tiny_llama, summaries, apart, tmp_path):
    chat = tuned(tiny_llama, tmp_path / "chat", seed=1, r=2, use_rslora=True, target_modules=["q_proj", "down_proj"])
    other = exported(chat, tmp_path / "other", adapter="apart")
    generator = GenaiGenerator(apart)
    wanted = {
        generator: summaries,
        generator.with_adapter(None): tiny_llama,
        generator.with_adapter(other): chat,
        generator.with_adapter(apart): summaries,
    }
    before = None
    for exchanged, model in wanted.items():
        found, expected = logits(exchanged), logits(TransformersGenerator(model, dtype="float32"))
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)
        assert before is None or np.abs(found - before).max() > 0.01
        before = found


def test_a_quantizer_leaves_the_adapter_as_it_is(apart, tmp_path):
    pytest.importorskip("luthier_quantize")
    from luthier_quantize import int8

    ctx = make_context(tmp_path)
    int8(OnnxModel.at(apart, "genai", "0" * 64), ctx, block_size=32)
    generator, whole = GenaiGenerator(ctx.output), GenaiGenerator(apart)
    exact = {path: logits(whole.with_adapter(path)) for path in (apart, None)}
    for path, wanted in exact.items():
        rounding = (logits(generator.with_adapter(path)) - wanted).std()
        assert 0 < rounding < 0.2 * (exact[apart] - exact[None]).std()


def test_the_same_model_gives_the_same_bytes(summaries, apart, tmp_path):
    again = exported(summaries, tmp_path, adapter="apart")
    for name in ("adapter.onnx_adapter", "model.onnx", "model.onnx.data"):
        assert (again / name).read_bytes() == (apart / name).read_bytes()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"use_dora": True}, "DoRA, which also rescales weights"),
        ({"modules_to_save": ["lm_head"]}, "also replaces lm_head"),
        ({"target_modules": ["embed_tokens"]}, "with more than LoRA"),
    ],
)
def test_an_adapter_that_is_more_than_a_product_is_refused(untied_llama, tmp_path, options, message):
    model = tuned(untied_llama, tmp_path / "model", **options)
    with pytest.raises(InputError, match=message) as caught:
        exported(model, tmp_path / "export", adapter="apart")
    assert "Export it merged" in caught.value.remedy


def test_a_model_without_an_adapter_is_refused(tiny_llama, tmp_path):
    with pytest.raises(InputError, match="no adapter that could be kept apart"):
        exported(tiny_llama, tmp_path, adapter="apart")


def test_what_is_no_adapter_of_the_model_is_refused(tiny_llama, apart, tmp_path):
    merged = exported(tiny_llama, tmp_path / "merged")
    with pytest.raises(InputError, match="for another model"):
        logits(GenaiGenerator(merged).with_adapter(apart))
    with pytest.raises(InputError, match="there is no adapter"):
        GenaiGenerator(apart).with_adapter(merged)
    (tmp_path / "broken.onnx_adapter").write_bytes(b"nothing")
    with pytest.raises(InputError, match="no adapter in ONNX Runtime's format"):
        logits(GenaiGenerator(apart).with_adapter(tmp_path / "broken.onnx_adapter"))
