"""A job on this machine: start its processes, hear what they send, tell of one that dies, end them all."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from luthier import Job, LuthierError, worker_environment

Message = Mapping[str, Any]

_TAIL_LINES = 8
_POLL_SECONDS = 0.5
_GRACE_SECONDS = 10.0
"""How long an error waits for another one, which may be its cause: who ends breaks the connections of the others."""


def run(job: Job) -> Iterator[Message]:
    """Run a job's processes on this machine, and yield what they send.

    Raises:
        LuthierError: if a process dies.
    """
    with tempfile.TemporaryDirectory(prefix="luthier-ranks-") as directory, contextlib.ExitStack() as stack:
        heard: queue.Queue[tuple[int, Message | None]] = queue.Queue()
        ranks: list[_Rank] = []
        for rank in range(job.processes):
            ranks.append(_Rank(job, rank, Path(directory), heard))
            stack.callback(ranks[-1].end)
        yield from _messages(ranks, heard)


class _Rank:
    """One process; what it sends is put into `heard`, with None at its end."""

    def __init__(self, job: Job, rank: int, directory: Path, heard: queue.Queue[tuple[int, Message | None]]) -> None:
        self._name = f"process {rank} of {job.processes}"
        self._log = directory / f"rank-{rank}.log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-I" if sys.flags.isolated else "-P", "-m", "luthier_tune.rank"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                encoding="utf-8",
                env=_environment(job.processes, rank),
            )
        threading.Thread(target=self._read, args=(rank, heard), daemon=True).start()
        request = {"job": asdict(job), "rank": rank, "meet": (directory / "meeting").as_uri()}
        assert self._process.stdin is not None
        # One that is dead already is told of where its output ends.
        with contextlib.suppress(OSError):
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()

    def _read(self, rank: int, heard: queue.Queue[tuple[int, Message | None]]) -> None:
        assert self._process.stdout is not None
        # A killed process may leave half a line behind; and `end` closes the pipe.
        with contextlib.suppress(ValueError):
            for line in self._process.stdout:
                heard.put((rank, json.loads(line)))
        heard.put((rank, None))

    def death(self) -> LuthierError | None:
        """The error that tells of its death; None if it ended as it should."""
        status = self._process.wait()
        if status == 0:
            return None
        remedy = "What is in the checkpoint is kept: run again to go on from it."
        if status == -getattr(signal, "SIGKILL", 9):
            told = f"{self._name} was killed, as the system does where memory runs out"
            remedy += " If it did, lower the batch size or `processes`: each has a model of its own."
        elif status < 0:
            told = f"{self._name} was killed by the signal {_signal_name(-status)}"
        else:
            told = f"{self._name} exited with status {status} in the middle of its work"
        lines = self._log.read_text(encoding="utf-8", errors="replace").splitlines()[-_TAIL_LINES:]
        return LuthierError(told, "\n".join([remedy, *(lines and ["Its last words:"]), *(f"    {x}" for x in lines)]))

    def end(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):
                if pipe:
                    pipe.close()


def _messages(ranks: Sequence[_Rank], heard: queue.Queue[tuple[int, Message | None]]) -> Iterator[Message]:
    running = len(ranks)
    held: Message | None = None
    deadline = 0.0
    while running and not (held and time.monotonic() > deadline):
        try:
            rank, message = heard.get(timeout=_POLL_SECONDS)
        except queue.Empty:
            continue
        if message is None:
            running -= 1
            death = ranks[rank].death()
            if death:
                raise death
        elif message["type"] == "error" and message["exit_code"] != 1 and not held:
            held, deadline = message, time.monotonic() + _GRACE_SECONDS
        elif message["type"] != "error" or message["exit_code"] == 1:
            yield message
    if held:
        yield held


def _environment(processes: int, rank: int) -> dict[str, str]:
    """What torchrun tells its processes, for libraries that look for it; and their part of the threads."""
    threads = int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1)
    told = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": processes}
    share = worker_environment(max(1, threads // processes))
    return share | {name: str(value) for name, value in told.items()}


def _signal_name(number: int) -> str:
    return signal.Signals(number).name if number in set(signal.Signals) else str(number)
