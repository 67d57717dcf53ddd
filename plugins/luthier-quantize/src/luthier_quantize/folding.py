"""Scales of a product's inputs, folded into what makes those inputs: the model in floating point stays what it is.

Where the columns of a weight are multiplied by scales, its inputs must be divided by them. That costs nothing at run
time if the inputs come out of a norm, whose factors take it up, or out of a product whose rows do: one whose outputs
are only multiplied by other numbers on the way, as attention does with values and the gate of an MLP with the rest.
Which module that is differs by architecture, and some have none. So each candidate is tried: it counts if the layer,
with scales drawn at random, gives what it gave.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from luthier_quantize.layerwise import Group, LayerByLayer

# Of the largest output. What a wrong candidate changes is of the order of the output itself.
_TOLERANCE = 1e-4
_VECTOR, _MATRIX = 1, 2


@dataclass(frozen=True)
class Fold:
    """Where the scales of a group's inputs go.

    Attributes:
        producer: the module that is divided by them: a norm, or a product.
        source: which output of the producer each column of the group's weights reads, (columns,). Several read one
            where heads share their values.
    """

    producer: nn.Module
    source: Tensor

    @property
    def outputs(self) -> int:
        """How many scales there are."""
        return int(_parameters(self.producer)[0].shape[0])

    @torch.no_grad()
    def apply(self, weights: Mapping[str, nn.Linear], scales: Tensor) -> None:
        """Multiply the columns of the weights by what they read of scales, (outputs,), and divide the producer."""
        for parameter in _parameters(self.producer):
            parameter.div_(scales if parameter.ndim == _VECTOR else scales[:, None])
        for module in weights.values():
            module.weight.mul_(scales[self.source])


def find_fold(layers: LayerByLayer, group: Group, seed: int) -> Fold | None:
    """Where the scales of a group in the next layer go; None if nowhere.

    Args:
        layers: at the layer that the group is of.
        group: products of one input.
        seed: of the scales that candidates are tried with.
    """
    generator = torch.Generator().manual_seed(seed)
    expected = layers.output()
    for fold in _candidates(layers, group):
        scales = torch.empty(fold.outputs).uniform_(0.5, 2, generator=generator)
        touched = [*_parameters(fold.producer), *(module.weight for module in group.weights.values())]
        kept = [parameter.detach().clone() for parameter in touched]
        fold.apply(group.weights, scales.to(expected.device))
        difference = (layers.output() - expected).abs().max()
        with torch.no_grad():
            for parameter, before in zip(touched, kept, strict=True):
                parameter.copy_(before)
        if difference <= _TOLERANCE * expected.abs().max():
            return fold
    return None


def _candidates(layers: LayerByLayer, group: Group) -> Iterator[Fold]:
    """Modules of the layer that may make the group's inputs by their shape, the last of them first."""
    own = set(group.weights.values())
    columns = group.second_moment.shape[0]
    device = group.second_moment.device
    for module in reversed(list(layers.layer.modules())):
        parameters = _parameters(module)
        if not parameters or module in own:
            continue
        outputs = int(parameters[0].shape[0])
        if outputs == columns:
            yield Fold(module, torch.arange(columns, device=device))
        elif isinstance(module, nn.Linear) and columns % outputs == 0 and outputs % layers.head_width == 0:
            # Heads side by side that share their values: each block of a head's width is read several times.
            heads = torch.arange(outputs, device=device).view(-1, layers.head_width)
            yield Fold(module, heads.repeat_interleave(columns // outputs, dim=0).flatten())


def _parameters(module: nn.Module) -> list[nn.Parameter]:
    """The weight of a norm or of a product, and its bias; nothing of other modules."""
    weight, bias = (getattr(module, name, None) for name in ("weight", "bias"))
    if not isinstance(weight, nn.Parameter):
        return []
    if not (weight.ndim == _VECTOR or (weight.ndim == _MATRIX and isinstance(module, nn.Linear))):
        return []
    return [weight, bias] if isinstance(bias, nn.Parameter) else [weight]
