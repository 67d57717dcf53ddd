"""Fused LoRA layers give peft's numbers, and step aside where they do not fit."""

from __future__ import annotations

import pytest
import torch
from peft import LoraConfig, get_peft_model

from luthier_tune.fused import FusedLora, fuse, unfuse


class Two(torch.nn.Module):
    def __init__(self, *, bias: bool) -> None:
        super().__init__()
        self.first = torch.nn.Linear(12, 20, bias=bias)
        self.second = torch.nn.Linear(20, 6, bias=bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(torch.tanh(self.first(x)))


def adapted(*, bias: bool = True, dropout: float = 0.0, **options):
    torch.manual_seed(1)
    config = LoraConfig(r=3, lora_alpha=5, lora_dropout=dropout, target_modules=["first", "second"], **options)
    model = get_peft_model(Two(bias=bias).double(), config).double()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_()
    return model


def gradients(model, x):
    model.zero_grad()
    x = x.clone().requires_grad_()
    model(x).square().sum().backward()
    return [x.grad, *(p.grad for p in model.parameters() if p.grad is not None)]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(7, 12), (1, 7, 12), (2, 3, 12)])
def test_outputs_and_gradients_are_pefts(bias, shape):
    model, x = adapted(bias=bias), torch.randn(shape, dtype=torch.float64)
    expected, wanted = model(x), gradients(model, x)
    assert fuse(model) == 2
    torch.testing.assert_close(model(x), expected, rtol=1e-12, atol=1e-12)
    for ours, theirs in zip(gradients(model, x), wanted, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)
    unfuse(model)
    assert torch.equal(model(x), expected)


def test_the_gradient_is_that_of_finite_differences():
    sizes = {"x": (4, 5), "weight": (6, 5), "bias": (6,), "a": (2, 5), "b": (6, 2)}
    tensors = {name: torch.randn(size, dtype=torch.float64) for name, size in sizes.items()}
    for name in ("x", "a", "b"):
        tensors[name].requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x, a, b: FusedLora.apply(x, tensors["weight"], tensors["bias"], a, b, 1.7),
        (tensors["x"], tensors["a"], tensors["b"]),
    )


@pytest.mark.parametrize("options", [{"dropout": 0.1}, {"use_dora": True}])
def test_other_adapters_stay_pefts(options):
    assert fuse(adapted(**options)) == 0


def test_a_merged_layer_stays_pefts():
    model = adapted()
    model.merge_adapter()
    assert fuse(model) == 0
