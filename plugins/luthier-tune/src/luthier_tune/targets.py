"""The layers of a model that a recipe names: found by name, or refused with the names that there are."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, cast

import torch
from transformers.pytorch_utils import Conv1D

from luthier import InputError
from luthier.suggest import did_you_mean
from luthier_models.heads import head_modules

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def adaptable(model: PreTrainedModel) -> dict[str, torch.nn.Module]:
    """The layers that are products with a matrix, by their full names: those that can have an adapter.

    An output layer that shares its weights with the input embedding is left out: what is merged into the one
    would change the other. So is a classifier's head, which is trained itself.
    """
    layers: dict[str, torch.nn.Module] = {
        name: layer for name, layer in model.named_modules() if isinstance(layer, torch.nn.Linear | Conv1D)
    }
    anyone = cast("Any", model)
    embedding, head = anyone.get_input_embeddings(), anyone.get_output_embeddings()
    if head is not None and head.weight is embedding.weight:
        layers = {name: layer for name, layer in layers.items() if layer is not head}
    heads = tuple(head_modules(model))
    return {name: layer for name, layer in layers.items() if name.partition(".")[0] not in heads}


def matches(name: str, layer: str) -> bool:
    """Whether `name` is a layer's full name or the end of it (`q_proj`, `layers.0.mlp.up_proj`), as in peft."""
    return layer == name or layer.endswith(f".{name}")


def check_names(names: Iterable[str], layers: Sequence[str], *, what: str) -> None:
    """Refuse names that no layer has.

    Args:
        names: what the recipe gives.
        layers: the full names of what may be named.
        what: the parameter that the names are from, for the error.

    Raises:
        InputError: with the closest name and those that there are, or the numbers of those that are counted.
    """
    last = sorted({layer.rpartition(".")[2] for layer in layers})
    for name in names:
        if not any(matches(name, layer) for layer in layers):
            counted = _numbers_there(name, layers)
            if counted:
                raise InputError(
                    f"`{what}` names {name!r}, and the model has {counted}",
                    "They are counted from 0.",
                )
            hint = did_you_mean(name, last)
            raise InputError(
                f"`{what}` names {name!r}, which none of the model's layers that it may name is called"
                + (f"; {hint}" if hint else ""),
                f"There are: {', '.join(last)}. A longer name picks one of them: {layers[0]}.",
            )


def _numbers_there(name: str, layers: Iterable[str]) -> str:
    """What there is in place of a number that is too high, `layers 0 to 29`; empty where no number mends the name."""
    for number in re.finditer(r"(?<=\.)\d+(?=\.|$)", name):
        before, after = re.escape(name[: number.start()]), re.escape(name[number.end() :])
        like = re.compile(rf"(?:.*\.)?{before}(\d+){after}")
        found = sorted({int(match[1]) for layer in layers if (match := like.fullmatch(layer))})
        if found:
            unbroken = len(found) > 1 and found == list(range(found[0], found[-1] + 1))
            told = f"{found[0]} to {found[-1]}" if unbroken else ", ".join(map(str, found))
            return f"{name[: number.start() - 1]} {told}"
    return ""
