"""What a tuner minimises, as the training loop sees it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Example_contra = TypeVar("Example_contra", contravariant=True)
Batch = TypeVar("Batch")


class Loss(Protocol[Example_contra, Batch]):
    """A loss of examples, batch by batch: as much of it as its memory follows from."""

    @property
    def module(self) -> torch.nn.Module:
        """What is put into training or evaluation mode."""

    @property
    def device(self) -> torch.device:
        """Where it computes."""

    def tokens(self, example: Example_contra) -> int:
        """The tokens that an example costs: what a budget in minutes is measured by."""

    def batches(self, examples: Sequence[Example_contra]) -> Iterator[tuple[list[int], Batch]]:
        """Examples in batches that are computed at once: the members' indices and the batch, on the device."""

    def loss(self, batch: Batch) -> Tensor:
        """That of a batch, ready for backward."""


class Objective(Loss[Example_contra, Batch], Protocol):
    """A loss that is a sum over the terms of examples.

    A step's loss is the sum over all its examples divided by their `terms`, so that it does not depend on how
    a step is cut into batches that fit into memory, or is shared among processes.
    """

    def terms(self, example: Example_contra) -> int:
        """The terms of the loss that an example has: its targets."""

    def losses(self, batch: Batch) -> Sequence[Tensor]:
        """The terms of each member, (terms,) each, without gradients: what validation reports."""
