"""A byte n-gram model: interpolated Kneser-Ney (Kneser and Ney 1995; Chen and Goodman 1999, section 4.1.6).

The discount of each order is n1 / (n1 + 2 n2), from the numbers of n-grams that were counted once and
twice. Below the unigrams lies the uniform distribution, so that every byte has a probability.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

END = 256
"""The symbol after the last byte of a text."""
START = 257
"""The symbol before the first byte: read, never predicted."""

_BASE = 258
_UNSEEN_DISCOUNT = 0.5


@dataclass(frozen=True)
class _Order:
    """The n-grams of one length, as numbers whose last digit is the predicted symbol.

    Attributes:
        keys: the n-grams, sorted. counts: of each; continuations below the highest order.
        contexts: the n-grams without their last symbol, sorted.
        totals: of each context, the sum of its counts. types: how many symbols followed it.
        discount: what is taken from each count.
    """

    keys: NDArray[np.int64]
    counts: NDArray[np.int64]
    contexts: NDArray[np.int64]
    totals: NDArray[np.int64]
    types: NDArray[np.int64]
    discount: float

    def interpolate(self, windows: NDArray[np.int64], lower: NDArray[np.float64]) -> NDArray[np.float64]:
        """The probabilities at this order, from those of the order below."""
        place, known = _find(self.contexts, windows // _BASE)
        totals = np.where(known, self.totals[place], 1)
        types = np.where(known, self.types[place], 0)
        place, seen = _find(self.keys, windows)
        counts = np.where(seen, self.counts[place] - self.discount, 0.0)
        return np.where(known, (counts + self.discount * types * lower) / totals, lower)


class ByteNgrams:
    """A model of the next byte given the bytes before it.

    Args:
        texts: what it learns from.
        order: the length of the longest n-grams, from 1 to 7.
        ends: whether the end of a text is a symbol to predict, too.
    """

    def __init__(self, texts: Sequence[bytes], *, order: int = 5, ends: bool = False) -> None:
        self.order = order
        self.ends = ends
        self.symbols = END + ends
        keys, counts = np.unique(self._windows(texts), return_counts=True)
        # Without anything to learn from, the uniform distribution is all there is.
        orders = [_order(keys, counts)] if len(keys) else []
        for length in range(order - 1, 0, -1) if orders else ():
            # How many symbols an n-gram follows says more of new contexts than how often it occurs.
            keys, counts = np.unique(keys % _BASE**length, return_counts=True)
            orders.append(_order(keys, counts))
        self._orders = orders[::-1]

    def nats(self, texts: Sequence[bytes]) -> list[float]:
        """The negative log-likelihood of each text."""
        surprise = -np.log(self._probabilities(self._windows(texts)))
        borders = np.cumsum([len(text) + self.ends for text in texts])[:-1]
        return [float(part.sum()) for part in np.split(surprise, borders)]

    def distribution(self, context: bytes) -> NDArray[np.float64]:
        """The probability of each symbol at the beginning of a text that goes on after `context`."""
        before = [START] * (self.order - 1) + list(context)
        prefix = 0
        for symbol in before[len(before) - self.order + 1 :]:
            prefix = prefix * _BASE + symbol
        return self._probabilities(prefix * _BASE + np.arange(self.symbols, dtype=np.int64))

    def _probabilities(self, windows: NDArray[np.int64]) -> NDArray[np.float64]:
        found = np.full(len(windows), 1 / self.symbols)
        for length, order in enumerate(self._orders, start=1):
            found = order.interpolate(windows % _BASE**length, found)
        return found

    def _windows(self, texts: Sequence[bytes]) -> NDArray[np.int64]:
        """For each symbol to predict, it and those before it as one number."""
        start = np.full(self.order - 1, START, np.int64)
        end = np.full(int(self.ends), END, np.int64)
        parts = [part for text in texts for part in (start, np.frombuffer(text, np.uint8).astype(np.int64), end)]
        flat = np.concatenate([np.zeros(0, np.int64), *parts])
        count = max(0, len(flat) - self.order + 1)
        windows = np.zeros(count, np.int64)
        for place in range(self.order):
            windows = windows * _BASE + flat[place : place + count]
        predicted: NDArray[np.int64] = windows[flat[self.order - 1 :] != START]
        return predicted


def _order(keys: NDArray[np.int64], counts: NDArray[np.int64]) -> _Order:
    contexts, first, types = np.unique(keys // _BASE, return_index=True, return_counts=True)
    totals = np.add.reduceat(counts, first)
    once, twice = int((counts == 1).sum()), int((counts == 2).sum())
    discount = once / (once + 2 * twice) if once else _UNSEEN_DISCOUNT
    return _Order(keys, counts, contexts, totals, types, discount)


def _find(where: NDArray[np.int64], what: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """The places of numbers in a sorted array, and which of them are there at all."""
    place = np.minimum(np.searchsorted(where, what), len(where) - 1)
    return place, where[place] == what
