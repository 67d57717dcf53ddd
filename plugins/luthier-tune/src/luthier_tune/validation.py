"""What validation tells: the losses, how often they are measured, and the weights that had the lowest."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, TypeVar

import torch
from safetensors import safe_open

from luthier_tune.checkpoint import gathered, write_tensors

if TYPE_CHECKING:
    from torch.nn import Parameter

    from luthier_tune.options import Training

# A forward pass takes about a third of what a forward and a backward pass take.
_FORWARD_SHARE = 1 / 3
_VALIDATION_SHARE = 0.1


class Measurement(Protocol):
    """What a validation gives: a dataclass whose fields are JSON."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    def summary(self) -> dict[str, float]:
        """What is noted of it: the `loss`, of which the lowest is best, and others."""


Measured = TypeVar("Measured", bound=Measurement)


@dataclass(frozen=True)
class Losses:
    """Validation losses: the mean loss of each example's terms, and how many those are."""

    means: list[float] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)

    @property
    def mean(self) -> float:
        """The mean over all terms."""
        return math.fsum(m * n for m, n in zip(self.means, self.sizes, strict=True)) / sum(self.sizes)

    def summary(self) -> dict[str, float]:
        """The mean."""
        return {"loss": self.mean}


def steps_between(settings: Training, *, train: int, valid: int) -> int | None:
    """The steps between measurements; None where only the first and the last are wanted.

    Args:
        train: the number of training examples.
        valid: the number of validation examples.
    """
    if not valid or settings.evaluate_every:
        return settings.evaluate_every if valid else None
    if settings.keep == "last" and settings.patience is None:
        return None
    # Within its first epoch a model cannot learn examples by heart. It follows from counts alone, not from a
    # clock or the total: a budget in minutes is repeated as one in steps.
    affordable = _FORWARD_SHARE * valid / (_VALIDATION_SHARE * settings.batch_size)
    return max(math.ceil(train / settings.batch_size), math.ceil(affordable))


class BestWeights(Generic[Measured]):
    """The weights of the lowest validation loss, kept beside the checkpoint.

    A file for each step that was the best: that of the last checkpoint stays until the next one is written, so
    that a kill loses neither.

    Args:
        directory: where.
        parameters: what is kept, by name.
        kind: the class of what was measured of them.
    """

    def __init__(self, directory: Path, parameters: Mapping[str, Parameter], kind: type[Measured]) -> None:
        self._directory = directory
        self._parameters = parameters
        self._kind = kind

    def path(self, step: float) -> Path:
        """Where the weights of a step are kept."""
        return self._directory / f"best-{int(step)}.safetensors"

    def save(self, step: float, measured: Measured, *, leads: bool) -> None:
        """Keep the weights as they are, and what was measured of them.

        All processes call it, and the one that `leads` writes.

        Raises:
            LuthierError: if the disk is full.
        """
        tensors = gathered(self._parameters, keep=leads)
        if leads:
            write_tensors(self.path(step), tensors, {"measured": json.dumps(asdict(measured))})

    def restore(self, step: float, parameters: Mapping[str, Parameter]) -> Measured:
        """Put the kept weights of a step into parameters; gives what was measured of them."""
        with safe_open(str(self.path(step)), framework="pt") as file, torch.no_grad():
            for name, parameter in parameters.items():
                parameter.copy_(file.get_tensor(name))
            return self._kind(**json.loads(file.metadata()["measured"]))

    def keep_only(self, steps: set[float]) -> None:
        """Remove the files of other steps."""
        kept = {self.path(step) for step in steps}
        for path in self._directory.glob("best-*.safetensors*"):
            if path not in kept:
                path.unlink()
