"""For tests and benchmarks: a PostgreSQL server of one's own, which leaves nothing behind."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

UNPRIVILEGED = "nobody"
"""Who runs the server where the caller is root, which PostgreSQL refuses to be."""


def postgresql_programs() -> Path | None:
    """The directory of `initdb` and `pg_ctl`, which Debian keeps off the PATH; None where there is none."""
    found = shutil.which("initdb")
    if found:
        return Path(found).resolve().parent
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return versions[-1].parent if versions else None


@contextmanager
def postgresql_server(*, durable: bool) -> Iterator[str]:
    """The URL of an empty database, whose server runs on a socket in a temporary directory until the end.

    Args:
        durable: whether commits are flushed to the disk. Tests whose machine stays up need it not.

    Raises:
        RuntimeError: where PostgreSQL is not installed, or this is Windows.
    """
    programs = postgresql_programs()
    if programs is None or sys.platform == "win32":
        raise RuntimeError("PostgreSQL is not installed: apt-get install postgresql")
    # Not below the platform's directory: a socket's path has at most some 100 characters.
    with tempfile.TemporaryDirectory(prefix="luthier-pg-", dir="/tmp") as directory:
        user: dict[str, Any] = {}
        if os.geteuid() == 0:
            shutil.chown(directory, UNPRIVILEGED)
            user = {"user": UNPRIVILEGED, "cwd": directory}

        def call(program: str, *arguments: str) -> None:
            command = [str(programs / program), "-D", f"{directory}/data", *arguments]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **user)

        call("initdb", "-U", "luthier", "-A", "trust", "--no-locale", "-E", "UTF8", "-N")
        options = (
            f"-c listen_addresses='' -c unix_socket_directories='{directory}' -c fsync={'on' if durable else 'off'}"
        )
        call("pg_ctl", "-o", options, "-l", f"{directory}/server.log", "-w", "start")
        try:
            yield f"postgresql://luthier@/postgres?host={directory}"
        finally:
            call("pg_ctl", "-m", "immediate", "-w", "stop")
