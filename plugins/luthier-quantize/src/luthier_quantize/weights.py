"""`int8` and `int4`: the matrices of an exported graph, rounded without data and packed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from luthier_models.grids import METHODS, Quantized, quantize
from luthier_onnx.graphs import copy_companions
from luthier_onnx.packed import PackedMatrix
from luthier_onnx.packing import PackableGraph
from luthier_onnx.verification import verify_quantized

if TYPE_CHECKING:
    from luthier import Context


@dataclass(frozen=True)
class Choice:
    """How a matrix is kept: the method that finds its grids, the bits of an integer, the columns of a block."""

    method: str
    bits: int
    block_size: int


def quantize_weights(directory: Path, ctx: Context, *, matrices: Choice, tables: Choice) -> None:
    """Write the genai model in `directory` to `ctx.output` with its matrices packed, and compare the two.

    Args:
        directory: the model, as `export: genai` writes it.
        ctx: where it goes.
        matrices: of the products inside the layers.
        tables: of the embedding and the head.

    Raises:
        InputError: if there is nothing to pack, or the blocks do not fit the embedding.
        PluginError: if the result does not run, or is broken.
    """
    graph = PackableGraph(directory)
    names = graph.names
    for done, name in enumerate(names):
        ctx.progress(done, len(names))
        choice = tables if graph.is_table(name) or graph.is_head(name) else matrices
        rows = torch.from_numpy(graph.rows(name))
        graph.pack(name, as_packed(quantize(rows, METHODS[choice.method], choice.bits, choice.block_size)))
    copy_companions(directory, ctx.output)
    graph.save(ctx.output)
    verify_quantized(directory, ctx, "genai")


def as_packed(quantized: Quantized) -> PackedMatrix:
    """The same matrix in the form that graphs read."""
    grid = quantized.grid
    return PackedMatrix(
        quantized.integers.cpu().numpy(),
        grid.scales.float().cpu().numpy(),
        grid.zero_points.cpu().numpy().astype(np.uint8),
        grid.bits,
        grid.block_size,
    )
