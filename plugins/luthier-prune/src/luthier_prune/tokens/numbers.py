"""Ids of tokens in configurations, and rows of tokens in weights."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import torch
from transformers import GenerationConfig

from luthier_prune.rebuilding import rebuilt

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedConfig, PreTrainedModel

_ID_KEY = re.compile(r".*token_ids?")
_LISTS = ("suppress_tokens", "begin_suppress_tokens", "bad_words_ids")
"""Lists of ids, or of sequences of them, that may name what is gone: then nothing is lost with them."""


def named_ids(model: PreTrainedModel) -> set[int]:
    """The ids that a model's configurations name by what they are for: they cannot go."""
    records = [model.config.to_dict()]
    if model.generation_config is not None:
        records.append(cast("Any", model.generation_config).to_dict())
    return {number for record in records for number in _named(record)}


def with_rows(model: PreTrainedModel, kept: Sequence[int]) -> PreTrainedModel:
    """The model with the rows of these tokens only, in the embedding and the output layer.

    Args:
        model: what it is made of.
        kept: old ids, rising.
    """
    loaded = cast("Any", model)
    tables = row_tensors(model)
    rows = torch.tensor(kept, device=model.device)
    weights: dict[str, Tensor] = {}
    made: dict[int, Tensor] = {}
    for name, tensor in model.state_dict().items():
        if name in tables:
            # A tied table stays one.
            made.setdefault(tensor.data_ptr(), tensor[rows])
        weights[name] = made[tensor.data_ptr()] if name in tables else tensor
    places = {old: new for new, old in enumerate(kept)}
    config: PreTrainedConfig = type(loaded.config).from_dict(
        {**_renumbered(loaded.config.to_dict(), places), "vocab_size": len(kept)}
    )
    pruned = rebuilt(model, config, weights)
    if model.generation_config is not None:
        settings = _renumbered(cast("Any", model.generation_config).to_dict(), places)
        cast("Any", pruned).generation_config = cast("Any", GenerationConfig).from_dict(settings)
    return pruned


def row_tensors(model: PreTrainedModel) -> dict[str, Tensor]:
    """The tensors with a row for each token, by their names in the weights; a tied one has two names."""
    loaded = cast("Any", model)
    head = loaded.get_output_embeddings()
    found = (loaded.get_input_embeddings().weight, getattr(head, "weight", None), getattr(head, "bias", None))
    places = {tensor.data_ptr() for tensor in found if tensor is not None}
    return {name: tensor for name, tensor in model.state_dict().items() if tensor.data_ptr() in places}


def row_parameters(model: PreTrainedModel) -> int:
    """The parameters of one token."""
    tables = {tensor.data_ptr(): tensor for tensor in row_tensors(model).values()}
    return sum(tensor.numel() // len(tensor) for tensor in tables.values())


def _named(record: Mapping[str, Any]) -> Iterator[int]:
    for key, value in record.items():
        if isinstance(value, Mapping):
            yield from _named(value)
        elif _ID_KEY.fullmatch(str(key)):
            yield from _numbers(value)


def _numbers(value: Any) -> Iterator[int]:
    if isinstance(value, int) and not isinstance(value, bool):
        yield value
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _numbers(each)


def _renumbered(record: Mapping[str, Any], places: Mapping[int, int]) -> dict[str, Any]:
    """A configuration in new ids."""
    changed: dict[str, Any] = {}
    for key, value in record.items():
        if isinstance(value, Mapping):
            changed[key] = _renumbered(value, places)
        elif _ID_KEY.fullmatch(str(key)):
            changed[key] = _replaced(value, places)
        elif key in _LISTS and value is not None:
            changed[key] = [_replaced(each, places) for each in value if all(n in places for n in _numbers(each))]
        else:
            changed[key] = value
    return changed


def _replaced(value: Any, places: Mapping[int, int]) -> Any:
    if isinstance(value, list | tuple):
        return [_replaced(each, places) for each in value]
    # A number that no token has (-1 for none) stays.
    return places.get(value, value) if isinstance(value, int) else value
