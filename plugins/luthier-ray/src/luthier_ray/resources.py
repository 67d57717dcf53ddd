"""Whether a cluster has room for a job: Ray itself would wait for ever."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from luthier import InputError


@dataclass(frozen=True)
class Resources:
    """What each process has reserved."""

    cpus: float
    gpus: float

    def as_ray(self) -> dict[str, float]:
        """As Ray names them."""
        return {"CPU": self.cpus, "GPU": self.gpus} if self.gpus else {"CPU": self.cpus}

    def __str__(self) -> str:
        gpus = f" and {self.gpus:g} GPU" if self.gpus else ""
        return f"{self.cpus:g} CPU{gpus}"


def fitting(machine: Mapping[str, float], each: Resources) -> int:
    """How many processes fit on a machine."""
    return int(min(machine.get(name, 0.0) / amount for name, amount in each.as_ray().items()))


def check_room(
    nodes: Sequence[Mapping[str, Any]], available: Mapping[str, float], processes: int, each: Resources
) -> str:
    """See that a cluster has room for all processes at once; gives a warning where it has none now.

    Args:
        nodes: the machines, as `ray.nodes()` tells of them.
        available: what nobody has reserved now, in the whole cluster.
        processes: how many.
        each: what one of them needs.

    Raises:
        InputError: if it has none even if nobody else uses it.
    """
    machines = [node["Resources"] for node in nodes if node["Alive"]]
    room = sum(fitting(machine, each) for machine in machines)
    if room < processes:
        told = "; ".join(f"{machine.get('CPU', 0):g} CPUs and {machine.get('GPU', 0):g} GPUs" for machine in machines)
        raise InputError(
            f"{processes} processes of {each} each do not fit on the Ray cluster: it has room for {room} ({told})",
            "Lower `processes`, `cpus_per_process` or `gpus_per_process`, or add machines: Ray would wait for them.",
        )
    if fitting(available, each) < processes:
        return f"others use the Ray cluster: it has room for {processes} processes of {each} each once they are done"
    return ""
