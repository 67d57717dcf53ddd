"""The process that executes steps: requests in, events and results out, as JSON lines.

    python -P -m luthier.worker [LOCAL_PLUGIN…]

Nothing heavy is imported before the protocol has its own copy of stdout, so that a library's print
breaks nothing. The end of the input ends this process and its children: a killed parent leaves no orphan.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import sys
import threading
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, TextIO

from luthier.failures import failure

PROTOCOL_VERSION = 1


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


def _read_requests(requests: queue.Queue[dict[str, Any]]) -> None:
    for line in sys.stdin:
        requests.put(json.loads(line))
    end_group()


def serve(local_plugins: list[Path]) -> None:
    """Answer requests until the input ends."""
    channel = Channel()
    requests: queue.Queue[dict[str, Any]] = queue.Queue()
    threading.Thread(target=_read_requests, args=(requests,), daemon=True).start()

    from luthier.jobs import log_to, spread
    from luthier.plugins import load_plugins
    from luthier.tasks import Tasks

    registry = load_plugins(local=local_plugins)
    tasks = Tasks(registry, channel.send, partial(spread, registry, channel.send, local_plugins))
    channel.send({"type": "ready", "version": PROTOCOL_VERSION})
    with log_to(channel.send):
        while True:
            request = requests.get()
            try:
                channel.send({"type": "result", **tasks.carry_out(request)})
            except (Exception, SystemExit) as error:
                # A component that calls sys.exit has failed like any other.
                channel.send(failure(error, registry.sources))


def main() -> None:
    """Serve until the parent closes our input. Ctrl-C is the parent's to handle."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with contextlib.suppress(KeyboardInterrupt):
        serve([Path(argument) for argument in sys.argv[1:]])


if __name__ == "__main__":
    main()
