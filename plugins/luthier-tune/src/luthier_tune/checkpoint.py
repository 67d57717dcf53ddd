"""Checkpoints inside a step: parameters, optimizer, position and history, in one safetensors file.

Nothing else is needed to go on exactly: the order of the data and all randomness follow from the
recipe's seed and the number of the step.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from luthier import LuthierError
from luthier.errors import is_full_disk
from luthier_tune.distributed import part_like, whole

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Parameter
    from torch.optim import Optimizer

    from luthier_tune.options import Training

NAME = "training.safetensors"
_VERSION = 2
_MOMENTS = ("exp_avg", "exp_avg_sq")
_TORCH_WRITER = "inline_container.cc"
"""PyTorch's own format says only where it found that less was written than it wanted."""

_log = logging.getLogger("luthier.component.tune")


@dataclass
class Progress:
    """How far training is.

    Attributes:
        step: optimizer steps done.
        total: all steps; None while the end of a budget in minutes is not settled yet.
        seconds: spent so far, in all processes.
        before: those of them that were spent before a first step, measuring and reading.
        curve: a record for each step: loss, learning rate, seconds, tokens.
        validation: a record for each measurement of the validation loss.
    """

    step: int = 0
    total: int | None = None
    seconds: float = 0.0
    before: float = 0.0
    curve: list[dict[str, float]] = field(default_factory=list)
    validation: list[dict[str, float]] = field(default_factory=list)

    @property
    def best(self) -> dict[str, float] | None:
        """The first of the lowest validation losses that were measured in training, not before it."""
        trained = [record for record in self.validation if record["step"] > 0]
        return min(trained, key=lambda record: record["loss"]) if trained else None

    @property
    def since_best(self) -> int:
        """The measurements after the best one."""
        best = self.best
        return sum(record["step"] > best["step"] for record in self.validation) if best else 0


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write a safetensors file in place of the last one; a kill at any moment leaves one of the two whole.

    Raises:
        LuthierError: if the disk is full; the last file is still there.
    """
    temporary = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        size = sum(tensor.nbytes for tensor in tensors.values())
        with explained_full_disk(f"a checkpoint of {size / 1e6:.0f} MB", path):
            save_file(dict(tensors), temporary, dict(metadata))
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            os.replace(temporary, path)
            _sync_directory(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def explained_full_disk(what: str, path: Path) -> Iterator[None]:
    """Turn a full disk into an error that says how to go on.

    Args:
        what: what is written, in words.
        path: where.

    Raises:
        LuthierError: if the disk is full.
    """
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        if is_full_disk(error) or _TORCH_WRITER in str(error):
            raise LuthierError(
                f"no space left for {what} ({path})",
                "Free space (`luthier store du`, `luthier store gc`) and run again: training goes on from the last "
                "checkpoint, which is kept.",
            ) from error
        raise


def _sync_directory(directory: Path) -> None:
    """Flush the names in a directory, where the platform can: a checkpoint must not outlive the best weights."""
    if os.name != "posix":
        return
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def check_space(directory: Path, parameters: Mapping[str, Parameter], *, best: bool) -> None:
    """See that a checkpoint has a place, before the work.

    Args:
        best: whether the best weights are kept beside it.

    Raises:
        LuthierError: if the disk has less space than that.
    """
    size = (1 + len(_MOMENTS) + best) * sum(parameter.nbytes for parameter in parameters.values())
    free = shutil.disk_usage(directory).free
    if free < size:
        raise LuthierError(
            f"a checkpoint takes {size / 1e6:.0f} MB, and the disk of {directory} has {free / 1e6:.0f} MB left",
            "Free space (`luthier store du`, `luthier store gc`) and run again.",
        )


def gathered(tensors: Mapping[str, Tensor], *, keep: bool) -> dict[str, Tensor]:
    """Tensors as they are written, whole. Of those that are cut each process gives its part, whether it keeps any."""
    found = {}
    for name, tensor in tensors.items():
        value = whole(tensor)
        if keep:
            found[name] = value.cpu().contiguous()
    return found


def save_checkpoint(
    directory: Path,
    parameters: Mapping[str, Parameter],
    optimizer: Optimizer,
    progress: Progress,
    configuration: Mapping[str, Any],
    *,
    leads: bool = True,
) -> None:
    """Write a checkpoint in place of the last one. All processes call it.

    Args:
        leads: whether this one writes it.
        configuration: what the training was made with, as JSON: a checkpoint of another one is not used.

    Raises:
        LuthierError: if the disk is full.
    """
    tensors: dict[str, Tensor] = {f"parameter.{name}": value for name, value in parameters.items()}
    for name, parameter in parameters.items():
        for moment in _MOMENTS:
            if moment in optimizer.state[parameter]:
                tensors[f"{moment}.{name}"] = optimizer.state[parameter][moment]
    tensors = gathered(tensors, keep=leads)
    if not leads:
        return
    metadata = {
        "version": str(_VERSION),
        "progress": json.dumps(asdict(progress)),
        "configuration": json.dumps(configuration),
    }
    write_tensors(directory / NAME, tensors, metadata)


def load_checkpoint(
    directory: Path, parameters: Mapping[str, Parameter], optimizer: Optimizer, configuration: Mapping[str, Any]
) -> Progress | None:
    """Restore parameters and optimizer from the checkpoint; None, with a warning, if it cannot be used."""
    for leftover in directory.glob(f"{NAME}.*"):
        leftover.unlink(missing_ok=True)  # another process of the training may do the same
    path = directory / NAME
    if not path.is_file():
        return None
    try:
        with safe_open(str(path), framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    except (SafetensorError, OSError) as error:
        # A disk that lost the end of the file: the work is done again.
        warn_of_unused(path, f"it cannot be read: {error}")
        return None
    unfit = _misfit(metadata, tensors, parameters, configuration)
    if unfit:
        warn_of_unused(path, unfit)
        return None
    progress = Progress(**json.loads(metadata["progress"]))
    for name, parameter in parameters.items():
        with torch.no_grad():
            parameter.copy_(part_like(tensors[f"parameter.{name}"], parameter))
        state: dict[str, Any] = {"step": torch.tensor(float(progress.step), device=parameter.device)}
        state |= {moment: part_like(tensors[f"{moment}.{name}"], parameter) for moment in _MOMENTS}
        optimizer.state[parameter] = state
    return progress


def relevant(settings: Training) -> dict[str, Any]:
    """The settings that the weights depend on: a checkpoint of others is not used."""
    return {name: value for name, value in asdict(settings).items() if name != "checkpoint_minutes"}


def difference(made_with: Mapping[str, Any], configuration: Mapping[str, Any]) -> str:
    """How a checkpoint's configuration, read from JSON, differs from the one now; empty if it does not."""
    wanted = json.loads(json.dumps(configuration))
    changed = [name for name in sorted({*made_with, *wanted}) if made_with.get(name) != wanted.get(name)]
    told = ", ".join(f"{name} {made_with.get(name)!r} (now {wanted.get(name)!r})" for name in changed)
    return f"it was made with {told}" if told else ""


def warn_of_unused(path: Path, reason: str) -> None:
    """Say why training begins anew though there is a checkpoint."""
    _log.warning("the checkpoint %s is not used, and training begins anew: %s", path, reason)


def _misfit(
    metadata: Mapping[str, str],
    tensors: Mapping[str, Tensor],
    parameters: Mapping[str, Parameter],
    configuration: Mapping[str, Any],
) -> str:
    """Why a checkpoint is not one of this training; empty if it is."""
    if metadata.get("version") != str(_VERSION):
        return f"it is of version {metadata.get('version')}, not {_VERSION}"
    changed = difference(json.loads(metadata["configuration"]), configuration)
    if changed:
        return changed
    found = {name.removeprefix("parameter."): t.shape for name, t in tensors.items() if name.startswith("parameter.")}
    strange = sorted(
        name for name in {*found, *parameters} if name not in parameters or found.get(name) != parameters[name].shape
    )
    return f"it does not have the parameters that are trained: {', '.join(strange[:3])}" if strange else ""
