"""A worker's end of its pipes: messages to the process that started it, which nothing that prints can break."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Mapping
from typing import Any, TextIO


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
