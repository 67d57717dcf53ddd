"""The server's end of a model's process: start it, have it complete, notice its death, end it."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from luthier import InputError, LuthierError, worker_environment

LOAD_SECONDS = 600.0
SILENT_SECONDS = 120.0
"""For which a process may say nothing while it has work: longer, and it hangs."""
MAX_LINE = 1 << 20


@dataclass(frozen=True)
class ModelSpec:
    """Which model, and what loads it.

    Attributes:
        path, kind, form, hash: of the artifact.
        runtime: its name; None for the default one.
        parameters: of the runtime, as JSON values.
        device: where the model runs.
        plugins: one-file plugins.
        threads: of the process.
    """

    path: str
    kind: str
    form: str
    hash: str
    runtime: str | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    device: str = "auto"
    plugins: tuple[str, ...] = ()
    threads: int = 1


class ProcessDied(LuthierError):
    """The model's process ended by itself, or was ended since it hung."""

    exit_code = 3


class ModelProcess:
    """A model that is loaded in a process of its own. Made by `start`.

    Attributes:
        spec: which model.
        died: set once the process has ended.
        active: how many completions it is at.
    """

    def __init__(self, spec: ModelSpec, process: asyncio.subprocess.Process) -> None:
        self.spec = spec
        self.died = asyncio.Event()
        self._process = process
        self._numbers = itertools.count(1)
        self._answers: dict[int, asyncio.Queue[Mapping[str, Any] | None]] = {}
        self._idle = asyncio.Event()
        self._idle.set()
        self._reader: asyncio.Task[None] | None = None

    @classmethod
    async def start(cls, spec: ModelSpec) -> ModelProcess:
        """Start a process and have it load the model and write a token.

        Raises:
            InputError: if it cannot.
            ProcessDied: if the process died of it.
        """
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",
            "-m",
            "luthier_serve.model_process",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env=worker_environment(spec.threads),
            limit=MAX_LINE,
            **_own_group(),
        )
        model = cls(spec, process)
        try:
            model._send(asdict(spec))
            try:
                async with asyncio.timeout(LOAD_SECONDS):
                    first = await model._receive()
            except TimeoutError:
                told = f"{spec.path} was not loaded within {LOAD_SECONDS:g} seconds"
                raise ProcessDied(told, "Free memory, or use a smaller model.") from None
            if first is None:
                raise ProcessDied(f"the process that was to load {spec.path} died", "Its last words are above.")
            if first["type"] != "ready":
                raise InputError(first["message"], first["remedy"])
        except BaseException:
            await model.end()
            raise
        model._reader = asyncio.create_task(model._dispatch())
        return model

    @property
    def active(self) -> int:
        """How many completions it is at."""
        return len(self._answers)

    async def complete(self, request: Mapping[str, Any]) -> AsyncGenerator[Mapping[str, Any]]:
        """The messages of one completion, as `scheduler` sends them; closing the generator cancels it.

        Raises:
            ProcessDied: if the process does before the end.
        """
        number = next(self._numbers)
        answers = self._answers[number] = asyncio.Queue()
        self._idle.clear()
        ended = False
        try:
            self._send({"type": "begin", "id": number, **request})
            while not ended:
                answer = None if self.died.is_set() and answers.empty() else await answers.get()
                if answer is None:
                    ended = True
                    raise ProcessDied("the process that has the model died", "It is started again.")
                ended = answer["type"] in ("end", "refused", "failed")
                yield answer
        finally:
            if not ended:
                self._send({"type": "cancel", "id": number})
            del self._answers[number]
            if not self._answers:
                self._idle.set()

    async def end(self) -> None:
        """End the process and its children, at once."""
        if self._process.returncode is None:
            _kill(self._process.pid)
        await self._process.wait()
        self.died.set()
        if self._reader is not None:
            await self._reader

    async def retire(self) -> None:
        """End the process once it has nothing to do."""
        waiting = [asyncio.create_task(each.wait()) for each in (self._idle, self.died)]
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in waiting:
                each.cancel()
            await self.end()

    def _send(self, message: Mapping[str, Any]) -> None:
        assert self._process.stdin is not None
        # A process that is gone is noticed by its reader.
        with contextlib.suppress(OSError, RuntimeError):
            self._process.stdin.write((json.dumps(message) + "\n").encode())

    async def _receive(self) -> dict[str, Any] | None:
        assert self._process.stdout is not None
        try:
            line = await self._process.stdout.readline()
        except ValueError:
            return None  # A line that is longer than any of ours: what writes it is not what we started.
        # A killed process may leave half a line behind.
        return json.loads(line) if line.endswith(b"\n") else None

    async def _dispatch(self) -> None:
        """Hand messages to those that wait for them, until the process ends or hangs."""
        while True:
            try:
                async with asyncio.timeout(SILENT_SECONDS):
                    message = await self._receive()
            except TimeoutError:
                if not self._answers:
                    continue
                message = None
            if message is None:
                break
            answers = self._answers.get(message["id"])
            if answers is not None:
                answers.put_nowait(message)
        if self._process.returncode is None:
            _kill(self._process.pid)
        await self._process.wait()
        self.died.set()
        for answers in self._answers.values():
            answers.put_nowait(None)


def _own_group() -> dict[str, Any]:
    # The process must not hear the terminal's Ctrl-C: the server decides.
    if sys.platform == "win32":
        return {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
    return {"start_new_session": True}


def _kill(pid: int) -> None:
    if hasattr(os, "killpg"):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)
    else:
        subprocess.run(["taskkill", "/F", "/T", "/PID", str(pid)], capture_output=True, check=False)
