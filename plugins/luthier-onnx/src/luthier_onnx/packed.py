"""Matrices in integers as ONNX Runtime's MatMulNBits and GatherBlockQuantized read them, and their file beside a model.

A quantizer of models writes `packed_weights.safetensors` into the model's directory, beside the weights in floating
point that the integers stand for; the exporter `genai` puts exactly these integers into its graph. What changes the
weights (a tuner) writes a directory without the file, and so gives an ordinary model again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from luthier import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

PACKED_FILE = "packed_weights.safetensors"
BITS = (4, 8)
BLOCK_SIZES = (16, 32, 64, 128, 256)
_PARTS = ("blocks", "scales", "zero_points")


@dataclass(frozen=True)
class PackedMatrix:
    """A matrix of float32 in integers: in each block of a row the value of `q` is `scale * (q - zero_point)`.

    Attributes:
        integers: uint8, (rows, columns), each below 2^bits.
        scales: float32, (rows, blocks); the last block of a row may have fewer columns.
        zero_points: uint8, (rows, blocks), each below 2^bits.
        bits: of an integer, 4 or 8.
        block_size: columns of a block.
    """

    integers: NDArray[np.uint8]
    scales: NDArray[np.float32]
    zero_points: NDArray[np.uint8]
    bits: int
    block_size: int

    @property
    def values(self) -> NDArray[np.float32]:
        """The matrix that it stands for, float32, (rows, columns)."""
        steps = self.integers.astype(np.float32) - self._by_column(self.zero_points)
        found: NDArray[np.float32] = self._by_column(self.scales) * steps
        return found

    @property
    def is_symmetric(self) -> bool:
        """Whether every zero point is the middle of the range, which operators take where none are given."""
        return bool((self.zero_points == 2 ** (self.bits - 1)).all())

    @property
    def blocks(self) -> NDArray[np.uint8]:
        """The integers as MatMulNBits has them, (rows, blocks, bytes of a block), the last block filled up."""
        missing = -self.integers.shape[1] % self.block_size
        padded = np.pad(self.integers, ((0, 0), (0, missing)))
        rows, count = self.scales.shape
        return _in_bytes(padded, self.bits).reshape(rows, count, self.block_size * self.bits // 8)

    @property
    def packed_zero_points(self) -> NDArray[np.uint8]:
        """The zero points as MatMulNBits has them, (rows, bytes of a row)."""
        return _in_bytes(self.zero_points, self.bits)

    @property
    def size(self) -> int:
        """Bytes in a graph."""
        zero_points = 0 if self.is_symmetric else self.packed_zero_points.nbytes
        return self.scales.size * self.block_size * self.bits // 8 + self.scales.nbytes + zero_points

    def _by_column(self, of_blocks: NDArray[Any]) -> NDArray[Any]:
        return np.repeat(of_blocks, self.block_size, axis=1)[:, : self.integers.shape[1]]

    def below(self, other: PackedMatrix) -> PackedMatrix:
        """The same matrix with the rows of `other`, of the same bits and blocks, below its own."""
        return PackedMatrix(
            np.concatenate([self.integers, other.integers]),
            np.concatenate([self.scales, other.scales]),
            np.concatenate([self.zero_points, other.zero_points]),
            self.bits,
            self.block_size,
        )


def write_packed(directory: Path, matrices: Mapping[str, PackedMatrix]) -> None:
    """Write the file beside the model's weights; names are those of the weights."""
    tensors: dict[str, NDArray[Any]] = {}
    described: dict[str, dict[str, int]] = {}
    for name, matrix in matrices.items():
        parts = (matrix.blocks, matrix.scales, matrix.zero_points)
        tensors |= {f"{name}/{part}": np.ascontiguousarray(value) for part, value in zip(_PARTS, parts, strict=True)}
        described[name] = {
            "bits": matrix.bits,
            "block_size": matrix.block_size,
            "columns": matrix.integers.shape[1],
        }
    save_file(tensors, directory / PACKED_FILE, metadata={"matrices": json.dumps(described, sort_keys=True)})


def read_packed(directory: Path) -> dict[str, PackedMatrix]:
    """The matrices that were quantized, by the names of their weights; empty for a model without.

    Raises:
        InputError: if the file is damaged, or not of this form.
    """
    path = directory / PACKED_FILE
    if not path.is_file():
        return {}
    try:
        with safe_open(path, framework="numpy") as file:
            described = json.loads((file.metadata() or {})["matrices"])
            return {name: _read_matrix(file, name, **what) for name, what in described.items()}
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{path} cannot be read as quantized weights: {error}",
            "Quantize the model again; or delete the file, to export the weights as they are in floating point.",
        ) from error


def _read_matrix(file: safe_open, name: str, *, bits: int, block_size: int, columns: int) -> PackedMatrix:
    blocks, scales, zero_points = (file.get_tensor(f"{name}/{part}") for part in _PARTS)  # type: ignore[no-untyped-call]
    if bits not in BITS or block_size not in BLOCK_SIZES:
        raise ValueError(f"{name} has {bits} bits in blocks of {block_size}")
    integers = _out_of_bytes(blocks.reshape(len(blocks), -1), bits)[:, :columns]
    if integers.shape[1] != columns or scales.shape != (len(blocks), -(-columns // block_size)):
        raise ValueError(f"the parts of {name} do not fit together")
    return PackedMatrix(integers, scales, zero_points, bits, block_size)


def _in_bytes(rows: NDArray[np.uint8], bits: int) -> NDArray[np.uint8]:
    """Integers side by side in bytes, the first in the lowest bits; a row's last byte is filled up with zeros."""
    if bits == 8:
        return rows
    even = np.pad(rows, ((0, 0), (0, rows.shape[1] % 2)))
    packed: NDArray[np.uint8] = even[:, ::2] | np.left_shift(even[:, 1::2], 4, dtype=np.uint8)
    return packed


def _out_of_bytes(rows: NDArray[np.uint8], bits: int) -> NDArray[np.uint8]:
    if bits == 8:
        return rows
    return np.stack([rows & 15, rows >> 4], axis=-1).reshape(len(rows), -1)
