"""The tuner `moved`, a one-file plugin: weights that lie on no grid that they were rounded to before.

SmolLM2's come from a Q4_1 file, so a quantizer of 4 bits in blocks of 32 finds its grid again, and seems to lose next
to nothing. Adapters of a few hundred steps move them by hundredths of a step only.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from annotated_types import Ge

from luthier import component, hookimpl

if TYPE_CHECKING:
    from torch import Tensor

    from luthier import Context, Model

BLOCK = 32
BITS, TABLE_BITS = 4, 8
"""Of the grid of the layers' weights, and of that of the embedding, which the file has in 8 bits."""


@component(needs={"model": {"causal-lm"}})
def moved(model: Model, ctx: Context, *, noise: Annotated[float, Ge(0)] = 0.5) -> None:
    """Move each weight of the layers uniformly by up to `noise` steps of a 4-bit grid, the embedding's of an 8-bit one.

    Args:
        noise: in steps of the grid that a block of 32 weights of a row would have; from 0.5 on nothing is left of it.
    """
    write_moved(model.path, ctx.output, noise, ctx.seed)


def write_moved(source: Path, target: Path, noise: float, seed: int) -> None:
    """Write the model in `source` with its matrices moved."""
    import torch

    from luthier_models.loading import load_causal_lm
    from luthier_tune.task import copy_companions

    model = load_causal_lm(source, dtype="float32")
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        _move(model.get_input_embeddings().weight, noise, TABLE_BITS, generator)
        for weight in matrices(model):
            _move(weight, noise, BITS, generator)
    model.save_pretrained(target)
    copy_companions(source, target)


def matrices(model: Any) -> list[Tensor]:
    """The weights of the products inside the layers."""
    return [weight for weight in model.model.layers.parameters() if weight.ndim == 2]


def _move(weight: Tensor, noise: float, bits: int, generator: Any) -> None:
    import torch

    from luthier_models.grids import in_blocks

    blocks = in_blocks(weight, BLOCK)
    steps = (blocks.amax(-1, keepdim=True) - blocks.amin(-1, keepdim=True)) / (2**bits - 1)
    changed = blocks + 2 * noise * (torch.rand(blocks.shape, generator=generator) - 0.5) * steps
    weight.copy_(changed.flatten(-2)[:, : weight.shape[1]])


@hookimpl
def luthier_tuners() -> list[Callable[..., Any]]:
    """Give the tuner."""
    return [moved]
