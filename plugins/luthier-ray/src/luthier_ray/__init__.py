"""The executor `ray`: the processes of a step as the workers of a Ray cluster.

Importing this module loads no heavy library; the executor imports its implementation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any

from annotated_types import Ge, Gt, MinLen

from luthier import hookimpl

if TYPE_CHECKING:
    from luthier import Job


def ray(
    job: Job,
    *,
    address: Annotated[str, MinLen(1)] = "auto",
    cpus_per_process: Annotated[float, Gt(0)] = 1.0,
    gpus_per_process: Annotated[float, Ge(0)] | None = None,
) -> Iterator[Mapping[str, Any]]:
    """Run the processes of a step on a Ray cluster, each as a worker of a TorchTrainer.

    The store must be on a file system that all the machines share, under the same path, and the same versions of
    Luthier and its plugins must be installed on them.

    Args:
        address: of the cluster (`ray://` is not supported); `auto` for the one that RAY_ADDRESS names, or that this
            machine belongs to; `local` to start one on this machine, which ends with the step.
        cpus_per_process: what each process has reserved, and its number of threads.
        gpus_per_process: what each process has reserved; if not given, one where the device is `cuda`, else none.
    """
    from luthier_ray.cluster import run
    from luthier_ray.resources import Resources

    gpus = float(job.device.startswith("cuda")) if gpus_per_process is None else gpus_per_process
    yield from run(job, address, Resources(cpus_per_process, gpus))


@hookimpl
def luthier_executors() -> list[Callable[..., Any]]:
    """Give the executor."""
    return [ray]
