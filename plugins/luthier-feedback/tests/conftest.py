"""A log in each database: SQLite always, PostgreSQL where it is installed, started for the tests alone."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from luthier_feedback import FeedbackLog
from luthier_feedback.testing import postgresql_programs, postgresql_server

KINDS = ("sqlite", "postgresql")


@pytest.fixture(autouse=True)
def without_mlflow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs are not recorded in MLflow, whose import and database cost more than all else that they do here."""
    monkeypatch.setenv("LUTHIER_DISABLE", "mlflow")


@pytest.fixture(scope="session")
def postgresql() -> Iterator[str]:
    """The URL of a server of our own."""
    pytest.importorskip("psycopg", reason="pip install 'luthier-feedback[postgresql]'")
    if postgresql_programs() is None or sys.platform == "win32":
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    # What is tested is that clients may die, not that the machine may.
    with postgresql_server(durable=False) as url:
        yield url


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
