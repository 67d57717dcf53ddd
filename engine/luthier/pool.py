"""The parent's side of the workers: start them fresh, talk to them, notice death and silence, end them all."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

from luthier.errors import LuthierError, WorkerError
from luthier.process_environment import worker_environment
from luthier.worker import PROTOCOL_VERSION

START_TIMEOUT = 120.0
TAIL_LINES = 12
SIGNAL_SECONDS = 0.5
"""How late a Ctrl-C may be noticed where waiting cannot be interrupted."""

Message = Mapping[str, Any]


class StepError(LuthierError):
    """A component's error, as its worker told it.

    `detail` is the traceback; `refused` tells that the component raised `InputError`: the input is at fault, and
    the same input would be refused again.
    """

    def __init__(self, message: Message) -> None:
        super().__init__(message["message"], message["remedy"])
        self.exit_code = message["exit_code"]
        self.detail: str = message["detail"]
        self.refused: bool = message.get("refused", False)
        self.part = message.get("part")


class Worker:
    """One worker process. `call` is one request at a time; `end` may come from any thread."""

    def __init__(
        self,
        log: Path,
        *,
        threads: int,
        local_plugins: Sequence[Path],
        timeout: float | None,
        python: Path | None = None,
    ) -> None:
        self._log_path = log
        self._timeout = timeout
        self._messages: queue.Queue[dict[str, Any] | None] = queue.Queue()
        # For a component in an environment of its own that has something to ask the main one.
        environment = {**worker_environment(threads), "LUTHIER_PYTHON": sys.executable}
        log.parent.mkdir(parents=True, exist_ok=True)
        self._out_of_memory_before = _out_of_memory_kills()
        with log.open("ab") as errors:
            self._process = subprocess.Popen(
                [*_interpreter(python), "-m", "luthier.worker", *map(str, local_plugins)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=environment,
                text=True,
                encoding="utf-8",
                **_own_group(),
            )
        threading.Thread(target=self._read, daemon=True).start()
        self._started = False
        self._ended = False

    def _read(self) -> None:
        assert self._process.stdout is not None
        # A killed process may leave half a line behind; and `end` closes the pipe.
        with contextlib.suppress(ValueError):
            for line in self._process.stdout:
                self._messages.put(json.loads(line))
        self._messages.put(None)

    def call(self, request: Message, on_message: Callable[[Message], None] = lambda message: None) -> dict[str, Any]:
        """Send a request and wait for its result; what comes on the way goes to `on_message`.

        Raises:
            StepError: the component failed.
            WorkerError: the process died, or said nothing for longer than the timeout.
        """
        if not self._started:
            ready = self._next(START_TIMEOUT, "The machine may be overloaded: try again, or see `luthier doctor`.")
            if ready["type"] != "ready" or ready["version"] != PROTOCOL_VERSION:
                raise WorkerError(f"a worker answered {ready}", "Reinstall luthier: its parts do not fit together.")
            self._started = True
        self._send(request)
        while True:
            message = self._next(self._timeout, "If the step is only slow, allow it more with --step-timeout SECONDS.")
            if message["type"] == "result":
                return message
            if message["type"] == "error":
                raise StepError(message)
            on_message(message)

    def _send(self, request: Message) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        except OSError:
            raise self._death() from None

    def _next(self, timeout: float | None, remedy: str) -> dict[str, Any]:
        try:
            message = _get_interruptibly(self._messages, timeout)
        except queue.Empty:
            self.end()
            raise WorkerError(f"the worker reported nothing for {timeout:g} seconds and was ended", remedy) from None
        if message is None:
            raise self._death()
        return message

    def _death(self) -> WorkerError:
        code = self._process.wait()
        self.end()
        tail = _tail(self._log_path)
        remedy = f"Its last words are in {self._log_path}" + (f":\n{tail}" if tail else ".")
        if (
            code < 0
            and -code == getattr(signal, "SIGKILL", None)
            and _out_of_memory_kills() > self._out_of_memory_before
        ):
            return WorkerError(
                "the worker was killed by the operating system: out of memory",
                "Lower the batch size or --jobs, or use a machine with more memory. Finished steps are kept.",
            )
        if code < 0:
            name = signal.Signals(-code).name if -code in set(signal.Signals) else str(-code)
            return WorkerError(f"the worker was killed by the signal {name}", remedy)
        return WorkerError(f"the worker exited with status {code} in the middle of its work", remedy)

    def end(self) -> None:
        """End the process and every child of its group. May be called again."""
        if self._ended:
            return  # The system may have given the group's number to another one since.
        self._ended = True
        if hasattr(os, "killpg"):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
        else:
            subprocess.run(["taskkill", "/F", "/T", "/PID", str(self._process.pid)], capture_output=True, check=False)
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):
                if pipe:
                    pipe.close()


class Pool:
    """The workers of a run: one with all threads for whole steps, and up to `jobs` for shards."""

    def __init__(self, logs: Path, *, jobs: int, local_plugins: Sequence[Path], timeout: float | None) -> None:
        self._logs = logs
        self.jobs = jobs
        self._local_plugins = local_plugins
        self._timeout = timeout
        self._workers: list[Worker] = []
        self._main: dict[Path | None, Worker] = {}
        self._idle: dict[Path | None, list[Worker]] = {}

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """End every worker."""
        while self._workers:
            self._workers.pop().end()
        self._main, self._idle = {}, {}

    def _start(self, threads: int, python: Path | None) -> Worker:
        log = self._logs / f"worker-{len(self._workers)}.log"
        worker = Worker(log, threads=threads, local_plugins=self._local_plugins, timeout=self._timeout, python=python)
        self._workers.append(worker)
        return worker

    def call(
        self, request: Message, on_message: Callable[[Message], None], python: Path | None = None
    ) -> dict[str, Any]:
        """Have a whole step done by the worker that has all threads.

        Args:
            python: the interpreter of an environment of its own; None for the main one.
        """
        if python not in self._main:
            self._main[python] = self._start(available_cores(), python)
        try:
            return self._main[python].call(request, on_message)
        except WorkerError:
            del self._main[python]
            raise

    def map(
        self,
        requests: Sequence[Message],
        on_message: Callable[[Message], None],
        on_result: Callable[[Message], None],
        python: Path | None = None,
    ) -> None:
        """Have shards done side by side; the first error ends the others. `on_result` hears of each done."""
        count = max(1, min(self.jobs, len(requests)))
        idle = self._idle.setdefault(python, [])
        while len(idle) < count:
            idle.append(self._start(max(1, available_cores() // self.jobs), python))
        todo: queue.SimpleQueue[Message] = queue.SimpleQueue()
        for request in requests:
            todo.put(request)
        stop = threading.Event()
        lock = threading.Lock()

        def listen(message: Message) -> None:
            with lock:
                on_message(message)

        def work(worker: Worker) -> None:
            while not stop.is_set():
                try:
                    request = todo.get_nowait()
                except queue.Empty:
                    return
                result = worker.call(request, listen)
                with lock:
                    on_result(result)

        with ThreadPoolExecutor(count) as threads:
            futures = [threads.submit(work, worker) for worker in idle[:count]]
            try:
                _wait_interruptibly(futures)
            except BaseException:
                stop.set()
                for worker in idle:
                    worker.end()
                idle.clear()
                raise


def _get_interruptibly(messages: queue.Queue[dict[str, Any] | None], timeout: float | None) -> dict[str, Any] | None:
    # A wait without a timeout can lose a signal: one that arrives just before the lock is waited for is only
    # seen after it, and on Windows none is seen while it lasts.
    deadline = None if timeout is None else time.monotonic() + timeout
    while True:
        try:
            left = SIGNAL_SECONDS if deadline is None else deadline - time.monotonic()
            return messages.get(timeout=max(0.0, min(SIGNAL_SECONDS, left)))
        except queue.Empty:
            if deadline is not None and time.monotonic() >= deadline:
                raise


def _wait_interruptibly(futures: Sequence[Any]) -> None:
    # A wait without a timeout would keep signals from the main thread on Windows.
    pending = set(futures)
    while pending:
        done, pending = wait(pending, timeout=SIGNAL_SECONDS, return_when=FIRST_EXCEPTION)
        for future in done:
            future.result()


def available_cores() -> int:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _interpreter(python: Path | None) -> list[str]:
    # An environment of its own is closed: neither PYTHONPATH nor the user's site directory reaches into it.
    return [str(python), "-I"] if python else [sys.executable, "-P"]


def _own_group() -> dict[str, Any]:
    # The worker must not hear the terminal's Ctrl-C: the parent decides, and ends the whole group.
    if sys.platform == "win32":
        return {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
    return {"start_new_session": True}


def _out_of_memory_kills() -> int:
    """How often Linux's out-of-memory killer has struck so far; 0 where that is not told."""
    try:
        text = Path("/proc/vmstat").read_text(encoding="ascii")
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in text.splitlines() if line.startswith("oom_kill ")), 0)


def _tail(path: Path) -> str:
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return "\n".join(f"    {line}" for line in lines[-TAIL_LINES:])
