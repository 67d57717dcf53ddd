"""Group commit: what several threads want is written at once, and each hears what came of its own."""

from __future__ import annotations

import concurrent.futures
import threading
import time
from collections.abc import Sequence

import pytest

from luthier_feedback.grouping import Grouped


class Slow:
    """Writes numbers, one batch at a time, and begins once it is let."""

    def __init__(self) -> None:
        self.let = threading.Event()
        self.begun = threading.Event()
        self.batches: list[list[int]] = []

    def __call__(self, numbers: Sequence[int]) -> list[int]:
        self.begun.set()
        assert self.let.wait(10)
        self.batches.append(list(numbers))
        if 13 in numbers:
            raise ValueError("no thirteen")
        return [number * 2 for number in numbers]


def lined_up(grouped: Grouped[int, int], count: int) -> None:
    """Wait until so many stand in line."""
    until = time.monotonic() + 10
    while len(grouped._line) < count and time.monotonic() < until:
        time.sleep(0.001)
    assert len(grouped._line) == count


@pytest.fixture
def slow() -> Slow:
    return Slow()


def test_those_who_wait_are_written_together(slow):
    grouped: Grouped[int, int] = Grouped(slow, TimeoutError, 10)
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        first = pool.submit(grouped, 1)
        assert slow.begun.wait(10)
        others = [pool.submit(grouped, number) for number in range(2, 9)]
        lined_up(grouped, 7)
        slow.let.set()
        assert [each.result() for each in (first, *others)] == [2, 4, 6, 8, 10, 12, 14, 16]
    assert [sorted(batch) for batch in slow.batches] == [[1], [2, 3, 4, 5, 6, 7, 8]]


def test_an_error_reaches_all_that_it_is_of_and_nobody_else(slow):
    grouped: Grouped[int, int] = Grouped(slow, TimeoutError, 10)
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        first = pool.submit(grouped, 1)
        assert slow.begun.wait(10)
        others = [pool.submit(grouped, number) for number in (13, 14)]
        lined_up(grouped, 2)
        slow.let.set()
        assert first.result() == 2
        for each in others:
            with pytest.raises(ValueError, match="no thirteen"):
                each.result()
        assert grouped(3) == 6


def test_whose_turn_does_not_come_is_told_and_not_written_later(slow):
    grouped: Grouped[int, int] = Grouped(slow, lambda: TimeoutError("late"), 0.05)
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        first = pool.submit(grouped, 1)
        assert slow.begun.wait(10)
        with pytest.raises(TimeoutError, match="late"):
            grouped(2)
        slow.let.set()
        assert first.result() == 2
    assert grouped(3) == 6
    assert slow.batches == [[1], [3]]
