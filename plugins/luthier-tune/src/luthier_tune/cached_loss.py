"""The loss of a model whose lower layers are frozen: what they give is computed once for each example."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from luthier_tune.loss import CompletionLoss

if TYPE_CHECKING:
    from torch import Tensor

    from luthier_models.packing import Pair, Row
    from luthier_tune.activations import ActivationCache
    from luthier_tune.split import SplitModel


class CachedLoss(CompletionLoss):
    """`CompletionLoss` of the upper part of a model, on the lower part's states of each example from a cache.

    The states are computed in the batch in which an example is first needed, so that a short training computes
    no more than it needs. They are used as they are kept: whether they are computed or read makes no difference.

    Args:
        parts: the model; the lower part is in evaluation mode.
        cache: where the states are kept.
        examples: the examples that there are, in the cache's order.
    """

    def __init__(self, parts: SplitModel, cache: ActivationCache, examples: Sequence[Pair]) -> None:
        super().__init__(parts.upper)
        self._parts = parts
        self._cache = cache
        self._numbers = numbered(examples)

    def batches(self, examples: Sequence[Pair]) -> Iterator[tuple[list[int], Row]]:
        """Rows of documents that do not see each other, with the states that the upper part starts from."""
        upper = self._parts.upper
        for members, row in upper.rows(examples, upper.row_tokens):
            pairs = [examples[member] for member in members]
            yield members, self._parts.start(row, pairs, self._states(pairs))

    def _states(self, pairs: Sequence[Pair]) -> list[Tensor]:
        """The states of each example's tokens, (tokens, width)."""
        kept = kept_states(self._cache, self._numbers, pairs, self._parts.states)
        return [states.to(self.device, self.packed.model.dtype) for states in kept]


def numbered(examples: Sequence[Pair]) -> dict[bytes, int]:
    """The places of examples in a cache, by what tells them apart there."""
    return {_content(example): number for number, example in enumerate(examples)}


def kept_states(
    cache: ActivationCache,
    numbers: Mapping[bytes, int],
    pairs: Sequence[Pair],
    compute: Callable[[Sequence[Pair]], Sequence[Tensor]],
) -> list[Tensor]:
    """The states of each example, as the cache keeps them; computed where one of them is not there.

    Args:
        cache: of the states.
        numbers: where the examples are in it; see `numbered`.
        pairs: some of the examples.
        compute: the states of examples.
    """
    places = [numbers[_content(pair)] for pair in pairs]
    kept = [cache.get(place) for place in places]
    if any(states is None for states in kept):
        # All of them, so that what is computed does not depend on where a killed run was.
        kept = [
            cache.put(place, new) if states is None else states
            for place, states, new in zip(places, kept, compute(pairs), strict=True)
        ]
    return [states for states in kept if states is not None]


def _content(example: Pair) -> bytes:
    """What tells examples apart for the lower part: their tokens, but the last, which predicts nothing."""
    given, targets = example
    return hashlib.blake2b(array("q", [*given, *targets][:-1]).tobytes(), digest_size=16).digest()
