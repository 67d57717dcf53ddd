"""MinHash signatures and the layout of bands for locality-sensitive hashing."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray
from rensa import RMinHash

SEED = 1
FOUND_AT_THRESHOLD = 0.99
WORD = r"[\p{L}\p{M}\p{N}_]+"
MIX = np.uint64(0x9E3779B97F4A7C15)
SHIFT = np.uint64(29)


@dataclass(frozen=True)
class MinHash:
    """How documents become signatures.

    Attributes:
        permutations: entries of a signature.
        ngram: words in a shingle; a shorter document is one shingle.
    """

    permutations: int
    ngram: int

    def signatures(self, texts: pl.Series) -> NDArray[np.uint32]:
        """The signatures of documents, (documents, permutations); null is as empty."""
        shingles, offsets = self._shingles(texts)
        matrix = RMinHash.digest_matrix_from_flat_token_hashes(shingles, offsets, self.permutations, SEED)
        return np.array(matrix.to_rows(), dtype=np.uint32).reshape(len(texts), self.permutations)

    def _shingles(self, texts: pl.Series) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
        words = texts.fill_null("").str.to_lowercase().str.extract_all(WORD)
        counts = words.list.len().to_numpy().astype(np.int64)
        hashes = _word_hashes(words.list.explode(keep_nulls=False, empty_as_null=False))
        # A document of n words has n - ngram + 1 shingles, and one of all its words if that is less than 1.
        shingle_counts = np.maximum(counts - self.ngram + 1, 1)
        starts = np.cumsum(counts) - counts
        offsets = np.concatenate([[0], np.cumsum(shingle_counts)])
        row = np.repeat(np.arange(len(counts)), shingle_counts)
        first = starts[row] + (np.arange(offsets[-1]) - offsets[row])
        past = (starts + counts)[row]
        shingles = np.zeros(int(offsets[-1]), dtype=np.uint64)
        padded = np.append(hashes, np.uint64(0))
        for step in range(self.ngram):
            inside = first + step < past
            word = padded[np.where(inside, first + step, len(hashes))]
            mixed = (shingles ^ word) * MIX
            shingles = np.where(inside, mixed ^ (mixed >> SHIFT), shingles)
        return shingles, offsets.astype(np.uint64)


def _word_hashes(words: pl.Series) -> NDArray[np.uint64]:
    # Python's and polars' hashes differ between processes or versions; these must not.
    if words.len() == 0:
        return np.zeros(0, dtype=np.uint64)
    distinct = words.unique().sort()
    digests = b"".join(hashlib.blake2b(word.encode(), digest_size=8).digest() for word in distinct)
    hashes: NDArray[np.uint64] = np.frombuffer(digests, dtype="<u8").astype(np.uint64)
    positions: NDArray[np.intp] = distinct.search_sorted(words).to_numpy()
    return np.take(hashes, positions)


def bands(permutations: int, threshold: float) -> tuple[int, int]:
    """How many bands of how many rows: the most rows with which a pair at the threshold is still found.

    A pair of similarity s shares one of b bands of r rows with the chance 1 - (1 - s^r)^b (Leskovec,
    Rajaraman and Ullman, Mining of Massive Datasets, section 3.4).
    """
    for rows in range(permutations, 1, -1):
        count = permutations // rows
        if 1 - (1 - threshold**rows) ** count >= FOUND_AT_THRESHOLD:
            return count, rows
    return permutations, 1
