"""GPTQ: a matrix column by column, what each rounding does to the output undone by the columns that are left.

Frantar et al., "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers"
(arXiv:2210.17323).
"""

from __future__ import annotations

import torch
from torch import Tensor

from luthier_models.grids import Finder, Grid, Quantized

# Of the mean of the diagonal, added to it: the calibration data never spans all directions.
_DAMPING = 0.01


def gptq(weight: Tensor, second_moment: Tensor, find: Finder, bits: int, block_size: int) -> Quantized:
    """Quantize a matrix so that its product with inputs like those of the calibration changes least.

    Args:
        weight: (rows, columns).
        second_moment: the sum of the outer products of the inputs, (columns, columns); in any multiple.
        find: how a block's grid is found, from its values as they are when its turn comes; each column counts by
            its second moment.
        bits: of an integer.
        block_size: columns that share a scale; also how many are worked on before the rest is updated.

    Returns:
        The integers, with the grid of each block.
    """
    weight = weight.float().clone()
    columns = weight.shape[1]
    factor = _factor(second_moment)
    importance = second_moment.diagonal().float().clamp_min(0)
    importance = importance / importance.mean().clamp_min(1e-30) + 1e-6
    integers = torch.empty_like(weight, dtype=torch.uint8)
    scales, zero_points = [], []
    for start in range(0, columns, block_size):
        end = min(start + block_size, columns)
        # Column by column contiguous: the loop below works on whole columns.
        block = weight[:, start:end].T.contiguous()
        scale, zero = (each[:, 0] for each in find(block.T[:, None], bits, importance[start:end]))
        errors = torch.empty_like(block)
        for index in range(end - start):
            column = start + index
            rounded = (block[index] / scale + zero).round_().clamp_(0, 2**bits - 1)
            integers[:, column] = rounded.to(torch.uint8)
            errors[index] = (block[index] - scale * (rounded - zero)) / factor[column, column]
            if index + 1 < end - start:
                block[index + 1 :].addr_(factor[column, column + 1 : end], errors[index], alpha=-1)
        weight[:, end:].addmm_(errors.T, factor[start:end, end:], alpha=-1)
        scales.append(scale)
        zero_points.append(zero)
    return Quantized(integers, Grid(torch.stack(scales, 1), torch.stack(zero_points, 1), bits, block_size))


def _factor(second_moment: Tensor) -> Tensor:
    """The upper Cholesky factor of the inverse of the damped second moment."""
    damped = second_moment.double()
    diagonal = damped.diagonal()
    # An input that is always zero says nothing of its column.
    diagonal.add_(_DAMPING * diagonal.mean().clamp_min(1e-30))
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(damped))
    factor: Tensor = torch.linalg.cholesky(inverse, upper=True)
    return factor.float()
