"""What this machine does in a second: matrix products in float32, and reading memory."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

_SECONDS = 0.5
_PRODUCT = (512, 768, 2048)
"""Rows, depth and columns: those of a layer of a small model on a batch."""

_READ = (4096, 8192)
"""A matrix of 128 MB, more than caches hold, times a vector: what generating a token does."""


@dataclass(frozen=True)
class Speed:
    """The best of several measurements, each of about half a second in all.

    Attributes:
        operations: floating-point operations a second, of matrix products in float32.
        bandwidth: bytes a second, read once from memory.
    """

    operations: float
    bandwidth: float


def measure_speed() -> Speed:
    """Measure this machine, with numpy's matrix products and the threads that they are given."""
    rows, depth, columns = _PRODUCT
    left, right = np.ones((rows, depth), np.float32), np.ones((depth, columns), np.float32)
    matrix, vector = np.ones(_READ, np.float32), np.ones(_READ[1], np.float32)
    product = _best(lambda: left @ right)
    read = _best(lambda: matrix @ vector)
    return Speed(2 * rows * depth * columns / product, matrix.nbytes / read)


def _best(work: Callable[[], object]) -> float:
    """The least time that the work took, in seconds; the first time warms up."""
    work()
    times: list[float] = []
    started = time.perf_counter()
    while not times or time.perf_counter() - started < _SECONDS:
        begun = time.perf_counter()
        work()
        times.append(time.perf_counter() - begun)
    return min(times)
