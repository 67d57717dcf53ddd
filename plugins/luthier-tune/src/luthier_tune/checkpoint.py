"""Checkpoints inside a step: adapter, optimizer, position and history, in one safetensors file.

Nothing else is needed to go on exactly: the order of the data and all randomness follow from the
recipe's seed and the number of the step.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Parameter
    from torch.optim import Optimizer

NAME = "training.safetensors"
_VERSION = 1
_MOMENTS = ("exp_avg", "exp_avg_sq")


@dataclass
class Progress:
    """How far training is.

    Attributes:
        step: optimizer steps done.
        total: all steps; None while a budget in minutes is not measured yet.
        seconds: spent so far, in all processes.
        curve: a record for each step: loss, learning rate, seconds, tokens.
        validation: a record for each measurement of the validation loss.
    """

    step: int = 0
    total: int | None = None
    seconds: float = 0.0
    curve: list[dict[str, float]] = field(default_factory=list)
    validation: list[dict[str, float]] = field(default_factory=list)


def save_checkpoint(
    directory: Path, parameters: Mapping[str, Parameter], optimizer: Optimizer, progress: Progress
) -> None:
    """Write a checkpoint in place of the last one; a kill at any moment leaves one of the two whole."""
    tensors: dict[str, Tensor] = {}
    for name, parameter in parameters.items():
        tensors[f"parameter.{name}"] = parameter.detach().cpu().contiguous()
        for moment in _MOMENTS:
            if moment in optimizer.state[parameter]:
                tensors[f"{moment}.{name}"] = optimizer.state[parameter][moment].cpu().contiguous()
    temporary = directory / f"{NAME}.{os.getpid()}"
    save_file(tensors, temporary, {"version": str(_VERSION), "progress": json.dumps(asdict(progress))})
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    os.replace(temporary, directory / NAME)


def load_checkpoint(directory: Path, parameters: Mapping[str, Parameter], optimizer: Optimizer) -> Progress | None:
    """Restore parameters and optimizer from the checkpoint; None if there is none that can be used."""
    for leftover in directory.glob(f"{NAME}.*"):
        leftover.unlink()
    path = directory / NAME
    if not path.is_file():
        return None
    try:
        with safe_open(str(path), framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("version") != str(_VERSION):
                return None
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    except (SafetensorError, OSError):
        # A disk that lost the end of the file: the work is done again.
        return None
    if {f"parameter.{name}" for name in parameters} != {name for name in tensors if name.startswith("parameter.")}:
        return None
    progress = Progress(**json.loads(metadata["progress"]))
    for name, parameter in parameters.items():
        with torch.no_grad():
            parameter.copy_(tensors[f"parameter.{name}"])
        state: dict[str, Any] = {"step": torch.tensor(float(progress.step))}
        state |= {moment: tensors[f"{moment}.{name}"].to(parameter.device) for moment in _MOMENTS}
        optimizer.state[parameter] = state
    return progress
