"""The one way in which runtimes choose a token among all: greedily, or by a seeded draw."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from luthier import Sampling


class Sampler:
    """Chooses the tokens of one completion.

    Args:
        sampling: how; see `luthier.Sampling`.
    """

    def __init__(self, sampling: Sampling) -> None:
        self._sampling = sampling
        self._rng = np.random.Generator(np.random.PCG64(sampling.seed))

    def choose(self, logits: NDArray[np.float32]) -> int:
        """The next token.

        Args:
            logits: (vocabulary,); minus infinity for tokens that may not be.
        """
        if not self._sampling.temperature:
            return int(logits.argmax())
        tokens, probabilities = likely(logits, self._sampling)
        # The draw falls into one of the intervals that lie end to end; their sum need not be exactly 1.
        borders = probabilities.cumsum()
        place = int(np.searchsorted(borders, self._rng.random() * borders[-1], side="right"))
        return int(tokens[min(place, len(tokens) - 1)])


def likely(logits: NDArray[np.float32], sampling: Sampling) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """The tokens that sampling leaves, the most probable first, with the probabilities that they had among all.

    Of equally probable tokens the one with the lower number comes first, so that the order is the same everywhere.
    """
    scaled = logits.astype(np.float64)
    scaled -= scaled.max()
    # A temperature near 0 may overflow to minus infinity, which is right: probability 0.
    with np.errstate(over="ignore"):
        scaled /= sampling.temperature
    probabilities = np.exp(scaled)
    probabilities /= probabilities.sum()
    if sampling.top_p < 1 and not sampling.top_k:
        # What is less probable than this never belongs to the nucleus: all such tokens together are less than 1 - p.
        tokens = np.flatnonzero(probabilities >= (1 - sampling.top_p) / len(probabilities))
    else:
        tokens = np.flatnonzero(probabilities)
    if sampling.top_k and sampling.top_k < len(tokens):
        least = np.partition(probabilities[tokens], -sampling.top_k)[-sampling.top_k]
        tokens = tokens[probabilities[tokens] >= least]
    tokens = tokens[np.argsort(-probabilities[tokens], kind="stable")]
    if sampling.top_k:
        tokens = tokens[: sampling.top_k]
    kept = probabilities[tokens]
    if sampling.top_p < 1:
        reached = kept.cumsum()
        if sampling.top_k:
            reached /= reached[-1]
        count = int(np.searchsorted(reached, sampling.top_p)) + 1
        tokens, kept = tokens[:count], kept[:count]
    return tokens, kept
