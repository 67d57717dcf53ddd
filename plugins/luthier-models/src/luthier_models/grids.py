"""Integers for a matrix without calibration data: one scale and one integer zero point for each block of a row.

The value of an integer `q` in a block is `scale * (q - zero_point)`, with `q` and `zero_point` in 0 to 2^bits - 1:
what ONNX Runtime's MatMulNBits and GatherBlockQuantized read. Zero points are integers on purpose: float ones, as
HQQ has them, take a kernel that is many times slower.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

# A block is searched with its range scaled by these: clipping a block's extremes may serve the others.
_SHRINKS = tuple(1.05 - 0.05 * step for step in range(10))
_ROWS = 4096


@dataclass(frozen=True)
class Grid:
    """The values that each block can take.

    Attributes:
        scales: float32, (rows, blocks).
        zero_points: integers in float32, (rows, blocks).
        bits: of an integer.
        block_size: columns of a block; the last of a row may have fewer.
    """

    scales: Tensor
    zero_points: Tensor
    bits: int
    block_size: int


@dataclass(frozen=True)
class Quantized:
    """A matrix in integers, uint8 (rows, columns), and what they stand for."""

    integers: Tensor
    grid: Grid

    def values(self) -> Tensor:
        """The matrix that it stands for, float32."""
        columns = self.integers.shape[1]
        scales, zero_points = (
            each.repeat_interleave(self.grid.block_size, dim=1)[:, :columns]
            for each in (self.grid.scales, self.grid.zero_points)
        )
        return scales * (self.integers - zero_points)


def quantize(weight: Tensor, find: Finder, bits: int, block_size: int, importance: Tensor | None = None) -> Quantized:
    """Find a grid for each block, and round to it.

    Args:
        weight: (rows, columns).
        find: one of `METHODS`.
        bits: of an integer, 2 to 8.
        block_size: columns that share a scale.
        importance: of each column; as much as every other if not given.
    """
    parts = [_quantize_rows(rows, find, bits, block_size, importance) for rows in torch.split(weight.float(), _ROWS)]
    scales, zero_points = (
        torch.cat([getattr(part.grid, name) for part in parts]) for name in ("scales", "zero_points")
    )
    return Quantized(torch.cat([part.integers for part in parts]), Grid(scales, zero_points, bits, block_size))


def rtn(blocks: Tensor, bits: int, importance: Tensor) -> tuple[Tensor, Tensor]:
    """The grid from a block's smallest to its largest value, as rounding to nearest takes it."""
    return range_grid(blocks, bits, 1.0)


def symmetric(blocks: Tensor, bits: int, importance: Tensor) -> tuple[Tensor, Tensor]:
    """The grid around zero, whose zero point is always the middle of the range and need not be kept."""
    middle = 2 ** (bits - 1)
    scale = blocks.abs().amax(-1) / (middle - 1)
    return torch.where(scale > 0, scale, torch.ones_like(scale)), torch.full_like(scale, middle)


def k_quant(blocks: Tensor, bits: int, importance: Tensor) -> tuple[Tensor, Tensor]:
    """The grid of least weighted squared error among several ranges, each with its best scale for its integers.

    After llama.cpp's k-quants (ggml-quants.c, `make_qkx2_quants`), whose minimum is a float and here an integer. A
    weight counts by its column's importance and, as there, the more the larger it is.
    """
    weights = importance * (blocks.square().mean(-1, keepdim=True).sqrt() + blocks.abs())
    best_scale, best_zero = range_grid(blocks, bits, 1.0)
    best_error = _error(blocks, best_scale, best_zero, bits, weights)
    for shrink in _SHRINKS:
        start, zero = range_grid(blocks, bits, shrink)
        steps = round_to(blocks, start, zero, bits) - zero[..., None]
        squares = (weights * steps.square()).sum(-1)
        fitted = (weights * steps * blocks).sum(-1) / squares.clamp_min(torch.finfo(squares.dtype).tiny)
        scale = torch.where(fitted > 0, fitted, start)
        error = _error(blocks, scale, zero, bits, weights)
        better = error < best_error
        best_scale, best_zero = torch.where(better, scale, best_scale), torch.where(better, zero, best_zero)
        best_error = torch.where(better, error, best_error)
    return best_scale, best_zero


