"""Byte-pair encoding that goes on where a tokenizer stopped: the merges that save most tokens on other text.

Merges are learnt on words as the old tokenizer cuts them, and come after its own, so that a text's old pieces are
settled first and are then joined: nothing that the old tokenizer can encode is encoded differently than by its own
pieces put together. (Purason et al., 2025, *Teaching Old Tokenizers New Words*, arXiv:2512.03989, continue the
training of byte-pair encoding in the same way.)
"""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import pairwise

Pair = tuple[str, str]


@dataclass(frozen=True)
class Merge:
    """A new token, and the two that it joins.

    Attributes:
        frequency: how often the two stood side by side in the text when they were joined.
        pieces: the old tokens that it consists of.
    """

    left: str
    right: str
    frequency: int
    pieces: tuple[str, ...]

    @property
    def token(self) -> str:
        """The new token."""
        return self.left + self.right


def learn_merges(
    words: Mapping[tuple[str, ...], int],
    *,
    limit: int,
    min_frequency: int,
    known: Collection[str],
    apart: Collection[str],
) -> list[Merge]:
    """The merges that save most tokens, one after the other; ties go by the tokens' order.

    Args:
        words: how often each word occurs, as its old tokens.
        limit: merges at most.
        min_frequency: a pair that is rarer is not merged.
        known: tokens that exist already, so that no merge may make them.
        apart: tokens that no merge may take.
    """
    pieces = [list(word) for word in words]
    times = list(words.values())
    counts: Counter[Pair] = Counter()
    places: defaultdict[Pair, set[int]] = defaultdict(set)
    for number, word in enumerate(pieces):
        for pair in pairwise(word):
            counts[pair] += times[number]
            places[pair].add(number)
    queue = [(-count, pair) for pair, count in counts.items()]
    heapq.heapify(queue)
    merges: dict[str, Merge] = {}
    while queue and len(merges) < limit:
        count, pair = heapq.heappop(queue)
        if -count != counts[pair]:
            # The number has changed since it was put there.
            if counts[pair] > 0:
                heapq.heappush(queue, (-counts[pair], pair))
            continue
        if -count < min_frequency:
            break
        token = "".join(pair)
        if token in known or token in merges or pair[0] in apart or pair[1] in apart:
            continue
        merges[token] = Merge(*pair, -count, (*_pieces(pair[0], merges), *_pieces(pair[1], merges)))
        changed: set[Pair] = set()
        for number in sorted(places.pop(pair)):
            word = pieces[number]
            joined = _join(word, pair, token)
            for old in pairwise(word):
                counts[old] -= times[number]
                changed.add(old)
            for new in pairwise(joined):
                counts[new] += times[number]
                places[new].add(number)
                changed.add(new)
            pieces[number] = joined
        for each in changed:
            if counts[each] > 0:
                heapq.heappush(queue, (-counts[each], each))
    return list(merges.values())


def _pieces(token: str, merges: Mapping[str, Merge]) -> tuple[str, ...]:
    return merges[token].pieces if token in merges else (token,)


def _join(word: list[str], pair: Pair, token: str) -> list[str]:
    joined: list[str] = []
    position = 0
    while position < len(word):
        if tuple(word[position : position + 2]) == pair:
            joined.append(token)
            position += 2
        else:
            joined.append(word[position])
            position += 1
    return joined
