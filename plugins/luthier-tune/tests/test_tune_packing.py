"""Packed documents cannot see each other, and the loss is that of each one alone."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import cross_entropy

from luthier_models.loading import load_causal_lm
from luthier_models.packing import PackedModel, pack
from luthier_tune.loss import summed_loss, target_losses

PAIRS = [([1, 30, 31, 32, 33], [40, 41, 2]), ([1, 50, 51], [60, 61, 62, 63, 2]), ([1, 70, 71, 72], [80, 2])]


@pytest.fixture(scope="module")
def packed(tiny):
    return PackedModel(load_causal_lm(tiny.path))


def alone(model, given, targets):
    """The losses of one document by transformers' plain forward."""
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([[*given, *targets]])).logits[0, len(given) - 1 : -1]
    return cross_entropy(logits, torch.tensor(targets), reduction="none")


def test_the_packed_loss_is_the_mean_of_the_single_losses(packed):
    row = pack(PAIRS)
    expected = torch.cat([alone(packed.model, *pair) for pair in PAIRS])
    torch.testing.assert_close(target_losses(packed, row), expected, atol=1e-5, rtol=1e-5)
    loss = summed_loss(packed, row) / len(row.labels)
    assert loss.detach().item() == pytest.approx(float(expected.mean()), abs=1e-5)


@pytest.mark.parametrize("wrong", [{"use_cache": True}, {"attention_mask": torch.ones(1, 19, dtype=torch.long)}])
def test_a_cache_or_a_mask_of_ones_lets_documents_see_each_other(packed, wrong):
    # Guards the reason for PackedModel: if transformers ever isolates here too, we can relax.
    row = pack(PAIRS)
    assert len(row.ids) == 19
    options = {"attention_mask": None, "use_cache": False} | wrong
    with torch.no_grad():
        logits = packed.model(input_ids=row.ids[None], position_ids=row.positions[None], **options).logits[0, row.index]
    losses = cross_entropy(logits, row.labels, reduction="none")
    first = row.sizes[0]
    right = target_losses(packed, row)
    torch.testing.assert_close(losses[:first], right[:first], atol=1e-5, rtol=1e-5)
    assert float((losses[first:] - right[first:]).abs().max()) > 1e-3


def test_chunked_cross_entropy_has_the_gradient_of_the_plain_one(packed, monkeypatch):
    monkeypatch.setattr("luthier_tune.loss.CHUNK", 3)
    for parameter in packed.model.parameters():
        parameter.requires_grad_(False)
    weight = packed.model.model.layers[0].mlp.down_proj.weight.requires_grad_()
    row = pack(PAIRS)
    summed_loss(packed, row).backward()
    chunked, weight.grad = weight.grad, None
    cross_entropy(packed.logits(row), row.labels, reduction="sum").backward()
    torch.testing.assert_close(chunked, weight.grad, atol=1e-4, rtol=1e-4)


def test_a_trainable_head_gets_its_gradient(packed):
    head = packed.model.get_output_embeddings().weight.requires_grad_()
    head.grad = None
    summed_loss(packed, pack(PAIRS)).backward()
    assert head.grad is not None
    assert float(head.grad.abs().max()) > 0
    head.requires_grad_(False)
