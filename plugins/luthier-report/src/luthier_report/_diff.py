"""What a component changed in a text, as runs of kept, removed and added words."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Literal

from luthier_report._values import displayable

CUT = "…"
_TOKEN = re.compile(r"\w+|\s|[^\w\s]")

Change = Literal["same", "removed", "added"]


@dataclass(frozen=True)
class Piece:
    """A stretch of text and what became of it. Texts are made displayable."""

    change: Change
    text: str


def differences(before: str, after: str) -> list[Piece]:
    """The two texts as one: joining the same and removed pieces gives `before`, the same and added `after`.

    White space that was removed or added is drawn (`␣`, `⏎`, `⇥`), so that the change can be seen.
    """
    old, new = _TOKEN.findall(before), _TOKEN.findall(after)
    matcher = SequenceMatcher(None, old, new, autojunk=False)
    pieces: list[Piece] = []
    for operation, start, end, start_new, end_new in matcher.get_opcodes():
        if operation == "equal":
            pieces.append(Piece("same", displayable("".join(old[start:end]))))
        else:
            pieces += _piece("removed", old[start:end])
            pieces += _piece("added", new[start_new:end_new])
    return pieces


def differences_of_cut(before: str, after: str) -> list[Piece]:
    """The differences of two texts of which an end was cut off and replaced by an ellipsis.

    They were cut at different places of one text, so what follows the last stretch that they share is
    left out. Texts that do not differ before that are compared as they are.
    """
    pieces = differences(before.removesuffix(CUT), after.removesuffix(CUT))
    last = max((index for index, piece in enumerate(pieces) if piece.change == "same"), default=-1)
    kept = pieces[: last + 1]
    if all(piece.change == "same" for piece in kept):
        return differences(before, after)
    return [*kept, Piece("same", CUT)]


def _piece(change: Change, tokens: list[str]) -> Iterator[Piece]:
    text = displayable("".join(tokens))
    if text:
        yield Piece(change, _drawn(text) if text.isspace() else text)


def _drawn(space: str) -> str:
    return space.replace(" ", "␣").replace("\t", "⇥").replace("\n", "⏎\n")
