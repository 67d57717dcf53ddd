"""A causal language model cut at a layer: what enters the layer, and the model from there on."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import torch

from luthier_models.packing import PackedModel, Pair, pack

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedModel

    from luthier_models.packing import Row

_PROBE: tuple[Pair, ...] = (([5, 3, 6], [4, 2]), ([1, 2, 3, 4], [5, 6, 7]))
_TOLERANCE = 1e-4


def layer_list(model: PreTrainedModel) -> tuple[str, nn.ModuleList] | None:
    """The list of a model's layers and its name in `model.base_model`; None if there is no such list."""
    count = getattr(model.config, "num_hidden_layers", None)
    lists = [
        (name, child)
        for name, child in model.base_model.named_children()
        if isinstance(child, torch.nn.ModuleList) and len(child) == count
    ]
    return lists[0] if len(lists) == 1 else None


class SplitModel:
    """A model in two parts that share its weights: `states` of the lower one are what the upper one starts from.

    Args:
        model: the model.
        first: the first layer of the upper part, counted from 0; at least 1.
    """

    def __init__(self, model: PreTrainedModel, first: int) -> None:
        found = layer_list(model)
        assert found is not None
        name, layers = found
        self.first = first
        self._last: nn.Module = layers[first - 1]
        self._lower = PackedModel(_with_layers(model, name, layers[:first]))
        self.upper = PackedModel(_with_layers(model, name, layers[first:]))

    def states(self, row: Row) -> Tensor:
        """What enters the upper part: the hidden states of a row's tokens, (tokens, width), without gradients."""
        caught: list[Tensor] = []

        def catch(_layer: nn.Module, _inputs: Any, output: Any) -> None:
            caught.append(output[0] if isinstance(output, tuple) else output)

        hook = self._last.register_forward_hook(catch)
        try:
            with torch.no_grad():
                self._lower.hidden(row)
        finally:
            hook.remove()
        return caught[-1][0]


def split(model: PreTrainedModel, first: int) -> SplitModel | None:
    """Cut a model before layer `first`; None if its parts, measured on two documents, do not give the whole.

    They do in the Llama family. Where a model does more to embeddings than to look them up (it scales them, or
    adds those of positions), or where what a layer does depends on its place, they do not.
    """
    kinds = set(getattr(model.config, "layer_types", None) or ["full_attention"])
    if layer_list(model) is None or len(kinds) > 1:
        return None
    parts, whole = SplitModel(model, first), PackedModel(model)
    vocabulary = int(cast("Any", model).get_input_embeddings().weight.shape[0])
    pairs = [tuple([token % vocabulary for token in ids] for ids in pair) for pair in _PROBE]
    row = pack(cast("list[Pair]", pairs)).to(model.device)
    training = model.training
    model.train(False)
    with torch.no_grad():
        expected = whole.hidden(row)
        got = parts.upper.hidden(replace(row, states=parts.states(row)))
    model.train(training)
    tolerance = (_TOLERANCE if model.dtype == torch.float32 else 0.05) * float(expected.abs().max())
    return parts if float((got - expected).abs().max()) <= tolerance else None


def _with_layers(model: PreTrainedModel, name: str, layers: nn.ModuleList) -> PreTrainedModel:
    """The same model, sharing all modules, but with these layers only."""
    outer, inner = _shallow(model), _shallow(model.base_model)
    setattr(inner, name, layers)
    setattr(outer, model.base_model_prefix, inner)
    return cast("PreTrainedModel", outer)


def _shallow(module: nn.Module) -> nn.Module:
    twin = copy.copy(module)
    twin._modules = dict(module._modules)
    return twin
