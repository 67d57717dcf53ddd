"""The pieces of a decoder layer with gradients written by hand: few temporaries, and only what is asked for.

Left to autograd, a RMSNorm is seven operations that each keep and write a tensor as large as the hidden states,
and a LoRA layer four. On a CPU, where matrix products are bound by arithmetic and everything else by memory,
that is a third of a step. The formulas are those that Unsloth and Liger Kernel derive for their kernels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.nn.functional import silu

if TYPE_CHECKING:
    from torch import Tensor


class RMSNorm(torch.autograd.Function):
    """`weight * x / sqrt(mean(x^2) + epsilon)`, over the last dimension."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        """(..., width) to the same shape."""
        scale = torch.linalg.vecdot(x, x).div_(x.shape[-1]).add_(epsilon).rsqrt_().unsqueeze(-1)
        ctx.save_for_backward(x, weight, scale)
        normed: Tensor = (x * scale).mul_(weight)
        return normed

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        """The gradients of x and of the weight."""
        x, weight, scale = ctx.saved_tensors
        (gradient,) = outputs
        of_x = of_weight = None
        if ctx.needs_input_grad[0]:
            of_x = gradient * weight
            inner = torch.linalg.vecdot(of_x, x).unsqueeze(-1).mul_(scale).mul_(scale).div_(-x.shape[-1])
            of_x.addcmul_(x, inner).mul_(scale)
        if ctx.needs_input_grad[1]:
            of_weight = (x * scale).mul_(gradient).flatten(0, -2).sum(0)
        return of_x, of_weight, None


class SwiGLU(torch.autograd.Function):
    """`silu(gate) * up` (Shazeer, 2020, arXiv:2002.05202)."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        """Two of one shape to the same shape."""
        ctx.save_for_backward(gate, up)
        return silu(gate).mul_(up)

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor, Tensor]:
        """The gradients of both."""
        gate, up = ctx.saved_tensors
        (gradient,) = outputs
        of_up = silu(gate).mul_(gradient)
        return torch.ops.aten.silu_backward(gradient * up, gate), of_up


class Rotation(torch.autograd.Function):
    """Rotary position embedding (Su et al., 2021, arXiv:2104.09864), halves of a head paired as in Llama."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Rotate (tokens, heads, width of a head) by (tokens, 1, width of a head); halves of `cos` are equal."""
        half = x.shape[-1] // 2
        cos, sin = cos[..., :half], sin[..., :half]
        ctx.save_for_backward(cos, sin)
        return _rotate(x, cos, sin, 1)

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor, None, None]:
        """The gradient, rotated back."""
        cos, sin = ctx.saved_tensors
        return _rotate(outputs[0], cos, sin, -1), None, None


def _rotate(x: Tensor, cos: Tensor, sin: Tensor, sense: int) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    rotated = torch.empty_like(x)
    left, right = rotated.chunk(2, dim=-1)
    torch.mul(first, cos, out=left).addcmul_(second, sin, value=-sense)
    torch.mul(second, cos, out=right).addcmul_(first, sin, value=sense)
    return rotated


class Projections(torch.autograd.Function):
    """Linear layers of one input, with or without adapters: `x W^T + b + s (x A^T) B^T` for each of them.

    The input is kept once, its gradient is summed up in place, and frozen weights get none. One product with
    the weights put together is no faster on a CPU than one for each, so that weights stay where they are.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, scalings: tuple[float, ...], *tensors: Tensor | None) -> tuple[Tensor, ...]:
        """(tokens, inputs) to (tokens, outputs) of each layer.

        Args:
            ctx: autograd's.
            x: what all layers take.
            scalings: that of each layer's adapter.
            tensors: W, b, A and B of each layer; b may be None, and A with B.
        """
        outputs, lowered = [], []
        for number, scaling in enumerate(scalings):
            weight, bias, a, b = tensors[4 * number : 4 * number + 4]
            assert weight is not None
            output = torch.mm(x, weight.t()) if bias is None else torch.addmm(bias, x, weight.t())
            low = None
            if a is not None and b is not None:
                low = torch.mm(x, a.t()).mul_(scaling)
                output.addmm_(low, b.t())
            outputs.append(output)
            lowered.append(low)
        ctx.save_for_backward(x, *tensors, *lowered)
        ctx.scalings = scalings
        return tuple(outputs)

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients of x and of what is trained."""
        x, *tensors = ctx.saved_tensors
        count = len(ctx.scalings)
        of_x: Tensor | None = None
        rest: list[Tensor | None] = []
        for number, gradient in enumerate(outputs):
            weight, _, a, b = tensors[4 * number : 4 * number + 4]
            low = tensors[4 * count + number]
            needs_weight, needs_bias, needs_a, needs_b = ctx.needs_input_grad[2 + 4 * number : 6 + 4 * number]
            if ctx.needs_input_grad[0]:
                of_x = torch.mm(gradient, weight) if of_x is None else of_x.addmm_(gradient, weight)
            rest.append(torch.mm(gradient.t(), x) if needs_weight else None)
            rest.append(gradient.sum(0) if needs_bias else None)
            of_a = of_b = None
            if low is not None:
                # Twice as fast as the product of the transposes, which is the same.
                of_b = torch.mm(low.t(), gradient).t() if needs_b else None
                of_low = torch.mm(gradient, b).mul_(ctx.scalings[number])
                of_a = torch.mm(of_low.t(), x) if needs_a else None
                if of_x is not None:
                    of_x.addmm_(of_low, a)
            rest += [of_a, of_b]
        return of_x, None, *rest
