"""What code does to its surroundings, heard through Python's audit events inside the process that runs it.

Refuses the network, records writes outside the allowed directories, and can end the process at a write,
as a kill would. Only what Python does is heard: a write of native code or of a child process is not.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import sysconfig
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

VARIABLE = "LUTHIER_CONFORMANCE"
"""The environment variable that holds a guard's settings, as JSON: the arguments of `install`."""

KILLED = 137
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_CHANGED_PATHS: Mapping[str, tuple[tuple[int, int | None], ...]] = {
    "os.chmod": ((0, 2),),
    "os.link": ((1, 3),),
    "os.mkdir": ((0, 2),),
    "os.remove": ((0, 1),),
    "os.rename": ((0, 2), (1, 3)),
    "os.rmdir": ((0, 1),),
    "os.symlink": ((1, 2),),
    "os.truncate": ((0, None),),
    "sqlite3.connect": ((0, None),),
}
"""For each event the arguments that name a changed path, each with the one that may hold its directory's descriptor."""
_NETWORK = ("socket.connect", "socket.sendto", "socket.sendmsg", "socket.getaddrinfo", "socket.gethostbyname")
_SYSTEM = ("/dev/", "/proc/")
_LIBRARY = sysconfig.get_path("stdlib")


def install(*, log: str, allowed: Sequence[str], kill_at: int | None = None) -> None:
    """Guard this process from now on; there is no way back.

    Args:
        log: where what is heard is appended, as JSON lines.
        allowed: the directories below which anything may be written.
        kill_at: the number of the write below `allowed` at which the process ends; None for never.
    """
    sys.addaudithook(_Guard(Path(log), [os.path.realpath(path) for path in allowed], kill_at).hear)


def install_from_environment() -> None:
    """Install the guard that the environment variable describes, if there is one."""
    if VARIABLE in os.environ:
        install(**json.loads(os.environ[VARIABLE]))


class _Guard:
    def __init__(self, log: Path, allowed: Sequence[str], kill_at: int | None) -> None:
        self._log = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._allowed = tuple(allowed)
        self._kill_at = kill_at
        self._writes = 0

    def hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event in _NETWORK:
            self._network(event, arguments)
            return
        torn = event == "open" and bool(arguments[2] & os.O_TRUNC)
        for path in _changed(event, arguments):
            self._write(event, path, torn)

    def _network(self, event: str, arguments: tuple[Any, ...]) -> None:
        if getattr(arguments[0], "family", None) == getattr(socket, "AF_UNIX", object()):
            return
        target = arguments[1] if isinstance(arguments[0], socket.socket) else arguments[0]
        self._tell("network", event, str(target))
        raise ConnectionRefusedError(f"{event} to {target}: a component reaches files by `ctx.open` only")

    def _write(self, event: str, path: str, torn: bool) -> None:
        if path.startswith(_SYSTEM) or f"{os.sep}__pycache__" in path:
            return
        if not any(path == place or path.startswith(place + os.sep) for place in self._allowed):
            self._tell("write", event, path)
            return
        self._writes += 1
        self._tell("step", event, path)
        if self._writes == self._kill_at:
            if torn:
                # What a kill leaves of a file that was opened to be written and not yet flushed.
                os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600))
            os._exit(KILLED)

    def _tell(self, kind: str, event: str, target: str) -> None:
        line = json.dumps({"kind": kind, "event": event, "target": target, "where": _caller()})
        os.write(self._log, f"{line}\n".encode())


def _changed(event: str, arguments: tuple[Any, ...]) -> Iterator[str]:
    if event == "open":
        changed: tuple[tuple[int, int | None], ...] = ((0, None),) if arguments[2] & _WRITES else ()
    else:
        changed = _CHANGED_PATHS.get(event, ())
    for index, directory in changed:
        path = arguments[index]
        if isinstance(path, int) or path in (None, ":memory:", ""):
            continue  # a descriptor was heard of when it was opened
        if event == "sqlite3.connect" and _is_read_only(os.fsdecode(path)):
            continue
        descriptor = -1 if directory is None or directory >= len(arguments) else arguments[directory]
        yield _absolute(os.fsdecode(path), descriptor)


def _is_read_only(uri: str) -> bool:
    """Whether SQLite is asked by a URI to open a database for reading alone."""
    return uri.startswith("file:") and "mode=ro" in uri.partition("?")[2].split("&")


def _absolute(path: str, descriptor: object) -> str:
    base = ""
    if isinstance(descriptor, int) and descriptor >= 0 and not os.path.isabs(path):
        base = os.readlink(f"/proc/self/fd/{descriptor}") if sys.platform == "linux" else ""
    # The last part is not followed: renaming a link changes the link.
    whole = os.path.abspath(os.path.join(base, path))
    return os.path.join(os.path.realpath(os.path.dirname(whole)), os.path.basename(whole))


def _caller() -> str:
    """The innermost line of code that is neither Python's nor ours."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        file = frame.f_code.co_filename
        ours = file == __file__ or file.startswith("<")
        if not ours and (not file.startswith(_LIBRARY) or "site-packages" in file):
            return f"{file}:{frame.f_lineno}"
        frame = frame.f_back
    return ""
