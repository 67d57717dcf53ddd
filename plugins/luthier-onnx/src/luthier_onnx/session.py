"""One text through graphs that carry their states, by itself: what is written token by token."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from luthier_onnx.readers import Reader, Reading
    from luthier_onnx.settings import Settings


class GraphSession:
    """One text's way through a model's graphs; see `luthier_models.one_by_one.Session`.

    Args:
        reader: the graphs.
        settings: what may be written.
        paired: whether an encoder reads the prompt, whole, and the decoder begins with its start token.
    """

    def __init__(self, reader: Reader, settings: Settings, *, paired: bool) -> None:
        self._reader = reader
        self._settings = settings
        self._prompt: list[int] | None = [] if paired else None
        self._reading: Reading | None = None if paired else reader.begin([[]])
        self._logits: NDArray[np.float32] = np.zeros((0, reader.vocabulary), np.float32)
        self._written: list[int] | None = None

    def read(self, ids: NDArray[np.int32], wanted: int) -> None:
        """Read the next tokens."""
        if self._prompt is not None:
            self._prompt.extend(ids.tolist())
            if not wanted:
                return
            self._reading = self._reader.begin([self._prompt])
            ids, self._prompt = np.asarray([self._settings.start], np.int32), None
        assert self._reading is not None
        row = ids[None].astype(np.int64)
        self._logits = self._reading.read(row, np.ones_like(row))[0]
        if self._written is not None:
            self._written.extend(ids.tolist())
        elif wanted:
            self._written = []

    def logits(self) -> NDArray[np.float32]:
        """The logits after the newest token, for those that may follow it: (1, vocabulary)."""
        return self._settings.allowed(self._logits[-1:], [self._written or []])

    def write(self) -> int:
        """The most likely next token, which counts as read."""
        token = int(self.logits()[-1].argmax())
        self.read(np.asarray([token], np.int32), 1)
        return token

    def close(self) -> None:
        """Free the states."""
        self._reading = None
