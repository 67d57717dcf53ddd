"""Activations of examples on disk: written when an example is first seen, read ever after.

Two sparse files hold a row of numbers for each token of each example, one in float16 and one in float32; an
example is in one of them. A third file has an entry for each example, written last: which of the two, and a
checksum. What a kill or a loss of power left unfinished has no entry or fails its checksum, and is computed
again. So is what another process has begun to write, or a network's file system does not show yet: several may
use the same files.
"""

from __future__ import annotations

import shutil
import zlib
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from luthier import LuthierError
from luthier.errors import is_full_disk

if TYPE_CHECKING:
    import logging

    from torch import Tensor

Precision = Literal["float16", "float32"]

_ENTRY = np.dtype([("kind", "u1"), ("checksum", "<u4")])
_KINDS: dict[int, Any] = {1: np.dtype("<f2"), 2: np.dtype("<f4")}
_TORCH = {1: torch.float16, 2: torch.float32}


class ActivationCache:
    """The activations of numbered examples.

    Args:
        directory: where the files are; those of an earlier process are used.
        lengths: the tokens of each example.
        width: the numbers of each token.
        precision: what to keep; an example whose numbers are too large for float16 is kept in float32.
        log: told of the first of these.
    """

    def __init__(
        self, directory: Path, lengths: Sequence[int], width: int, precision: Precision, log: logging.Logger
    ) -> None:
        self._starts = [0, *accumulate(lengths)]
        self._width = width
        self._kind = 1 if precision == "float16" else 2
        self._directory = directory
        self._log = log
        self._maps: dict[int, Any] = {}
        directory.mkdir(parents=True, exist_ok=True)
        index = directory / "index"
        if not index.is_file() or index.stat().st_size != len(lengths) * _ENTRY.itemsize:
            index.write_bytes(bytes(len(lengths) * _ENTRY.itemsize))
        self._index = np.memmap(index, dtype=_ENTRY, mode="r+", shape=(len(lengths),))

    @property
    def stored(self) -> int:
        """How many examples there are."""
        return int(np.count_nonzero(self._index["kind"]))

    def require_space(self, examples: int) -> None:
        """See that as many more examples of mean length have a place.

        Raises:
            LuthierError: if the disk has less space than that.
        """
        per_example = self._starts[-1] / (len(self._starts) - 1) * self._width * _KINDS[self._kind].itemsize
        needed = int(per_example * max(0, examples - self.stored))
        free = shutil.disk_usage(self._directory).free
        if needed > free:
            raise _no_space(self._directory, f"take {needed / 1e9:.2f} GB, and {free / 1e9:.2f} GB are free")

    def get(self, number: int) -> Tensor | None:
        """The activations of an example, (tokens, width), as they are kept; None if there are none yet."""
        kind = int(self._index["kind"][number])
        if kind not in _KINDS:
            return None
        kept = np.array(self._map(kind)[self._starts[number] : self._starts[number + 1]])
        if zlib.crc32(kept.tobytes()) != int(self._index["checksum"][number]):
            return None
        return torch.from_numpy(kept)

    def put(self, number: int, activations: Tensor) -> Tensor:
        """Keep the activations of an example, (tokens, width), and give them as they are kept.

        Raises:
            LuthierError: if the disk is full.
        """
        kind = self._kind
        kept = activations.detach().to("cpu", _TORCH[kind])
        if not torch.isfinite(kept).all() and kind == 1:
            if not np.count_nonzero(self._index["kind"] == 2):
                self._log.warning("activations too large for float16 are kept in float32, which takes twice the space")
            kind = 2
            kept = activations.detach().to("cpu", _TORCH[kind])
        data = kept.numpy().astype(_KINDS[kind], copy=False).tobytes()
        self._write(kind, self._starts[number], data)
        # The kind comes last: without it there is no entry.
        self._index["checksum"][number] = zlib.crc32(data)
        self._index["kind"][number] = kind
        return kept

    def _path(self, kind: int) -> Path:
        return self._directory / ("float16" if kind == 1 else "float32")

    def _write(self, kind: int, start: int, data: bytes) -> None:
        """Write numbers at their place; not through the map, where a full disk would end the process."""
        path = self._path(kind)
        try:
            if not path.is_file():
                # Appending: another process that does the same may have written numbers since.
                with path.open("ab") as file:
                    file.truncate(self._starts[-1] * self._width * _KINDS[kind].itemsize)
            with path.open("r+b") as file:
                file.seek(start * self._width * _KINDS[kind].itemsize)
                file.write(data)
        except OSError as error:
            if not is_full_disk(error):
                raise
            raise _no_space(self._directory, "have filled the disk") from error

    def _map(self, kind: int) -> Any:
        if kind not in self._maps:
            shape = (self._starts[-1], self._width)
            self._maps[kind] = np.memmap(self._path(kind), dtype=_KINDS[kind], mode="r", shape=shape)
        return self._maps[kind]


def _no_space(directory: Path, what: str) -> LuthierError:
    # No `InputError`: what is free changes, and a search must not lose a candidate to that for good.
    return LuthierError(
        f"the kept activations of the frozen layers ({directory}) {what}",
        "Free space, lower `max_length`, train fewer examples, or say `activations: recompute`.",
    )
