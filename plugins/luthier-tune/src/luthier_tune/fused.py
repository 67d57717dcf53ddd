"""LoRA layers with the adapter's product added inside the matrix product: the same numbers, fewer passes.

peft computes `result + B(A(x)) * scaling`: two passes over the layer's whole output, one more over its
gradient, and a sum of two gradients of the input. Here `addmm` does the sums while it multiplies.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import torch
from peft.tuners.lora.layer import Linear as LoraLinear
from torch.nn.functional import linear

if TYPE_CHECKING:
    from torch import Tensor, nn


class FusedLora(torch.autograd.Function):
    """`x Wᵀ + bias + scaling · (x Aᵀ) Bᵀ` with W and the bias frozen; all of two dimensions."""

    @staticmethod
    def forward(  # noqa: PLR0917 - autograd passes by position
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, a: Tensor, b: Tensor, scaling: float
    ) -> Tensor:
        """Give (tokens, out) of `x` (tokens, in), `weight` (out, in), `a` (rank, in), `b` (out, rank)."""
        low = x @ a.T
        ctx.save_for_backward(x, weight, a, b, low)
        ctx.scaling = scaling
        return linear(x, weight, bias).addmm_(low, b.T, alpha=scaling)

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor | None, None, None, Tensor, Tensor, None]:
        """The gradients of `x`, `a` and `b`."""
        (gradient,) = outputs
        x, weight, a, b, low = ctx.saved_tensors
        low_gradient = (gradient @ b).mul_(ctx.scaling)
        x_gradient = (gradient @ weight).addmm_(low_gradient, a) if ctx.needs_input_grad[0] else None
        return x_gradient, None, None, low_gradient.T @ x, (gradient.T @ low).mul_(ctx.scaling), None


def fuse(adapted: nn.Module) -> int:
    """Let every LoRA layer that this covers compute fused; gives their number. The others stay peft's.

    Covered are plain adapters on frozen linear layers, without dropout, of one type of number.
    """
    layers = [module for module in adapted.modules() if isinstance(module, LoraLinear) and _is_plain(module)]
    for layer in layers:
        vars(layer)["forward"] = _fused_forward(layer)
    return len(layers)


def unfuse(adapted: nn.Module) -> None:
    """Give every layer peft's own computation back."""
    for module in adapted.modules():
        if isinstance(module, LoraLinear):
            vars(module).pop("forward", None)


def _is_plain(layer: Any) -> bool:
    base = layer.base_layer
    if type(base) is not torch.nn.Linear or base.weight.requires_grad or layer.merged or layer.lora_variant:
        return False
    if len(layer.active_adapters) != 1 or layer.disable_adapters:
        return False
    (name,) = layer.active_adapters
    low, high = layer.lora_A[name], layer.lora_B[name]
    plain = isinstance(layer.lora_dropout[name], torch.nn.Identity) and low.bias is None and high.bias is None
    return plain and low.weight.dtype == base.weight.dtype


def _fused_forward(layer: Any) -> Any:
    (name,) = layer.active_adapters
    base, scaling = layer.base_layer, float(layer.scaling[name])
    a, b = layer.lora_A[name].weight, layer.lora_B[name].weight

    def forward(x: Tensor) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])
        result = cast("Tensor", FusedLora.apply(rows, base.weight, base.bias, a, b, scaling))  # type: ignore[no-untyped-call]
        return result.view(*x.shape[:-1], -1)

    return forward
