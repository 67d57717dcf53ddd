"""Depth: whole layers, by how much they change what passes through them."""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import polars as pl
from torch.nn.functional import cosine_similarity

from luthier_prune.layouts import layout_of
from luthier_prune.rebuilding import count_parameters, rebuilt
from luthier_prune.watching import run, watching

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedConfig, PreTrainedModel

    from luthier_models.batching import Batch, BatchedModel


class Depth:
    """The layers of a model; a `luthier_prune.course.Cut`."""

    title = unit = "layers"

    def __init__(self, model: PreTrainedModel) -> None:
        self._model = model
        self._layout = layout_of(model)
        self.total = len(self._layout.blocks(model))
        self.removable = self.total - 1
        self._influence: list[float] = []

    def parameters(self, removed: int) -> int:
        """Layers are of one size in the families that are known."""
        block = self._layout.blocks(self._model)[0]
        return count_parameters(self._model) - removed * sum(each.numel() for each in block.parameters())

    def rank(self, packed: BatchedModel, rows: Sequence[Batch]) -> None:
        """Measure the influence of each layer: 1 - cos(what enters a token's place, what leaves it), in the mean."""
        self._influence = block_influence(packed, rows, self._layout.blocks(self._model))

    def pruned(self, removed: int) -> PreTrainedModel:
        """The model without the layers of least influence."""
        kept = self._kept(removed)
        places = {old: new for new, old in enumerate(kept)}
        pattern = re.compile(rf"({re.escape(self._layout.layers)}\.)(\d+)(\..*)")
        weights: dict[str, Tensor] = {}
        for name, tensor in self._model.state_dict().items():
            found = pattern.fullmatch(name)
            if found is None:
                weights[name] = tensor
            elif int(found[2]) in places:
                weights[f"{found[1]}{places[int(found[2])]}{found[3]}"] = tensor
        return rebuilt(self._model, with_layers(self._model.config, kept), weights)

    def table(self, removed: int) -> pl.DataFrame:
        """Each layer with its influence."""
        kept = set(self._kept(removed))
        rows = [
            {"layer": number, "influence": influence, "removed": number not in kept}
            for number, influence in enumerate(self._influence)
        ]
        return pl.DataFrame(rows)

    def _kept(self, removed: int) -> list[int]:
        order = sorted(range(self.total), key=lambda number: (self._influence[number], number))
        return sorted(order[removed:])


def block_influence(packed: BatchedModel, rows: Sequence[Batch], blocks: Sequence[nn.Module]) -> list[float]:
    """The block influence of each layer, from 0 to 2, over all tokens of the rows."""
    sums = [0.0] * len(blocks)
    tokens = [0] * len(blocks)

    def measure(number: int, inputs: tuple[Any, ...], options: dict[str, Any], output: Any) -> None:
        entered = inputs[0] if inputs else options["hidden_states"]
        left = output[0] if isinstance(output, tuple) else output
        turned = 1 - cosine_similarity(entered.float(), left.float(), dim=-1)
        sums[number] += float(turned.sum())
        tokens[number] += turned.numel()

    with watching(blocks, measure):
        run(packed, rows)
    return [total / count for total, count in zip(sums, tokens, strict=True)]


def with_layers(config: PreTrainedConfig, kept: Sequence[int]) -> PreTrainedConfig:
    """A configuration of these layers only: their number, and what it says of each."""
    changed: Any = copy.deepcopy(config)
    total = int(changed.num_hidden_layers)
    for name, value in vars(config).items():
        if isinstance(value, list) and len(value) == total and name in PER_LAYER:
            setattr(changed, name, [value[number] for number in kept])
    changed.num_hidden_layers = len(kept)
    return changed  # type: ignore[no-any-return]


PER_LAYER = ("layer_types", "no_rope_layers")
"""What configurations list for each layer."""
