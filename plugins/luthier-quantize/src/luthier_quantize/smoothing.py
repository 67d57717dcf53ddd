"""`smooth`: columns that large inputs meet take part of their size over, so that inputs lose less when rounded.

Xiao et al., "SmoothQuant: Accurate and Efficient Post-Training Quantization for Large Language Models"
(arXiv:2211.10438). The paper divides what norms give; here every product is divided whose inputs' maker is found.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl
import torch
from torch import Tensor

from luthier import PluginError
from luthier_models.loading import load_causal_lm
from luthier_models.prompts import PromptEncoder
from luthier_quantize.calibration import diverged, read_windows, refuse_integers
from luthier_quantize.folding import Fold, find_fold
from luthier_quantize.layerwise import Group, LayerByLayer
from luthier_tune.task import copy_companions

if TYPE_CHECKING:
    from luthier import Context, Dataset, Model

# A column that is nearly always zero would get a scale of thousands from it.
_LARGEST = 20.0
_SMALLEST = 1e-5
# What float32 makes of the same function, written otherwise; the folds were tried out one by one.
_SAME = 1e-3


def smooth_model(model: Model, data: Dataset, ctx: Context, *, strength: float, tokens: int) -> None:
    """Write the model with its inputs' outliers moved into the weights.

    Args:
        model: a decoder.
        data: examples, with a split `train` to look at and `valid` to check on.
        ctx: where it goes; the device, the seed, progress.
        strength: the exponent of the inputs' magnitudes; the weights' is what is left to 1.
        tokens: that are looked at.

    Raises:
        InputError: if the model is quantized, there is too little text, or the layers cannot be run one by one.
        PluginError: if the model became another one.
    """
    refuse_integers(model.path)
    encoder = PromptEncoder.from_directory(model.path)
    windows = read_windows(data, "train", encoder, tokens=tokens, seed=ctx.seed)
    held_out = read_windows(data, "valid", encoder, tokens=max(tokens // 4, 512), seed=ctx.seed)
    loaded = load_causal_lm(model.path, device=ctx.device, dtype="float32").requires_grad_(requires_grad=False)
    layers = LayerByLayer(loaded, windows)
    rows: list[tuple[str, bool, float, float]] = []
    for number in range(len(layers)):
        ctx.progress(number, len(layers))
        # All are found before one is folded in: it would divide the rows of a product that another one scales.
        found = [(group, find_fold(layers, group, ctx.seed)) for group in layers.groups()]
        for group, fold in found:
            before = after = magnitudes_of(group)
            if fold is not None:
                scales = smoothing_scales(group, fold, strength)
                fold.apply(group.weights, scales)
                after = before / scales[fold.source]
            rows.append((group.name, fold is not None, peak(before), peak(after)))
        layers.advance()
    divergence = diverged(loaded, load_causal_lm(model.path, device=ctx.device, dtype="float32"), held_out)
    if not divergence.mean_kl < _SAME:
        raise PluginError(
            f"the smoothed model is another one: mean KL {divergence.mean_kl:.2g}",
            "Report this to luthier-quantize, with the model's name.",
        )
    loaded.save_pretrained(ctx.output)
    copy_companions(model.path, ctx.output)
    ctx.metric("mean_kl", divergence.mean_kl)
    table = pl.DataFrame(rows, ["products", "smoothed", "before", "after"], orient="row")
    ctx.metric("smoothed", float(table["smoothed"].sum()) / table.height)
    ctx.table("smooth", table)


def smoothing_scales(group: Group, fold: Fold, strength: float) -> Tensor:
    """What each output of a fold's producer is divided by, (outputs,); their geometric mean is 1.

    Where several columns read one output, it is as large as the largest of them.
    """
    weights = torch.stack([module.weight.abs().amax(dim=0) for module in group.weights.values()]).amax(dim=0)

    def by_output(columns: Tensor) -> Tensor:
        largest = torch.full((fold.outputs,), _SMALLEST, device=columns.device)
        return largest.scatter_reduce_(0, fold.source, columns, "amax")

    scales = by_output(magnitudes_of(group)) ** strength / by_output(weights.float()) ** (1 - strength)
    scales = scales / scales.log().mean().exp()
    return scales.clamp(1 / _LARGEST, _LARGEST)


def magnitudes_of(group: Group) -> Tensor:
    """The root mean square of each input of a group, (columns,)."""
    return group.second_moment.diagonal().clamp_min(0).sqrt().float()


def peak(magnitudes: Tensor) -> float:
    """How far the largest is above the median: a block's grid is as coarse as its largest number asks for."""
    return float(magnitudes.max() / magnitudes.median().clamp_min(_SMALLEST))
