"""Training of a head on a frozen body: what the body makes of each example is computed once, and kept."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from luthier_tune.activations import ActivationCache
from luthier_tune.cached_loss import kept_states, numbered
from luthier_tune.loss import CompletionLoss

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from luthier import Context
    from luthier_models.batching import BatchedModel
    from luthier_models.packing import Head, Pair
    from luthier_tune.activations import Precision


@dataclass(frozen=True)
class Features:
    """What enters the head, for a batch of examples with a label each.

    Attributes:
        states: (examples, width).
        labels: (examples,).
    """

    states: Tensor
    labels: Tensor

    @property
    def sizes(self) -> tuple[int, ...]:
        """Each example has one label."""
        return (1,) * len(self.labels)


class HeadModel:
    """The head of a classifier, called on what is kept of its body; a `luthier_models.batching.BatchedModel`.

    Args:
        whole: the classifier, in evaluation mode.
        head: its head, as `whole` has it.
        cache: where what the body gives is kept, a row of numbers for each example.
        examples: the examples that there are, in the cache's order.
    """

    isolates_documents = True
    shares_beginnings = takes_segments = False

    def __init__(self, whole: BatchedModel, head: nn.Module, cache: ActivationCache, examples: Sequence[Pair]) -> None:
        self.model: PreTrainedModel = whole.model
        self.head: Head | None = head
        self.module = head
        self.row_tokens = whole.row_tokens
        self._whole = whole
        self._cache = cache
        self._numbers = numbered(examples)

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self._whole.device

    def rows(
        self, pairs: Sequence[Pair], limit: int, *, shared: bool | None = None
    ) -> Iterator[tuple[list[int], Features]]:
        """All pairs in one batch: a row of numbers each is little."""
        states = kept_states(self._cache, self._numbers, pairs, self._states)
        together = torch.cat(states).to(self.device, self.model.dtype)
        labels = torch.tensor([targets[0] for _, targets in pairs]).to(self.device)
        yield [*range(len(pairs))], Features(together, labels)

    def hidden(self, batch: Features) -> Tensor:
        """What enters the head: (examples, width)."""
        return batch.states

    def logits(self, batch: Features) -> Tensor:
        """The logits of the labels: (examples, labels)."""
        logits: Tensor = self.module(batch.states)
        return logits

    def _states(self, pairs: Sequence[Pair]) -> list[Tensor]:
        """What the body makes of each example, (1, width)."""
        found: dict[int, Tensor] = {}
        with torch.no_grad():
            for members, batch in self._whole.rows(pairs, self._whole.row_tokens):
                found |= zip(members, self._whole.hidden(batch).unsqueeze(1), strict=True)
        return [found[number] for number in range(len(pairs))]


class HeadLoss(CompletionLoss):
    """`CompletionLoss` of a head alone: the body computes, and is in evaluation mode, whatever the head does."""

    packed: HeadModel

    @property
    def module(self) -> nn.Module:
        """The head."""
        return self.packed.module


def head_loss(
    whole: BatchedModel, examples: Sequence[Pair], precision: Precision, ctx: Context
) -> tuple[HeadLoss, ActivationCache] | None:
    """The objective of training the head alone, and its cache; None where what enters the head cannot be told."""
    head: Any = whole.head
    if not isinstance(head, nn.Module):
        return None
    width = next(int(each.shape[1]) for each in head.parameters() if each.dim() == 2)
    cache = ActivationCache(ctx.checkpoint / "activations", [1] * len(examples), width, precision, ctx.log)
    return HeadLoss(HeadModel(whole, head, cache, examples)), cache
