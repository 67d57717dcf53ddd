"""Which bits each group of products gets: the best within a size, or the smallest within a loss.

The loss of a choice is the sum of the losses of its parts, as it is for errors that are small and independent. Of each
part's options only those on the lower convex hull of loss over size come into question. Going along the hulls, always
where a byte saves most, gives choices of which each is the best of its size (Lagrange's multiplier); a size between two
of them gets the smaller.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Generic, TypeVar

from luthier import InputError

Kind = TypeVar("Kind")


@dataclass(frozen=True)
class Candidate(Generic[Kind]):
    """One way to keep a part.

    Attributes:
        option: what it is.
        size: bytes.
        loss: what is predicted to be lost by it, in nats a token.
    """

    option: Kind
    size: int
    loss: float


Choice = Mapping[str, Candidate[Kind]]
"""A candidate for every part, by the part's name."""


def choices(parts: Mapping[str, Sequence[Candidate[Kind]]]) -> Iterator[Choice[Kind]]:
    """The choices from the smallest to that of the least loss, each one step of one part from the one before."""
    hulls = {name: lower_hull(candidates) for name, candidates in parts.items()}
    steps = [
        ((now.loss - then.loss) / (then.size - now.size), name, place + 1)
        for name, hull in hulls.items()
        for place, (now, then) in enumerate(pairwise(hull))
    ]
    chosen = {name: hull[0] for name, hull in hulls.items()}
    yield dict(chosen)
    # Along a hull a byte saves less and less, so that a part's steps are taken in their order.
    for _, name, place in sorted(steps, key=lambda step: (-step[0], step[1], step[2])):
        chosen[name] = hulls[name][place]
        yield dict(chosen)


def lower_hull(candidates: Iterable[Candidate[Kind]]) -> list[Candidate[Kind]]:
    """The candidates on the lower convex hull of loss over size, the smallest first."""
    hull: list[Candidate[Kind]] = []
    for each in sorted(candidates, key=lambda candidate: (candidate.size, candidate.loss)):
        if hull and each.loss >= hull[-1].loss:
            continue
        while len(hull) > 1 and _saving(hull[-2], hull[-1]) <= _saving(hull[-1], each):
            hull.pop()
        hull.append(each)
    return hull


def within_loss(parts: Mapping[str, Sequence[Candidate[Kind]]], most: float) -> Choice[Kind]:
    """The smallest choice that loses at most `most`; the one of the least loss where none does."""
    choice: Choice[Kind] = {}
    for choice in choices(parts):
        if loss_of(choice) <= most:
            break
    return choice


def within_size(parts: Mapping[str, Sequence[Candidate[Kind]]], most: int, *, fixed: int = 0) -> Choice[Kind]:
    """The choice of the least loss in at most `most` bytes, of which `fixed` are taken whatever is chosen.

    Raises:
        InputError: if even the smallest takes more.
    """
    best: Choice[Kind] | None = None
    for choice in choices(parts):
        if fixed + size_of(choice) > most:
            break
        best = choice
    if best is None:
        smallest = fixed + size_of(next(choices(parts)))
        raise InputError(
            f"the smallest choice takes {smallest / 1e6:.4g} MB, {fixed / 1e6:.4g} of them for what is no matrix; "
            f"`max_megabytes` allows {most / 1e6:.4g}",
            "Raise `max_megabytes`, or prune the model first.",
        )
    return best


def size_of(choice: Choice[Kind]) -> int:
    """The bytes of a choice."""
    return sum(each.size for each in choice.values())


def loss_of(choice: Choice[Kind]) -> float:
    """What is predicted to be lost by a choice, in nats a token."""
    return sum(each.loss for each in choice.values())


def _saving(now: Candidate[Kind], then: Candidate[Kind]) -> float:
    return (now.loss - then.loss) / max(1, then.size - now.size)
