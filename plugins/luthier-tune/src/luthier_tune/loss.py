"""Cross entropy of the completions' tokens on packed rows, with logits computed there only."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.functional import cross_entropy

if TYPE_CHECKING:
    from torch import Tensor

    from luthier_models.packing import Head, PackedModel, Pair, Row

# 128 targets of a vocabulary of 50,000 take 25 MB of logits, which stays near the processor.
_CHUNK = 128


class ChunkedCrossEntropy(torch.autograd.Function):
    """The summed cross entropy of a frozen output layer, chunk by chunk; logits are never kept.

    The gradient with respect to the hidden states is computed in the forward pass, as in Liger Kernel's
    fused linear cross entropy, so that backward only scales it.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, labels: Tensor, head: Head) -> Tensor:
        """Sum over (targets, width) hidden states and (targets,) labels; float32."""
        gradient = torch.empty_like(hidden)
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        for start in range(0, len(hidden), _CHUNK):
            part = hidden[start : start + _CHUNK].detach().requires_grad_()
            with torch.enable_grad():
                loss = cross_entropy(head(part).float(), labels[start : start + _CHUNK], reduction="sum")
            (gradient[start : start + _CHUNK],) = torch.autograd.grad(loss, part)
            total += loss.detach()
        ctx.save_for_backward(gradient)
        return total

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor, None, None]:
        """The gradient of the hidden states."""
        (gradient,) = ctx.saved_tensors
        return gradient * outputs[0].to(gradient.dtype), None, None


def summed_loss(packed: PackedModel, row: Row) -> Tensor:
    """The summed cross entropy of a row's targets, ready for backward."""
    head = packed.head
    frozen = isinstance(head, torch.nn.Module) and not any(p.requires_grad for p in head.parameters())
    if head is not None and frozen:
        loss: Tensor = ChunkedCrossEntropy.apply(packed.hidden(row), row.labels, head)  # type: ignore[no-untyped-call]
        return loss
    return cross_entropy(packed.logits(row).float(), row.labels, reduction="sum")


def target_losses(packed: PackedModel, row: Row) -> Tensor:
    """The cross entropy of each target, (targets,), without gradients."""
    with torch.inference_mode():
        if packed.head is None:
            return cross_entropy(packed.logits(row).float(), row.labels, reduction="none")
        hidden, head = packed.hidden(row), packed.head
        parts = zip(torch.split(hidden, _CHUNK), torch.split(row.labels, _CHUNK), strict=True)
        return torch.cat([cross_entropy(head(part).float(), labels, reduction="none") for part, labels in parts])


class CompletionLoss:
    """The objective of language modelling: what follows is to be predicted, what is given is not.

    Args:
        packed: the model.
    """

    def __init__(self, packed: PackedModel) -> None:
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

    def batches(self, examples: Sequence[Pair]) -> Iterator[tuple[list[int], Row]]:
        """Rows of documents that do not see each other."""
        return self.packed.rows(examples, self.packed.row_tokens)

    def loss(self, batch: Row) -> Tensor:
        """The summed cross entropy, in nats."""
        return summed_loss(self.packed, batch)

    def losses(self, batch: Row) -> Sequence[Tensor]:
        """The cross entropy of each target, by document."""
        parts: tuple[Tensor, ...] = torch.split(target_losses(self.packed, batch), list(batch.sizes))
        return parts
