"""The names, shapes and types of a model directory's tensors, from the headers of its safetensors files."""

from __future__ import annotations

import json
import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from luthier import InputError

_BITS = {"F64": 64, "I64": 64, "U64": 64, "F32": 32, "I32": 32, "U32": 32, "BF16": 16, "F16": 16, "I16": 16, "U16": 16}


@dataclass(frozen=True)
class Tensor:
    """A tensor as its file describes it.

    Attributes:
        bits: of one element.
    """

    name: str
    shape: tuple[int, ...]
    bits: int

    @property
    def size(self) -> int:
        """How many elements it has."""
        return math.prod(self.shape)


def read_tensors(directory: Path) -> list[Tensor]:
    """All weights of a model directory, by name; a few kilobytes are read.

    What else lies there as safetensors, an adapter or integers for an export, are the same weights once more.

    Raises:
        InputError: if there are no safetensors, or a header is damaged.
    """
    found: dict[str, Tensor] = {}
    for path in sorted(directory.glob("model*.safetensors")):
        for name, record in _header(path).items():
            if name != "__metadata__":
                found[name] = Tensor(name, tuple(record["shape"]), _BITS.get(record["dtype"], 8))
    if not found:
        raise InputError(
            f"{directory} has no weights as safetensors",
            "Name a model directory; an exported one is shown before its export: name the step that was exported.",
        )
    return [found[name] for name in sorted(found)]


def read_config(directory: Path) -> dict[str, Any]:
    """The model's configuration.

    Raises:
        InputError: if there is none.
    """
    path = directory / "config.json"
    try:
        config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {error}", "Name the directory of a model.") from error
    return config


def _header(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > path.stat().st_size:
                raise ValueError("its header is longer than the file")
            header: dict[str, Any] = json.loads(file.read(length))
    except (OSError, ValueError, struct.error) as error:
        raise InputError(
            f"{path} is damaged or no safetensors file: {error}", "Fetch it again from where the model came."
        ) from error
    return header