def hqq(blocks: Tensor, bits: int, importance: Tensor) -> tuple[Tensor, Tensor]:
    """Half-quadratic quantization (Badri and Shaji, 2023): the zero point of least error in the p-norm, p = 0.7.

    The solver alternates between the errors, shrunk towards zero, and the zero point that fits the rest. What it
    finds is rounded to an integer at the end, where its scale is fitted to it.
    """
    scale, zero = range_grid(blocks, bits, 1.0)
    exact, beta, best = zero, 10.0, torch.full_like(zero, torch.inf)
    for _ in range(20):
        rounded = round_to(blocks, scale, exact, bits)
        errors = blocks - scale[..., None] * (rounded - exact[..., None])
        shrunk = errors.sign() * (errors.abs() - errors.abs().clamp_min(1e-8).pow(-0.3) / beta).clamp_min(0)
        found = (rounded - (blocks - shrunk) / scale[..., None]).mean(-1)
        norm = errors.abs().pow(0.7).sum(-1)
        improved = norm < best
        best, zero, exact = torch.where(improved, norm, best), torch.where(improved, exact, zero), found
        beta *= 1.01
    zero = zero.round().clamp(0, 2**bits - 1)
    steps = round_to(blocks, scale, zero, bits) - zero[..., None]
    fitted = (steps * blocks).sum(-1) / steps.square().sum(-1).clamp_min(1e-12)
    return torch.where(fitted > 0, fitted, scale), zero


Finder = Callable[[Tensor, int, Tensor], tuple[Tensor, Tensor]]
"""Gives scales and zero points, (…, blocks), for blocks, (…, blocks, block), and an importance that fits them."""

METHODS: dict[str, Finder] = {"rtn": rtn, "symmetric": symmetric, "k-quant": k_quant, "hqq": hqq}


def in_blocks(rows: Tensor, block_size: int) -> Tensor:
    """Rows, (…, columns), as (…, blocks, block), the last one filled up with zeros."""
    missing = -rows.shape[-1] % block_size
    return torch.nn.functional.pad(rows, (0, missing)).reshape(*rows.shape[:-1], -1, block_size)


def range_grid(blocks: Tensor, bits: int, shrink: float) -> tuple[Tensor, Tensor]:
    """Scales and zero points, (…, blocks), of a block's range from its smallest to its largest value times `shrink`."""
    levels = 2**bits - 1
    low, high = blocks.amin(-1).clamp_max(0) * shrink, blocks.amax(-1).clamp_min(0) * shrink
    scale = (high - low) / levels
    # A block of zeros has no range; any scale gives it back.
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    return scale, (-low / scale).round().clamp(0, levels)


def round_to(blocks: Tensor, scale: Tensor, zero: Tensor, bits: int) -> Tensor:
    """The nearest integers on a grid, in floating point, in the shape of `blocks`."""
    return (blocks / scale[..., None] + zero[..., None]).round().clamp(0, 2**bits - 1)


def _quantize_rows(rows: Tensor, find: Finder, bits: int, block_size: int, importance: Tensor | None) -> Quantized:
    blocks = in_blocks(rows, block_size)
    columns = torch.ones(rows.shape[1], device=rows.device) if importance is None else importance
    scales, zero_points = find(blocks, bits, in_blocks(columns, block_size))
    integers = round_to(blocks, scales, zero_points, bits).flatten(-2)[:, : rows.shape[1]]
    return Quantized(integers.to(torch.uint8), Grid(scales, zero_points, bits, block_size))


def _error(blocks: Tensor, scale: Tensor, zero: Tensor, bits: int, weights: Tensor) -> Tensor:
    values = scale[..., None] * (round_to(blocks, scale, zero, bits) - zero[..., None])
    return (weights * (values - blocks).square()).sum(-1)
