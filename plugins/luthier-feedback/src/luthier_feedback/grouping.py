"""Writes of several threads in one transaction, so that one flush of the disk acknowledges all of them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

Given = TypeVar("Given")
Outcome = TypeVar("Outcome")


class _Waiting(Generic[Given, Outcome]):
    """What one thread wants written, and what came of it."""

    def __init__(self, given: Given) -> None:
        self.given = given
        self.outcome: Outcome | None = None
        self.error: BaseException | None = None
        self.done = False


class Grouped(Generic[Given, Outcome]):
    """Group commit: while one thread writes, others line up; the next one writes what all of them want.

    Args:
        write: writes several at once, all or none, and gives what came of each.
        late: makes the error of a thread whose turn did not come in time.
        timeout: seconds that a thread waits for its turn.
    """

    def __init__(
        self,
        write: Callable[[Sequence[Given]], Sequence[Outcome]],
        late: Callable[[], Exception],
        timeout: float,
    ) -> None:
        self._write = write
        self._late = late
        self._timeout = timeout
        self._changed = threading.Condition()
        self._line: list[_Waiting[Given, Outcome]] = []
        self._busy = False

    def __call__(self, given: Given) -> Outcome:
        """Write it, alone or with others'; gives what came of it, or raises what the write of all raised."""
        mine: _Waiting[Given, Outcome] = _Waiting(given)
        line = self._line_up(mine)
        if line:
            self._write_all(line)
        if mine.error is not None:
            raise mine.error
        assert mine.outcome is not None
        return mine.outcome

    def _line_up(self, mine: _Waiting[Given, Outcome]) -> list[_Waiting[Given, Outcome]]:
        """Wait until another thread has written it, or it is this one's turn: then the line that it is to write."""
        until = time.monotonic() + self._timeout
        with self._changed:
            self._line.append(mine)
            while self._busy and not mine.done:
                if self._changed.wait(max(0.0, until - time.monotonic())):
                    continue
                if mine in self._line:
                    self._line.remove(mine)
                    raise self._late()
                # Somebody is writing it just now, and will not be long: the database's own time-out is running.
                until = time.monotonic() + self._timeout
            if mine.done:
                return []
            line, self._line = self._line, []
            self._busy = True
            return line

    def _write_all(self, line: Sequence[_Waiting[Given, Outcome]]) -> None:
        try:
            for each, outcome in zip(line, self._write([each.given for each in line]), strict=True):
                each.outcome = outcome
        except BaseException as error:
            for each in line:
                each.error = error
            if not isinstance(error, Exception):
                raise
        finally:
            with self._changed:
                self._busy = False
                for each in line:
                    each.done = True
                self._changed.notify_all()
