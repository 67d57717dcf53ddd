"""Beginnings that documents share: a row as a forest of segments, so that each is computed once.

Prompts of one task begin alike: the template's system message, then the instruction. In a causal model the
states of those tokens depend on nothing that follows, so the documents of a row can continue one copy of
them. The result is exact, and so are gradients: what flows back from each continuation is added up. (The
radix tree of SGLang's RadixAttention, Zheng et al., 2023, arXiv:2312.07104, does so for inference.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

SHORTEST = 16
"""Fewer common tokens are not shared: attention in more and smaller pieces costs more than they do."""


@dataclass(frozen=True)
class Segment:
    """A run of neighbouring tokens of a row.

    Attributes:
        length: its tokens.
        before: the segments that it continues, by their place in the row, the beginning first.
    """

    length: int
    before: tuple[int, ...] = ()


@dataclass(frozen=True)
class Forest:
    """Documents as paths through segments.

    Attributes:
        segments: in the order in which they stand in the row.
        spans: the start and the end of each segment in a document that has it.
        paths: the segments of each document.
    """

    segments: tuple[Segment, ...]
    spans: tuple[tuple[int, int], ...]
    paths: tuple[tuple[int, ...], ...]

    @property
    def sources(self) -> list[tuple[int, int, int]]:
        """For each segment, a document that has it, and its start and end there: what a row is put together from."""
        owners = {segment: number for number, path in enumerate(self.paths) for segment in path}
        return [(owners[segment], start, end) for segment, (start, end) in enumerate(self.spans)]


def separate(documents: Sequence[Sequence[int]]) -> Forest:
    """Each document a segment of its own."""
    return Forest(
        tuple(Segment(len(document)) for document in documents),
        tuple((0, len(document)) for document in documents),
        tuple((number,) for number in range(len(documents))),
    )


def share(documents: Sequence[Sequence[int]], shortest: int = SHORTEST) -> Forest:
    """Documents that begin with the same `shortest` tokens or more share a segment, again and again."""
    segments: list[Segment] = []
    spans: list[tuple[int, int]] = []
    paths: list[tuple[int, ...]] = [()] * len(documents)

    def add(members: Sequence[int], start: int, end: int, before: tuple[int, ...]) -> tuple[int, ...]:
        path = (*before, len(segments))
        segments.append(Segment(end - start, before))
        spans.append((start, end))
        for member in members:
            paths[member] = path
        return path

    def grow(members: Sequence[int], start: int, before: tuple[int, ...]) -> None:
        alike: dict[tuple[int, ...], list[int]] = {}
        for member in members:
            alike.setdefault(tuple(documents[member][start : start + shortest]), []).append(member)
        for beginning, group in alike.items():
            if len(group) > 1 and len(beginning) == shortest:
                end = start + shortest + _common([list(documents[member][start + shortest :]) for member in group])
                grow(group, end, add(group, start, end, before))
                continue
            for member in group:
                if start < len(documents[member]):
                    add([member], start, len(documents[member]), before)

    grow(range(len(documents)), 0, ())
    return Forest(tuple(segments), tuple(spans), tuple(paths))


def _common(documents: Sequence[list[int]]) -> int:
    """How many tokens all of the documents begin with."""
    # The least and the greatest in the order of words differ as early as any two do.
    least, greatest = min(documents), max(documents)
    pairs = enumerate(zip(least, greatest, strict=False))
    return next((number for number, (a, b) in pairs if a != b), min(len(least), len(greatest)))


def fill_shared_rows(documents: Sequence[Sequence[int]], limit: int, shortest: int = SHORTEST) -> list[list[int]]:
    """Indices of documents, row by row, each at most `limit` tokens, of which shared ones count once.

    Documents that begin alike are neighbours. The largest row comes first, so that running out of memory
    shows at once; a document longer than `limit` has a row of its own.
    """
    rows: list[tuple[int, list[int]]] = []
    for number in sorted(range(len(documents)), key=lambda number: (tuple(documents[number]), number)):
        if rows:
            members = [*rows[-1][1], number]
            size = _size([documents[member] for member in members], shortest)
            if size <= limit:
                rows[-1] = (size, members)
                continue
        rows.append((len(documents[number]), [number]))
    return [members for _, members in sorted(rows, key=lambda row: (-row[0], row[1]))]


def _size(documents: Sequence[Sequence[int]], shortest: int) -> int:
    return sum(segment.length for segment in share(documents, shortest).segments)
