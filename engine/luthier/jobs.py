"""A step that is done by several processes at once: what an executor is given, and how its messages are heard."""

from __future__ import annotations

import contextlib
import logging
import socket
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from luthier.core_stages import DEFAULT_EXECUTOR
from luthier.errors import InputError, PluginError
from luthier.failures import as_error, failure
from luthier.plugins import Registry, load_plugins
from luthier.tasks import Tasks

Message = Mapping[str, Any]
Send = Callable[[Message], None]


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
        versions: of the distributions that do the work, where the job comes from.
    """

    processes: int
    device: str
    request: Mapping[str, Any]
    local_plugins: tuple[str, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)

    @property
    def checkpoint(self) -> Path:
        """The step's checkpoint, a directory that all processes see and that outlives them."""
        return Path(self.request["checkpoint"])

    def do(
        self,
        rank: int,
        send: Callable[[Mapping[str, Any]], None],
        join: Callable[[], object] | None = None,
    ) -> None:
        """Call the step's component in this process, which is one of those that the job is done by.

        Nothing is raised: an error of the component, or of `join`, is a message too.

        Args:
            rank: of this process, from 0.
            send: takes the messages that the executor yields, JSON-like mappings; from any thread.
            join: makes torch's process group, of all the processes; not needed where the executor did so before.
        """
        heard = send if rank == 0 else _ignore
        registry = load_plugins(local=[Path(path) for path in self.local_plugins])
        try:
            with tempfile.TemporaryDirectory(prefix="luthier-") as scratch, log_to(heard):
                part = self._part(rank, registry, Path(scratch))
                if join:
                    join()
                Tasks(registry, heard).carry_out(part)
        except (Exception, SystemExit) as error:
            send({**failure(error, registry.sources), "rank": rank})
        else:
            send({"type": "done", "rank": rank})

    def _part(self, rank: int, registry: Registry, scratch: Path) -> dict[str, Any]:
        """The request of one process; what others than the first write goes nowhere."""
        inputs = [record["path"] for record in self.request["inputs"].values()]
        for path in [*inputs, self.checkpoint]:
            if not Path(path).exists():
                raise InputError(
                    f"{path} is not there on {socket.gethostname()}, where process {rank} of {self.processes} runs",
                    "The store must be on a file system that all the machines share, under the same path.",
                )
        here = {each.distribution: each.version for each in registry.plugins} | {"luthier": version("luthier")}
        for name, wanted in self.versions.items():
            if here.get(name) != wanted:
                raise InputError(
                    f"{name} is {here.get(name) or 'not installed'} on {socket.gethostname()}, where process {rank} of "
                    f"{self.processes} runs, and {wanted or 'a file'} where the run was started",
                    "Install the same versions on all the machines.",
                )
        own = {name: str(scratch / name) for name in ("output", "notes")} if rank else {}
        return {**self.request, **own, "rank": rank, "processes": self.processes}


def _ignore(message: Message) -> None:
    """What other processes than the first tell is the same again."""


def spread(registry: Registry, emit: Send, local_plugins: Sequence[Path], request: Mapping[str, Any]) -> None:
    """Have a request done by the processes of the executor that it names, or the default one; pass on what they tell.

    Raises:
        LuthierError: the first error of one of them, or the executor's own.
    """
    chosen = request.get("executor") or {"name": DEFAULT_EXECUTOR, "config": {}}
    executor = registry.find("executor", chosen["name"])
    local = tuple(str(path.absolute()) for path in local_plugins)
    worker = registry.find(request["stage"], request["component"])
    versions = {"luthier": version("luthier"), worker.distribution: worker.version}
    job = Job(request["config"]["processes"], request["device"], request, local, versions)
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
    """Send what components log, and nowhere else."""
    log = logging.getLogger("luthier.component")
    before = log.level, log.propagate, log.handlers
    log.setLevel(logging.INFO)
    log.propagate, log.handlers = False, [_Sending(send)]
    try:
        yield
    finally:
        log.level, log.propagate, log.handlers = before


class _Sending(logging.Handler):
    def __init__(self, send: Send) -> None:
        super().__init__()
        self._send = send

    def emit(self, record: logging.LogRecord) -> None:
        self._send({"type": "log", "level": record.levelname.lower(), "message": record.getMessage()})
