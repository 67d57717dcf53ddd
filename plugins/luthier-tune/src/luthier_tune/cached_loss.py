"""The loss of a model whose lower layers are frozen: what they give is computed once for each example."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from luthier_tune.loss import ROW_TOKENS, CompletionLoss

if TYPE_CHECKING:
    from torch import Tensor

    from luthier_models.packing import Pair, Row
    from luthier_tune.activations import ActivationCache
    from luthier_tune.split import SplitModel


@dataclass(frozen=True)
class Numbered:
    """An example with its number in a cache."""

    pair: Pair
    number: int


class CachedLoss:
    """The objective of `CompletionLoss`, with the lower layers' states of each example from a cache.

    The states are computed in the batch in which an example is first needed, so that a short training computes
    no more than it needs. They are used as they are kept: whether one is computed or read makes no difference.

    Args:
        parts: the model; the lower part is in evaluation mode.
        cache: where the states are kept.
    """

    def __init__(self, parts: SplitModel, cache: ActivationCache) -> None:
        self._parts = parts
        self._cache = cache
        self._upper = CompletionLoss(parts.upper)

    @property
    def module(self) -> torch.nn.Module:
        """The upper part."""
        return self._upper.module

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self._upper.device

    def terms(self, example: Numbered) -> int:
        """The tokens to predict."""
        return self._upper.terms(example.pair)

    def tokens(self, example: Numbered) -> int:
        """All tokens."""
        return self._upper.tokens(example.pair)

    def batches(self, examples: Sequence[Numbered]) -> Iterator[tuple[list[int], Row]]:
        """Rows of documents that do not see each other, with the states that the upper part starts from."""
        pairs = [example.pair for example in examples]
        for members, row in self._parts.upper.rows(pairs, ROW_TOKENS):
            yield members, replace(row, states=self._states([examples[member] for member in members], row))

    def loss(self, batch: Row) -> Tensor:
        """The summed cross entropy, in nats."""
        return self._upper.loss(batch)

    def losses(self, batch: Row) -> Sequence[Tensor]:
        """The cross entropy of each target, by document."""
        return self._upper.losses(batch)

    def _states(self, examples: Sequence[Numbered], row: Row) -> Tensor:
        """The states of a row's tokens, (tokens, width)."""
        kept = [self._cache.get(example.number) for example in examples]
        if any(states is None for states in kept):
            # The last token of a document predicts nothing and is not in the row.
            computed = torch.split(self._parts.states(row), [self.tokens(example) - 1 for example in examples])
            kept = [
                self._cache.put(example.number, new) if states is None else states
                for example, states, new in zip(examples, kept, computed, strict=True)
            ]
        dtype = self._parts.upper.model.dtype
        return torch.cat([states.to(self.device, dtype) for states in kept if states is not None])
