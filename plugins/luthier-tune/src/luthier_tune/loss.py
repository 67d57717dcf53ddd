"""Cross entropy of the completions' tokens in batches of pairs, with logits computed there only."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.functional import cross_entropy

if TYPE_CHECKING:
    from torch import Tensor

    from luthier_models.batching import Batch, BatchedModel
    from luthier_models.packing import Head, Pair

CHUNK = 128
"""Targets whose logits are held at once: of a vocabulary of 50,000 they take 25 MB, which stays near the processor."""


ChunkLoss = Callable[["Tensor", slice], "Tensor"]
"""The summed loss of some targets, given the states that they are predicted from and which they are of the row."""


class _ChunkedSum(torch.autograd.Function):
    """A loss summed over targets, a chunk of them at a time; logits are never kept.

    The gradients of the states and of the output layer are computed in the forward pass, as in Liger Kernel's
    fused linear cross entropy (arXiv:2410.10989), so that backward only scales them.
    """

    @staticmethod
    def forward(ctx: Any, states: Tensor, chunk_loss: ChunkLoss, *trained: Tensor) -> Tensor:
        """Sum over (targets, width) states; `trained` are the output layer's parameters that learn."""
        gradient = torch.empty_like(states)
        sums: list[Tensor] = []
        total = torch.zeros((), dtype=torch.float32, device=states.device)
        for start in range(0, len(states), CHUNK):
            chunk = slice(start, start + CHUNK)
            part = states[chunk].detach().requires_grad_()
            with torch.enable_grad():
                loss = chunk_loss(part, chunk)
            gradient[chunk], *found = torch.autograd.grad(loss, [part, *trained])
            sums = [whole.add_(new) for whole, new in zip(sums, found, strict=True)] if sums else found
            total += loss.detach()
        ctx.save_for_backward(gradient, *sums)
        return total

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients of the states and of the output layer."""
        gradient, *sums = (saved * outputs[0].to(saved.dtype) for saved in ctx.saved_tensors)
        return gradient, None, *sums


def chunked_sum(states: Tensor, head: Head, chunk_loss: ChunkLoss) -> Tensor:
    """The sum of a loss over a row's targets, ready for backward.

    Args:
        states: what the targets are predicted from, (targets, width).
        head: the output layer, whose parameters get their gradients too where they learn.
        chunk_loss: the loss of some of the targets; it puts their states through the head.
    """
    parameters = head.parameters() if isinstance(head, torch.nn.Module) else ()
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    total: Tensor = _ChunkedSum.apply(states, chunk_loss, *trained)  # type: ignore[no-untyped-call]
    return total


def states_and_head(packed: BatchedModel, row: Batch) -> tuple[Tensor, Head]:
    """What a row's targets are predicted from, and what makes logits of it.

    For a model whose output layer is not all that makes them, these are the logits themselves.
    """
    if packed.head is None:
        return packed.logits(row), _unchanged
    return packed.hidden(row), packed.head


def _unchanged(logits: Tensor) -> Tensor:
    return logits


def summed_loss(packed: BatchedModel, row: Batch) -> Tensor:
    """The summed cross entropy of a row's targets, ready for backward."""
    states, head = states_and_head(packed, row)

    def chunk_loss(part: Tensor, chunk: slice) -> Tensor:
        return cross_entropy(head(part).float(), row.labels[chunk], reduction="sum")

    return chunked_sum(states, head, chunk_loss)


def target_losses(packed: BatchedModel, row: Batch) -> Tensor:
    """The cross entropy of each target, (targets,), without gradients."""
    # Not in inference mode: weights of a cut model that are gathered in it cannot be trained with afterwards.
    with torch.no_grad():
        states, head = states_and_head(packed, row)
        parts = zip(torch.split(states, CHUNK), torch.split(row.labels, CHUNK), strict=True)
        return torch.cat([cross_entropy(head(part).float(), labels, reduction="none") for part, labels in parts])


class CompletionLoss:
    """The objective of language modelling: what follows is to be predicted, what is given is not.

    Args:
        packed: the model.
    """

    def __init__(self, packed: BatchedModel) -> None:
        self.packed = packed

    @property
    def module(self) -> torch.nn.Module:
        """The model."""
        return self.packed.model

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.packed.device

    def terms(self, example: Pair) -> int:
        """The tokens to predict."""
        return len(example[1])

    def tokens(self, example: Pair) -> int:
        """All tokens."""
        return len(example[0]) + len(example[1])

    def batches(self, examples: Sequence[Pair]) -> Iterator[tuple[list[int], Batch]]:
        """Batches of examples that do not see each other."""
        return self.packed.rows(examples, self.packed.row_tokens)

    def loss(self, batch: Batch) -> Tensor:
        """The summed cross entropy, in nats."""
        return summed_loss(self.packed, batch)

    def losses(self, batch: Batch) -> Sequence[Tensor]:
        """The cross entropy of each target, by document."""
        parts: tuple[Tensor, ...] = torch.split(target_losses(self.packed, batch), list(batch.sizes))
        return parts
