"""What training needs of memory: an estimate before the work, and the words for when it was not enough.

The errors are no `InputError`: what is free changes, and a search must not lose a candidate to that for good.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import torch

from luthier import LuthierError

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Parameter

    from luthier_tune.objective import Loss
    from luthier_tune.options import Training

Example = TypeVar("Example")

_TIGHT = 0.8
"""The share of the memory from which training is warned of: allocators and temporary results need some, too."""
_OUT_OF_MEMORY = ("can't allocate memory", "out of memory")


class Sizes(Protocol):
    """Settings that say how much is computed at once."""

    @property
    def batch_size(self) -> int:
        """Examples of one step."""

    @property
    def max_length(self) -> int:
        """Tokens of one example."""


@dataclass(frozen=True)
class Estimate:
    """What training needs besides the weights that are loaded already; all in bytes.

    Attributes:
        gradients: of the trained parameters.
        moments: AdamW's two.
        activations: what the forward pass of the largest batch keeps for the backward pass.
        tokens: of that batch.
    """

    gradients: int
    moments: int
    activations: int
    tokens: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.gradients + self.moments + self.activations

    def __str__(self) -> str:
        parts = {"gradients": self.gradients, "the optimizer": self.moments}
        told = [f"{_gigabytes(size)} for {name}" for name, size in parts.items()]
        return ", ".join([*told, f"{_gigabytes(self.activations)} for the activations of {self.tokens} tokens"])


def estimate(
    objective: Loss[Example, Any],
    parameters: Mapping[str, Parameter],
    examples: Sequence[Example],
    batch_size: int,
) -> Estimate:
    """Estimate the memory of training: a lower bound, without temporary results.

    The largest batch is that of the longest examples. The activations of its first one and two examples are counted
    in forward passes; further ones take as much for each token as the second, which shares with the first what
    examples of a batch can share.
    """
    objective.module.train()
    longest = sorted(examples, key=objective.tokens)[-batch_size:]
    batches = ([longest[member] for member in members] for members, _ in objective.batches(longest))
    largest = max(batches, key=lambda batch: sum(map(objective.tokens, batch)))
    tokens = sum(map(objective.tokens, largest))
    gradients = sum(parameter.nbytes for parameter in parameters.values())
    one, two = _activations(objective, largest[:1]), _activations(objective, largest[:2])
    further = sum(map(objective.tokens, largest[2:])) * (two - one) / max([1, *map(objective.tokens, largest[1:2])])
    return Estimate(gradients, 2 * gradients, two + round(further), tokens)


def _activations(objective: Loss[Example, Any], examples: Sequence[Example]) -> int:
    return max(saved_bytes(objective, batch) for _, batch in objective.batches(examples))


def saved_bytes(objective: Loss[Any, Any], batch: Any) -> int:
    """The bytes that the forward pass of a batch keeps for the backward pass, besides the weights."""
    weights = {each.untyped_storage().data_ptr() for each in objective.module.parameters()}
    kept: dict[int, int] = {}

    def count(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with (
        torch.random.fork_rng(devices=[objective.device] if objective.device.type == "cuda" else []),
        torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor),
    ):
        objective.loss(batch)
    return sum(kept.values())


def shortage(need: Estimate, available: int, settings: Training) -> str:
    """A warning where the memory is tight; empty if it is not.

    Raises:
        LuthierError: if it cannot suffice.
    """
    told = f"training needs {_gigabytes(need.total)} of memory besides the weights ({need})"
    if need.total > available:
        raise LuthierError(f"{told}, and {_gigabytes(available)} are free", _remedy(settings))
    if need.total > _TIGHT * available:
        return f"{told}, of {_gigabytes(available)} that are free: it may run out"
    return ""


@contextmanager
def explained(what: str, settings: Sizes) -> Iterator[None]:
    """Turn running out of memory into an error that names what can be lowered.

    Args:
        what: what the memory was needed for.
        settings: what can be lowered.

    Raises:
        LuthierError: if the memory ran out.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        # PyTorch's allocators have an exception of their own on CUDA only; the others say it in words.
        if isinstance(error, RuntimeError) and not any(text in str(error) for text in _OUT_OF_MEMORY):
            raise
        reason = (str(error).strip().splitlines() or ["no more could be allocated"])[0]
        raise LuthierError(f"out of memory {what}: {reason}", _remedy(settings)) from error


def _remedy(settings: Sizes) -> str:
    return (
        f"Lower `batch_size` (it is {settings.batch_size}) or `max_length` (it is {settings.max_length}), train fewer "
        "parameters (adapters, or some layers), take a smaller model, or free memory."
    )


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.2f} GB"
