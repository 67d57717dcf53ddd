"""AWQ: columns whose inputs are large are scaled up before rounding, and blocks clipped where outputs gain by it.

Lin et al., "AWQ: Activation-aware Weight Quantization for LLM Compression and Acceleration" (arXiv:2306.00978). What
the paper measures by running a layer is computed here from the second moment of its inputs, with tokens and outputs
weighted by their Fisher information, as for the other quantizers of this package.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from luthier_models.grids import Finder, Quantized, quantize, range_grid, round_to, rtn
from luthier_quantize.fisher import predicted_kl
from luthier_quantize.folding import Fold, find_fold

if TYPE_CHECKING:
    from luthier_quantize.fisher import Importance
    from luthier_quantize.layerwise import Group, LayerByLayer

# The exponents of the inputs' magnitudes that are tried; with 0 nothing is scaled.
_EXPONENTS = tuple(step / 20 for step in range(20))
# What a block's range is scaled by: at the least, half of it.
_SHRINKS = tuple(1 - 0.05 * step for step in range(11))
_SMALLEST = 1e-4


def awq(
    layers: LayerByLayer,
    groups: list[Group],
    importance: Mapping[str, Importance],
    *,
    bits: int,
    block_size: int,
    seed: int,
) -> Iterator[tuple[str, Quantized]]:
    """Scale the products of the next layer, then quantize them.

    Args:
        layers: at the layer.
        groups: its products, by their inputs.
        importance: of the outputs of each product, by the names of weights.
        bits: of an integer.
        block_size: columns that share a scale.
        seed: of the scales that folds are tried with.

    Returns:
        The names of weights, with their integers; the model has the scales, and the weights that were rounded.
    """
    scaled: list[tuple[Fold, Tensor] | None] = []
    for group in groups:
        fold = find_fold(layers, group, seed)
        # All are found before one is folded in: it would divide the rows of a product that another one scales.
        scaled.append(None if fold is None else (fold, best_scales(group, fold, importance, bits, block_size)))
    for group, found in zip(groups, scaled, strict=True):
        if found is not None:
            fold, scales = found
            fold.apply(group.weights, scales)
    for group, found in zip(groups, scaled, strict=True):
        moment = group.second_moment
        if found is not None:
            by_column = found[1][found[0].source]
            moment = moment / by_column[:, None] / by_column
        for name, module in group.weights.items():
            yield name, quantize(module.weight, clipping(moment, block_size), bits, block_size)


def best_scales(group: Group, fold: Fold, importance: Mapping[str, Importance], bits: int, block_size: int) -> Tensor:
    """The scales of a fold's outputs after which rounding to nearest costs the group least, (outputs,).

    A power of the inputs' magnitudes, the root mean square of each; the paper takes the mean of absolute values.
    """
    moment = group.second_moment
    counts = torch.bincount(fold.source, minlength=fold.outputs)
    sums = torch.zeros(fold.outputs, device=moment.device).index_add_(0, fold.source, moment.diagonal().clamp_min(0))
    magnitudes = (sums / counts).sqrt()
    magnitudes = (magnitudes / magnitudes.mean().clamp_min(1e-30)).clamp_min(_SMALLEST)
    best, least = torch.ones_like(magnitudes), float("inf")
    for exponent in _EXPONENTS:
        scales = magnitudes**exponent
        scales = scales / (scales.max() * scales.min()).sqrt()
        by_column = scales[fold.source]
        loss = 0.0
        for name, module in group.weights.items():
            weight = module.weight
            error = quantize(weight * by_column, rtn, bits, block_size).values() / by_column - weight
            loss += predicted_kl(error, moment, importance[name].rows)
        if loss < least:
            best, least = scales, loss
    return best


def clipping(second_moment: Tensor, block_size: int) -> Finder:
    """Finds for each block the part of its range in which rounding changes outputs least.

    Args:
        second_moment: the mean outer product of the inputs, (columns, columns). What a block does to the outputs is
            measured by itself, as in the paper.
        block_size: columns of a block.
    """
    moments = _diagonal_blocks(second_moment, block_size)

    def find(blocks: Tensor, bits: int, importance: Tensor) -> tuple[Tensor, Tensor]:
        scales, zeros = range_grid(blocks, bits, 1.0)
        least = torch.full_like(scales, torch.inf)
        for shrink in _SHRINKS:
            scale, zero = range_grid(blocks, bits, shrink)
            error = scale[..., None] * (round_to(blocks, scale, zero, bits) - zero[..., None]) - blocks
            cost = torch.einsum("rbi,bij,rbj->rb", error, moments, error)
            better = cost < least
            least = torch.where(better, cost, least)
            scales, zeros = torch.where(better, scale, scales), torch.where(better, zero, zeros)
        return scales, zeros

    return find


def _diagonal_blocks(moment: Tensor, block_size: int) -> Tensor:
    """The blocks on the diagonal of a matrix, (blocks, block, block), the last one filled up with zeros."""
    missing = -moment.shape[0] % block_size
    padded = nn.functional.pad(moment.float(), (0, missing, 0, missing))
    count = padded.shape[0] // block_size
    view = padded.view(count, block_size, count, block_size)
    return view.diagonal(dim1=0, dim2=2).permute(2, 0, 1)
