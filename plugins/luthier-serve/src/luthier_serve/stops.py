"""Stop strings in a text that comes bit by bit: what may be told of it already, and where it ends."""

from __future__ import annotations

from collections.abc import Sequence


class StopText:
    """Holds back what may be the beginning of a stop string.

    Args:
        stops: none of them empty.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = stops
        self._held = ""

    def add(self, text: str) -> tuple[str, bool]:
        """What can be told after some more text, and whether a stop string has ended it."""
        self._held += text
        places = [place for place in map(self._held.find, self._stops) if place >= 0]
        if places:
            told, self._held = self._held[: min(places)], ""
            return told, True
        keep = self._beginning()
        told, self._held = self._held[: len(self._held) - keep], self._held[len(self._held) - keep :]
        return told, False

    def rest(self) -> str:
        """What was held back, once no more text comes."""
        told, self._held = self._held, ""
        return told

    def _beginning(self) -> int:
        """How many of the last characters begin a stop string."""
        longest = max(map(len, self._stops), default=1) - 1
        for length in range(min(longest, len(self._held)), 0, -1):
            if any(stop.startswith(self._held[-length:]) for stop in self._stops):
                return length
        return 0
