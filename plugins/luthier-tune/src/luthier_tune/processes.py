"""The executor `local`: the processes of a job on this machine, started fresh."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import closing
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from luthier import Job, LuthierError

_LOCALHOST = "127.0.0.1"
_THREADS = "OMP_NUM_THREADS"


def run(job: Job) -> Iterator[Mapping[str, Any]]:
    """Start the job's processes, and yield what they send until the last has ended.

    Raises:
        LuthierError: if one dies.
    """
    spawn = multiprocessing.get_context("spawn")
    port = _free_port()
    processes: dict[Connection, tuple[int, BaseProcess]] = {}
    try:
        for rank in range(job.processes):
            ours, theirs = spawn.Pipe(duplex=False)
            process = spawn.Process(target=_work, args=(job, rank, _environment(job, rank, port), theirs), daemon=True)
            process.start()
            theirs.close()
            processes[ours] = rank, process
        yield from _messages(processes, job)
    finally:
        for _, child in processes.values():
            child.kill()
            child.join()


def _environment(job: Job, rank: int, port: int) -> dict[str, str]:
    """What torchrun would set; the worker's threads are divided among the processes."""
    threads = max(1, int(os.environ.get(_THREADS) or os.cpu_count() or 1) // job.processes)
    return {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(job.processes),
        "LOCAL_WORLD_SIZE": str(job.processes),
        "MASTER_ADDR": _LOCALHOST,
        "MASTER_PORT": str(port),
        _THREADS: str(threads),
    }


def _free_port() -> int:
    with closing(socket.socket()) as listening:
        listening.bind((_LOCALHOST, 0))
        return int(listening.getsockname()[1])


def _work(job: Job, rank: int, environment: Mapping[str, str], connection: Connection) -> None:
    """What each process does."""
    # Before torch is imported, which reads the number of threads once.
    os.environ.update(environment)
    lock = threading.Lock()

    def send(message: Mapping[str, Any]) -> None:
        with lock:
            connection.send_bytes(json.dumps(message).encode())

    job.do(rank, send)


def _messages(processes: Mapping[Connection, tuple[int, BaseProcess]], job: Job) -> Iterator[Mapping[str, Any]]:
    listening: list[Any] = list(processes)
    told: set[int] = set()
    while listening:
        for connection in wait(listening):
            assert isinstance(connection, Connection)
            rank, process = processes[connection]
            try:
                message = json.loads(connection.recv_bytes())
            except EOFError:
                listening.remove(connection)
                process.join()
                if rank not in told:
                    raise _death(rank, process, job) from None
                continue
            if message["type"] in ("done", "error"):
                told.add(rank)
            if message["type"] == "error":
                _look_for_cause(processes, told, job)
            yield message


def _look_for_cause(processes: Mapping[Connection, tuple[int, BaseProcess]], told: set[int], job: Job) -> None:
    """Where a process died without a word, the others only tell that they have lost it."""
    for rank, process in processes.values():
        if process.exitcode is not None and rank not in told:
            raise _death(rank, process, job)


def _death(rank: int, process: BaseProcess, job: Job) -> LuthierError:
    code = process.exitcode or 0
    how = f"was killed by the signal {signal.Signals(-code).name}" if code < 0 else f"exited with status {code}"
    remedy = "Its last words are in the worker's log"
    if code == -getattr(signal, "SIGKILL", 0):
        remedy = "Most often the memory did not suffice: lower the batch size or the number of processes"
    return LuthierError(
        f"process {rank} of {job.processes} {how} in the middle of its work",
        f"{remedy}. What is in the checkpoint is kept: run again to go on from it.",
    )
