"""Data parallelism: what the processes of a training tell each other, so that they compute as one would.

Each process has the whole model. A step's examples are dealt out; each process computes the gradient of its part
of the loss, which is divided by the terms of all, and the sum of the gradients is what one process would have
computed, but for the order of additions. So the weights, the losses and every decision are the same in all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import distributed
from torch.distributed.tensor import DTensor, distribute_tensor

from luthier import InputError

if TYPE_CHECKING:
    from torch import Tensor

Item = TypeVar("Item")

_BUCKET = 8_000_000
"""Numbers that are added up at once: 32 MB of float32, beside the gradients."""


class Finished(Exception):
    """What a process but the first raises when the training is done: what follows is the first one's work."""


@dataclass(frozen=True)
class Group:
    """The processes of a training; one, if nothing else was started.

    Attributes:
        rank: the number of this process, from 0.
        size: how many there are.
    """

    rank: int = 0
    size: int = 1

    @classmethod
    def current(cls) -> Group:
        """The process group that this process joined: ours, torchrun's, accelerate's or Ray's."""
        if distributed.is_available() and distributed.is_initialized():
            return cls(distributed.get_rank(), distributed.get_world_size())
        return cls()

    @property
    def leads(self) -> bool:
        """Whether this process is the one that writes."""
        return self.rank == 0

    def share(self, items: Sequence[Item]) -> Sequence[Item]:
        """The part of the items that is this process's."""
        return items[self.rank :: self.size]

    def most(self, value: int, device: torch.device) -> int:
        """The largest of the numbers of all processes."""
        if self.size == 1:
            return value
        largest = torch.tensor(value, device=device)
        distributed.all_reduce(largest, distributed.ReduceOp.MAX)
        return int(largest)

    def add_up(self, tensors: Iterable[Tensor]) -> None:
        """Replace each tensor by its sum over the processes."""
        if self.size == 1:
            return
        for bucket in _buckets(tensors):
            flat = torch.cat([tensor.reshape(-1) for tensor in bucket])
            distributed.all_reduce(flat)
            parts = torch.split(flat, [tensor.numel() for tensor in bucket])
            for tensor, part in zip(bucket, parts, strict=True):
                tensor.copy_(part.view_as(tensor))

    def sums(self, values: Sequence[float], device: torch.device) -> list[float]:
        """The sums of numbers over the processes."""
        if self.size == 1:
            return list(values)
        together = torch.tensor(values, dtype=torch.float64, device=device)
        distributed.all_reduce(together)
        return [float(value) for value in together]

    def first_then_others(self, work: Callable[[], Item], device: torch.device) -> Item:
        """What `work` gives in each process; the others begin when the first has done it."""
        done = [work()] if self.leads else []
        self.sums([0.0], device)
        return done[0] if done else work()

    def first(self, value: float, device: torch.device) -> float:
        """The number that the first process has: for decisions by the clock, which each reads for itself."""
        return self.sums([value if self.leads else 0.0], device)[0]


def refuse_torchrun() -> None:
    """Refuse to train in processes that nobody joined.

    Raises:
        InputError: under torchrun and what is like it.
    """
    if distributed.is_torchelastic_launched() and not distributed.is_initialized():
        raise InputError("several processes were started, and this tuner trains in one", "Run it without torchrun.")


def whole(tensor: Tensor) -> Tensor:
    """A tensor without its gradient; if each process has a part of it, put together. Then all must call it."""
    value = tensor.detach()
    return value.full_tensor() if isinstance(value, DTensor) else value


def part_of(tensor: Tensor) -> Tensor:
    """What this process has of a tensor: all, unless it is cut."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def part_like(value: Tensor, other: Tensor) -> Tensor:
    """What this process keeps of a tensor that all have: a part, if it has a part of the other one."""
    value = value.to(other.device)
    if not isinstance(other, DTensor):
        return value
    return distribute_tensor(value, other.device_mesh, other.placements, src_data_rank=None)


def _buckets(tensors: Iterable[Tensor]) -> Iterator[list[Tensor]]:
    bucket: list[Tensor] = []
    for tensor in tensors:
        if bucket and sum(each.numel() for each in bucket) + tensor.numel() > _BUCKET:
            yield bucket
            bucket = []
        bucket.append(tensor)
    if bucket:
        yield bucket
