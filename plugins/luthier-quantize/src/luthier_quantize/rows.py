"""Matrices in 8 bits, a scale for each row, and how far their integers may go."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

LARGEST = 127
"""Of an integer that nothing is multiplied with."""

SAFE = 64
"""Of an integer that is multiplied with one of 0 to 255: on x86 processors without VNNI (AVX2, and AVX-512 alone) two
such products are added in 16 bits, which saturate without an error: 2 x 255 x 64 = 32,640 is the most that fits.
onnxruntime's tools keep to it with `reduce_range`."""


def symmetric_rows(matrix: NDArray[np.float32], largest: int) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Round a matrix to integers from -`largest` to `largest`.

    Args:
        matrix: (rows, columns).
        largest: of an integer.

    Returns:
        The integers, and the scale of each row, (rows,).
    """
    scales = np.abs(matrix).max(axis=1) / np.float32(largest)
    scales = np.where(scales > 0, scales, np.float32(1)).astype(np.float32)
    return np.rint(matrix / scales[:, None]).astype(np.int8), scales
