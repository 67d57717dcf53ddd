"""Attention document by document gives what the masked row gives, where a model allows it."""

from __future__ import annotations

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, MistralConfig, MistralForCausalLM, Qwen3Config, Qwen3ForCausalLM

from luthier_models import attention
from luthier_models.loading import load_causal_lm
from luthier_models.packing import PackedModel, pack

PAIRS = [([1, 30, 31, 32, 33], [40, 41, 2]), ([1, 50], [60, 61, 62, 63, 2]), ([1, 70, 71, 72], [80, 2]), ([5], [6])]
SIZES = {
    "vocab_size": 128,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
}


BEGINNING = list(range(90, 110))
ALIKE = [([*BEGINNING, 1, 30], [40, 2]), ([*BEGINNING, 1, 31, 32], [41]), *PAIRS, (BEGINNING, [50, 51])]


def mistral(**options):
    torch.manual_seed(0)
    return MistralForCausalLM(MistralConfig(**SIZES, **options)).eval()


def qwen3(**options):
    torch.manual_seed(0)
    return Qwen3ForCausalLM(Qwen3Config(**SIZES, **options)).eval()


def gpt2():
    torch.manual_seed(0)
    return GPT2LMHeadModel(GPT2Config(vocab_size=128, n_embd=32, n_layer=2, n_head=4)).eval()


def alone(model, given, targets):
    ids = torch.tensor([[*given, *targets]])
    return model(input_ids=ids, use_cache=False).logits[0, len(given) - 1 : -1]


@pytest.mark.parametrize(
    "model",
    [mistral(sliding_window=None), qwen3(), gpt2()],
    ids=lambda model: type(model).__name__,
)
def test_packed_documents_have_the_logits_of_each_alone(model):
    with torch.no_grad():
        expected = torch.cat([alone(model, *pair) for pair in PAIRS])
        packed = PackedModel(model)
        assert packed.isolates_documents
        torch.testing.assert_close(packed.logits(pack(PAIRS)), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("model", [mistral(sliding_window=None), qwen3()], ids=["mistral", "qwen3"])
def test_documents_that_share_their_beginning_have_the_logits_of_each_alone(model):
    with torch.no_grad():
        expected = torch.cat([alone(model, *pair) for pair in ALIKE])
        row = pack(ALIKE, shared=True)
        assert len(row.ids) == sum(len(given) + len(targets) - 1 for given, targets in ALIKE) - 2 * len(BEGINNING)
        torch.testing.assert_close(PackedModel(model).logits(row), expected, atol=1e-5, rtol=1e-4)


def test_the_gradient_is_that_of_the_masked_row(tiny):
    gradients = []
    for by_document in (True, False):
        packed = PackedModel(load_causal_lm(tiny).double())
        packed.takes_segments = by_document and packed.takes_segments
        assert packed.takes_segments is by_document
        packed.logits(pack(PAIRS)).square().sum().backward()
        gradients.append([p.grad for p in packed.model.parameters() if p.grad is not None])
    for ours, masked in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, masked, atol=1e-9, rtol=1e-6)


@pytest.mark.parametrize(
    "model",
    [
        mistral(sliding_window=3),
        qwen3(use_sliding_window=True, sliding_window=3, layer_types=["full_attention", "sliding_attention"]),
    ],
    ids=["mistral", "qwen3"],
)
def test_a_window_is_kept(model):
    with torch.no_grad():
        expected = torch.cat([alone(model, *pair) for pair in PAIRS])
        packed = PackedModel(model)
        torch.testing.assert_close(packed.logits(pack(PAIRS)), expected, atol=1e-5, rtol=1e-4)
    assert not attention.enable(model)


def test_generation_is_what_it_was(tiny):
    model = load_causal_lm(tiny)
    ids = torch.tensor([[1, 30, 31, 32], [1, 40, 41, 42]])
    mask = torch.tensor([[0, 1, 1, 1], [1, 1, 1, 1]])
    before = model.generate(input_ids=ids, attention_mask=mask, max_new_tokens=8, do_sample=False)
    assert attention.enable(model)
    after = model.generate(input_ids=ids, attention_mask=mask, max_new_tokens=8, do_sample=False)
    assert before.tolist() == after.tolist()
