"""The process that executes steps: requests in, events and results out, as JSON lines.

    python -P -m luthier.worker [LOCAL_PLUGIN…]

Nothing heavy is imported before the protocol has its own copy of stdout, so that a library's print
breaks nothing. The end of the input ends this process and its children: a killed parent leaves no orphan.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import queue
import signal
import sys
import threading
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from luthier.errors import InputError, LuthierError, PartFailed
from luthier.files import FULL

PROTOCOL_VERSION = 1
BUG = "This is a bug in the plugin, or in Luthier."
FULL_DISK_TEXTS = ("No space left on device", "(os error 112)")
"""How libraries that are not Python's say that a disk is full; the second is Windows' number for it."""


class Channel:
    """The parent's end of stdout, kept apart from file descriptor 1, which goes to stderr from now on."""

    def __init__(self) -> None:
        self._file: TextIO = os.fdopen(os.dup(1), "w", encoding="utf-8", errors="backslashreplace")
        os.dup2(2, 1)
        self._lock = threading.Lock()

    def send(self, message: Mapping[str, Any]) -> None:
        """Send one message; ends the process if the parent is gone."""
        line = json.dumps(message, ensure_ascii=True) + "\n"
        with self._lock:
            try:
                self._file.write(line)
                self._file.flush()
            except OSError:
                end_group()


def end_group() -> None:
    """End this process and the children that share its process group, at once."""
    if hasattr(os, "killpg") and os.getpgrp() == os.getpid():
        os.killpg(os.getpid(), signal.SIGKILL)
    os._exit(1)


class _LogToChannel(logging.Handler):
    def __init__(self, channel: Channel) -> None:
        super().__init__()
        self._channel = channel

    def emit(self, record: logging.LogRecord) -> None:
        self._channel.send({"type": "log", "level": record.levelname.lower(), "message": record.getMessage()})


def _read_requests(requests: queue.Queue[dict[str, Any]]) -> None:
    for line in sys.stdin:
        requests.put(json.loads(line))
    end_group()


def _is_full_disk(error: BaseException) -> bool:
    # polars and safetensors write from Rust: they tell the system's error in their text alone.
    return (isinstance(error, OSError) and error.errno in FULL) or any(text in str(error) for text in FULL_DISK_TEXTS)


def _is_out_of_memory(error: BaseException) -> bool:
    # PyTorch's allocators raise RuntimeErrors of their own.
    texts = ("can't allocate memory", "out of memory")
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(text in str(error) for text in texts)
    )


def _failure(error: BaseException, plugins: Sequence[Path] = ()) -> dict[str, Any]:
    """The message that tells the parent of an error: expected ones in a line, others with their traceback."""
    if isinstance(error, PartFailed):
        return {**_failure(error.error, plugins), "part": error.part}
    detail = "".join(traceback.format_exception(error))
    if isinstance(error, LuthierError):
        return {
            "type": "error",
            "message": error.message,
            "remedy": error.remedy,
            "exit_code": error.exit_code,
            "refused": isinstance(error, InputError),
            "detail": detail,
        }
    if _is_out_of_memory(error):
        return {
            "type": "error",
            "message": f"out of memory: {error}".rstrip(": "),
            "remedy": "Lower the batch size or --jobs, or free memory.",
            "exit_code": 1,
            "detail": detail,
        }
    if _is_full_disk(error):
        return {
            "type": "error",
            "message": f"no space left on the disk: {error}",
            "remedy": "Free space (`luthier store du`, `luthier store gc`) and run again: finished steps are kept.",
            "exit_code": 1,
            "detail": detail,
        }
    return {
        "type": "error",
        "message": f"{type(error).__name__}: {error}{_where(error, plugins)}",
        "remedy": BUG,
        "exit_code": 3,
        "detail": detail,
    }


def _where(error: BaseException, plugins: Sequence[Path]) -> str:
    """The line of a plugin that an error passed through last, else where it was raised.

    Most errors are raised in a library that the plugin calls, where its author can do nothing about them.
    """
    frames = traceback.extract_tb(error.__traceback__)
    inside = [frame for frame in frames if any(Path(frame.filename).is_relative_to(plugin) for plugin in plugins)]
    told = (inside or frames)[-1:]
    return f" at {told[0].filename}:{told[0].lineno}" if told else ""


def serve(local_plugins: list[Path]) -> None:
    """Answer requests until the input ends."""
    channel = Channel()
    component_log = logging.getLogger("luthier.component")
    component_log.setLevel(logging.INFO)
    component_log.addHandler(_LogToChannel(channel))
    component_log.propagate = False
    requests: queue.Queue[dict[str, Any]] = queue.Queue()
    threading.Thread(target=_read_requests, args=(requests,), daemon=True).start()

    from luthier.plugins import load_plugins
    from luthier.tasks import Tasks

    registry = load_plugins(local=local_plugins)
    paths = [plugin.path for plugin in registry.plugins if plugin.path]
    # A package is all that lies beside its `__init__.py`.
    plugins = [path.parent if path.name == "__init__.py" else path for path in paths]
    tasks = Tasks(registry, channel.send)
    channel.send({"type": "ready", "version": PROTOCOL_VERSION})
    while True:
        request = requests.get()
        try:
            channel.send({"type": "result", **tasks.carry_out(request)})
        except (Exception, SystemExit) as error:
            # A component that calls sys.exit has failed like any other.
            channel.send(_failure(error, plugins))


def main() -> None:
    """Serve until the parent closes our input. Ctrl-C is the parent's to handle."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with contextlib.suppress(KeyboardInterrupt):
        serve([Path(argument) for argument in sys.argv[1:]])


if __name__ == "__main__":
    main()
