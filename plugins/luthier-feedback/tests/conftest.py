"""A log in each database: SQLite always, PostgreSQL where it is installed, started for the tests alone."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from luthier_feedback import FeedbackLog

KINDS = ("sqlite", "postgresql")


def programs() -> Path | None:
    """Where PostgreSQL's programs are; Debian keeps them off the PATH."""
    found = shutil.which("initdb")
    if found:
        return Path(found).resolve().parent
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return versions[-1].parent if versions else None


@pytest.fixture(scope="session")
def postgresql(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a server of our own, on a socket in a directory of our own."""
    pytest.importorskip("psycopg", reason="pip install 'luthier-feedback[postgresql]'")
    where = programs()
    if where is None or sys.platform == "win32":
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    # A socket's path is at most some 100 characters long, which pytest's directories may exceed.
    root = Path(f"/tmp/luthier-pg-{uuid.uuid4().hex[:8]}")
    root.mkdir(mode=0o700)
    as_user: dict[str, Any] = {}
    if os.geteuid() == 0:
        # PostgreSQL refuses to run as root.
        shutil.chown(root, "nobody")
        as_user = {"user": "nobody", "cwd": root}

    def start(*command: str) -> None:
        subprocess.run(command, check=True, capture_output=True, **as_user)

    data = str(root / "data")
    try:
        start(str(where / "initdb"), "-D", data, "-U", "luthier", "-A", "trust", "--no-locale", "-E", "UTF8", "-N")
        # What is tested is that clients may die, not that the machine may.
        options = f"-c fsync=off -c listen_addresses='' -c unix_socket_directories='{root}'"
        start(str(where / "pg_ctl"), "-D", data, "-o", options, "-l", str(root / "server.log"), "-w", "start")
        try:
            yield f"postgresql://luthier@/postgres?host={root}"
        finally:
            start(str(where / "pg_ctl"), "-D", data, "-m", "immediate", "-w", "stop")
    finally:
        shutil.rmtree(root, ignore_errors=True)


@pytest.fixture
def database(postgresql: str) -> str:
    """The URL of PostgreSQL, without a table."""
    import psycopg

    with psycopg.connect(postgresql, autocommit=True) as connection:
        connection.execute("DROP SCHEMA public CASCADE")
        connection.execute("CREATE SCHEMA public")
    return postgresql


@pytest.fixture(params=KINDS)
def where(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A log's path or URL, in each kind of database."""
    if request.param == "sqlite":
        return str(tmp_path / "log" / "feedback.db")
    return str(request.getfixturevalue("database"))


@pytest.fixture
def log(where: str) -> Iterator[FeedbackLog]:
    with FeedbackLog(where) as opened:
        yield opened


@pytest.fixture
def body() -> Callable[..., dict[str, Any]]:
    """What an application posts; each with an id of its own."""

    def make(**fields: Any) -> dict[str, Any]:
        return {"prompt": "Capital of France?", "answer": "Lyon", "vote": -1, "source": "tests", **fields}

    return make
