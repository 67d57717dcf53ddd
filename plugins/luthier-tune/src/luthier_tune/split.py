"""A causal language model cut at a layer: what enters the layer, and the model from there on."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import torch

from luthier_models.packing import PackedModel, Pair, pack
from luthier_models.segments import separate, share

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedModel

    from luthier_models.packing import Row

_PROBE: tuple[Pair, ...] = (([5, 3, 6], [4, 2]), ([1, 2, 3, 4], [5, 6, 7]))
_TOLERANCE = 1e-4


def layer_list(model: PreTrainedModel) -> tuple[str, nn.ModuleList] | None:
    """The list of a model's layers and its name in `model.base_model`; None if there is no single such list."""
    count = getattr(model.config, "num_hidden_layers", None)
    if model.config.is_encoder_decoder:
        return None
    lists = {
        name: module for name, module in model.base_model.named_modules() if isinstance(module, torch.nn.ModuleList)
    }
    # What a layer consists of, experts say, may be as many as there are layers.
    outer = [name for name in lists if not any(name.startswith(f"{other}.") for other in lists)]
    found = [(name, lists[name]) for name in outer if len(lists[name]) == count]
    return found[0] if len(found) == 1 else None


class SplitModel:
    """A model in two parts that share its weights: `states` of the lower one are what the upper one starts from.

    Args:
        whole: the model.
        first: the first layer of the upper part, counted from 0; at least 1.

    Attributes:
        upper: the upper part, called as the whole is.
    """

    def __init__(self, whole: PackedModel, first: int) -> None:
        found = layer_list(whole.model)
        assert found is not None
        name, layers = found
        self._last: nn.Module = layers[first - 1]
        # What a layer gives is only seen where transformers' own modules are called.
        self._lower = PackedModel(_with_layers(whole.model, name, layers[:first]))
        self.upper = type(whole)(_with_layers(whole.model, name, layers[first:]))

    def states(self, pairs: Sequence[Pair]) -> list[Tensor]:
        """What enters the upper part: the hidden states of each pair's tokens, (tokens, width), without gradients.

        The last token of a pair predicts nothing and has none.
        """
        found: dict[int, Tensor] = {}
        for members, row in self._lower.rows(pairs, self._lower.row_tokens):
            lengths = [segment.length for segment in row.segments]
            found |= zip(members, torch.split(self._row_states(row), lengths), strict=True)
        return [found[number] for number in range(len(pairs))]

    def start(self, row: Row, pairs: Sequence[Pair], states: Sequence[Tensor]) -> Row:
        """A row of the upper part that starts from the states of its pairs, in place of their tokens."""
        documents = [[*given, *targets][:-1] for given, targets in pairs]
        forest = share(documents) if self.upper.shares_beginnings else separate(documents)
        return replace(row, states=torch.cat([states[number][start:end] for number, start, end in forest.sources]))

    def _row_states(self, row: Row) -> Tensor:
        """The states of a row's tokens, (tokens, width)."""
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


def split(whole: PackedModel, first: int) -> SplitModel | None:
    """Cut a model before layer `first`; None if its parts, measured on two documents, do not give the whole.

    They do in the Llama family. Where a model does more to embeddings than to look them up (it scales them, or
    adds those of positions), or where what a layer does depends on its place, they do not.
    """
    model = whole.model
    kinds = set(getattr(model.config, "layer_types", None) or ["full_attention"])
    if layer_list(model) is None or len(kinds) > 1:
        return None
    parts = SplitModel(whole, first)
    vocabulary = int(cast("Any", model).get_input_embeddings().weight.shape[0])
    pairs = [([i % vocabulary for i in given], [i % vocabulary for i in targets]) for given, targets in _PROBE]
    row = pack(pairs).to(model.device)
    training = model.training
    model.train(False)
    with torch.no_grad():
        expected = whole.hidden(row)
        got = parts.upper.hidden(replace(row, states=torch.cat(parts.states(pairs))))
    model.train(training)
    tolerance = (_TOLERANCE if model.dtype == torch.float32 else 0.05) * float(expected.abs().max())
    return parts if float((got - expected).abs().max()) <= tolerance else None


def _with_layers(model: PreTrainedModel, name: str, layers: nn.ModuleList) -> PreTrainedModel:
    """The same model, sharing all modules, but with these layers only."""
    outer, inner = _shallow(model), _shallow(model.base_model)
    setattr(outer, model.base_model_prefix, inner)
    *within, last = name.split(".")
    for part in within:
        setattr(inner, part, _shallow(getattr(inner, part)))
        inner = getattr(inner, part)
    setattr(inner, last, layers)
    return cast("PreTrainedModel", outer)


def _shallow(module: nn.Module) -> nn.Module:
    twin = copy.copy(module)
    twin._modules = dict(module._modules)
    return twin
