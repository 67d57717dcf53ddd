"""A step that is done by several processes at once: what an executor is given, and how its messages are heard."""

from __future__ import annotations

import contextlib
import logging
import socket
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from luthier.core_stages import DEFAULT_EXECUTOR
from luthier.errors import InputError, PluginError
from luthier.failures import as_error, failure
from luthier.plugins import Registry, load_plugins
from luthier.tasks import Tasks

JobMessage = Mapping[str, Any]
Send = Callable[[JobMessage], None]


@dataclass(frozen=True)
class Job:
    """A step's work, to be done by several processes at once. An executor is given it and has them call `do`.

    All that it holds is plain values: it can be sent to another machine as JSON or pickled. Every process reads the
    step's inputs, and the first writes its result, in the store: so the store must be reachable from all of them,
    under the same path.

    Attributes:
        processes: how many there are to be.
        device: where models run, as the user asked: `auto`, `cpu`, `cuda`, `mps`.
        request: what a worker was asked for.
        local_plugins: the files of plugins that are not installed, to be loaded in each process.
    """

    processes: int
    device: str
    request: Mapping[str, Any]
    local_plugins: tuple[str, ...] = ()

    def do(self, rank: int, send: Send) -> None:
        """Call the step's component in this process, which is one of those that the job is done by.

        Before, `RANK`, `WORLD_SIZE`, `LOCAL_RANK`, `MASTER_ADDR` and `MASTER_PORT` must stand in the process's
        environment, as torchrun sets them. Nothing is raised: an error of the component is a message too.

        Args:
            rank: of this process, from 0.
            send: takes the messages that the executor yields, JSON-like mappings; from any thread.
        """
        heard = send if rank == 0 else _ignore
        registry = load_plugins(local=[Path(path) for path in self.local_plugins])
        try:
            with tempfile.TemporaryDirectory(prefix="luthier-") as scratch, log_to(heard):
                Tasks(registry, heard).carry_out(self._part(rank, Path(scratch)))
        except (Exception, SystemExit) as error:
            send({**failure(error, registry.sources), "rank": rank})
        else:
            send({"type": "done", "rank": rank})

    def _part(self, rank: int, scratch: Path) -> dict[str, Any]:
        """The request of one process; what others than the first write goes nowhere."""
        inputs = [record["path"] for record in self.request["inputs"].values()]
        for path in [*inputs, self.request["checkpoint"]]:
            if not Path(path).exists():
                raise InputError(
                    f"{path} is not there on {socket.gethostname()}, where process {rank} of {self.processes} runs",
                    "The store must be on a file system that all the machines share, under the same path.",
                )
        own = {name: str(scratch / name) for name in ("output", "notes")} if rank else {}
        return {**self.request, **own, "rank": rank, "processes": self.processes}


def _ignore(message: JobMessage) -> None:
    """What other processes than the first tell is the same again."""


def spread(registry: Registry, emit: Send, local_plugins: Sequence[Path], request: Mapping[str, Any]) -> None:
    """Have a request done by the processes of the executor that it names, and pass on what they tell.

    Raises:
        LuthierError: the first error of one of them, or the executor's own.
    """
    chosen = request.get("executor") or {"name": DEFAULT_EXECUTOR, "config": {}}
    executor = registry.find("executor", chosen["name"])
    local = tuple(str(path.absolute()) for path in local_plugins)
    job = Job(request["config"]["processes"], request["device"], request, local)
    done: set[int] = set()
    with contextlib.closing(executor.function(job, **executor.arguments(chosen["config"]))) as messages:
        for message in messages:
            if message["type"] == "error":
                raise as_error(message)
            if message["type"] == "done":
                done.add(message["rank"])
            else:
                emit(message)
    if len(done) < job.processes:
        raise PluginError(
            f"{executor} ended with {len(done)} of {job.processes} processes done",
            "It yields what each of them sends.",
        )


@contextlib.contextmanager
def log_to(send: Send) -> Iterator[None]:
    """Send what components log."""
    log = logging.getLogger("luthier.component")
    handler = _Sending(send)
    before = log.level, log.propagate
    log.setLevel(logging.INFO)
    log.propagate = False
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.level, log.propagate = before


class _Sending(logging.Handler):
    def __init__(self, send: Send) -> None:
        super().__init__()
        self._send = send

    def emit(self, record: logging.LogRecord) -> None:
        self._send({"type": "log", "level": record.levelname.lower(), "message": record.getMessage()})
