"""Starting the processes of a training: fresh ones, that are given what this one was given, and end with it.

    python -P -m luthier_tune.processes

A request, one JSON line, names a tuner's implementation and its arguments; artifacts are named by their paths.
The process then waits for the end of its input, so that none outlives the one that started it.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping
from dataclasses import is_dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter
from torch import distributed
from torch.distributed import TCPStore  # type: ignore[attr-defined]  # made known by an import of all

from luthier import Context, InputError, LuthierError
from luthier_models.loading import resolve_device
from luthier_tune.distributed import Finished

Tune = Callable[..., None]

_TAIL_LINES = 8
_END_SECONDS = 10
"""How long the reason of a broken connection is waited for."""


def on_processes(tune: Tune) -> Tune:
    """Let a tuner's implementation run in as many processes as its `settings` ask for.

    It is called with an argument `settings`, a `Training`, and one `ctx`, a `Context`; the others are artifacts,
    dataclasses or None. Under torchrun or `accelerate launch` it joins the processes that are there, and what
    comes after the training is left to the first of them.
    """
    signature = inspect.signature(tune)

    @functools.wraps(tune)
    def run(*positional: Any, **named: Any) -> None:
        arguments = dict(signature.bind(*positional, **named).arguments)
        count = arguments["settings"].processes
        with contextlib.suppress(Finished):
            if distributed.is_initialized():
                tune(**arguments)
            elif distributed.is_torchelastic_launched():
                distributed.init_process_group(_backend(arguments["ctx"].device))
                tune(**arguments)
            elif count == 1:
                tune(**arguments)
            else:
                with _Children(tune, arguments, count):
                    tune(**arguments)

    return run


class _Children:
    """The processes but the first, which is this one; a context that makes the group and takes it apart."""

    def __init__(self, tune: Tune, arguments: Mapping[str, Any], count: int) -> None:
        ctx: Context = arguments["ctx"]
        device = resolve_device(ctx.device)
        if device.type == "mps":
            raise InputError("`processes` is more than 1, and the device is mps", "Run in one process, or on `cpu`.")
        if device.type == "cuda":
            resolve_device(f"cuda:{count - 1}")
        self._devices = [f"cuda:{rank}" if device.type == "cuda" else "cpu" for rank in range(count)]
        self._count = count
        self._tune = tune
        self._arguments = arguments
        self._threads = torch.get_num_threads()
        self._stack = contextlib.ExitStack()
        self._processes: list[subprocess.Popen[str]] = []
        self._logs: list[Path] = []

    def __enter__(self) -> None:
        try:
            self._start()
        except BaseException:
            self._stack.close()
            raise

    def _start(self) -> None:
        threads = max(1, self._threads // self._count)
        torch.set_num_threads(threads)
        self._stack.callback(torch.set_num_threads, self._threads)
        directory = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="luthier-processes-")))
        store = TCPStore("127.0.0.1", 0, self._count, is_master=True, wait_for_workers=False)
        self._stack.callback(self._end)
        for rank in range(1, self._count):
            self._logs.append(directory / f"process-{rank}.log")
            with self._logs[-1].open("w", encoding="utf-8") as log:
                process = subprocess.Popen(
                    [sys.executable, "-P", "-m", "luthier_tune.processes"],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    text=True,
                    env={**os.environ, "OMP_NUM_THREADS": str(threads)},
                )
            self._processes.append(process)
            request = {
                "implementation": f"{self._tune.__module__}:{self._tune.__name__}",
                "arguments": {name: _encode(value) for name, value in self._arguments.items() if name != "ctx"},
                "seed": self._arguments["ctx"].seed,
                "checkpoint": str(self._arguments["ctx"].checkpoint),
                "scratch": str(directory / f"process-{rank}"),
                "device": self._devices[rank],
                "port": store.port,
                "rank": rank,
                "size": self._count,
            }
            assert process.stdin is not None
            process.stdin.write(json.dumps(request) + "\n")
            process.stdin.flush()
        for process in self._processes:
            assert process.stdout is not None
            # Nobody waits in the group for one that died while it was starting.
            if process.stdout.readline() != "ready\n":
                raise self._failure() or LuthierError("a process of the training did not start")
        distributed.init_process_group(_backend(self._devices[0]), store=store, rank=0, world_size=self._count)

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        try:
            # A process that ends breaks its connections: the error that it tells is the reason of ours.
            told = self._failure() if isinstance(error, RuntimeError) else None
        finally:
            self._stack.close()
        if told:
            raise told from error

    def _failure(self) -> LuthierError | None:
        """The error of a process that ended before its time; None if none did."""
        for rank, (process, log) in enumerate(zip(self._processes, self._logs, strict=True), 1):
            try:
                status = process.wait(_END_SECONDS)
            except subprocess.TimeoutExpired:
                continue
            if status == 0:
                continue
            assert process.stdout is not None
            told = process.stdout.read().strip()
            if told:
                return InputError(**json.loads(told.splitlines()[-1]))
            tail = "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-_TAIL_LINES:])
            return LuthierError(
                f"process {rank + 1} of {self._count} of the training ended with status {status}\n{tail}".rstrip(),
                "Run again: training goes on from the last checkpoint. With `processes: 1` it needs less memory.",
            )
        return None

    def _end(self) -> None:
        if distributed.is_initialized():
            distributed.destroy_process_group()
        for process in self._processes:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                with contextlib.suppress(OSError):
                    if pipe:
                        pipe.close()


def _backend(device: str) -> str:
    return "nccl" if resolve_device(device).type == "cuda" else "gloo"


def _encode(value: Any) -> dict[str, Any] | None:
    """A dataclass as JSON, with the name of its type."""
    if value is None:
        return None
    assert is_dataclass(value)
    cls = type(value)
    return {
        "type": f"{cls.__module__}:{cls.__qualname__}",
        "value": TypeAdapter(cls).dump_python(value, mode="json"),
    }


def _decode(record: Mapping[str, Any] | None) -> Any:
    return None if record is None else TypeAdapter(_named(record["type"])).validate_python(record["value"])


def _named(name: str) -> Any:
    module, _, attribute = name.partition(":")
    return getattr(import_module(module), attribute)


def _take_part(request: Mapping[str, Any], say: Callable[[str], None]) -> None:
    """Train with the others, and stop where the first one goes on alone."""
    scratch = Path(request["scratch"])
    for part in ("output", "notes"):
        (scratch / part).mkdir(parents=True)
    ctx = Context(
        seed=request["seed"],
        output=scratch / "output",
        checkpoint=Path(request["checkpoint"]),
        notes=scratch / "notes",
        emit=lambda event: None,
        fetch=Path,
        device=request["device"],
        name="tune",
    )
    arguments = {name: _decode(value) for name, value in request["arguments"].items()}
    tune = _named(request["implementation"])
    say("ready")
    store = TCPStore("127.0.0.1", request["port"], request["size"], is_master=False)
    distributed.init_process_group(
        _backend(request["device"]), store=store, rank=request["rank"], world_size=request["size"]
    )
    tune(**arguments, ctx=ctx)


def main() -> int:
    """Take part in the training that the first line of the input asks for; the end of the input ends it."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def say(line: str) -> None:
        out.write(line + "\n")
        out.flush()

    request = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_input, daemon=True).start()
    try:
        _take_part(request, say)
    except LuthierError as error:
        say(json.dumps({"message": error.message, "remedy": error.remedy}))
        return 1
    return 0


def _end_with_input() -> None:
    sys.stdin.read()
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
