"""Where the log is kept: SQLite or PostgreSQL, opened so that what is committed is on the disk; errors in words."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.pool import QueuePool

from luthier.errors import InputError
from luthier_feedback.errors import LogUnavailable, Reason

VARIABLE = "LUTHIER_FEEDBACK"
DEFAULT = Path("feedback") / "feedback.db"
WRITES = {"luthier_writes": True}
"""The execution options of a connection that will write: SQLite takes its lock at once, and not in the middle."""

_SQLITE: Mapping[str, Reason] = {
    "SQLITE_BUSY": "locked",
    "SQLITE_LOCKED": "locked",
    "SQLITE_FULL": "full",
    "SQLITE_CANTOPEN": "gone",
    "SQLITE_READONLY": "read-only",
    "SQLITE_PERM": "read-only",
    "SQLITE_CORRUPT": "damaged",
    "SQLITE_NOTADB": "damaged",
    "SQLITE_IOERR": "failing",
}
_POSTGRESQL: Mapping[str, Reason] = {
    "55P03": "locked",
    "57014": "locked",
    "40P01": "locked",
    "53100": "full",
    "25006": "read-only",
    "42501": "read-only",
    "42P01": "gone",
    "3D000": "gone",
}
_REMEDIES: Mapping[Reason, str] = {
    "locked": "Try again; another process writes to it, or holds it open in a transaction.",
    "full": "Free some space, and try again.",
    "gone": "Put it back; a new one begins when the program that writes it is started again.",
    "read-only": "Mend its permissions.",
    "damaged": "Restore it from a backup.",
    "failing": "Look at the disk, and at what limits its files.",
    "unreachable": "Start the database server, or mend the URL.",
}


def locate(where: str | Path | None) -> URL:
    """The database that a path or URL names; without one LUTHIER_FEEDBACK does, else `feedback/feedback.db`.

    Raises:
        InputError: if it is a URL of something else, or the driver for it is not installed.
    """
    text = str(where or os.environ.get(VARIABLE) or DEFAULT)
    if "://" not in text:
        return URL.create("sqlite", database=str(Path(text).expanduser().absolute()))
    try:
        url = make_url(text)
    except ArgumentError:
        raise InputError("the URL of the feedback log cannot be read", f"Write {_FORMS}.") from None
    kind = url.get_backend_name()
    if kind == "sqlite" and url.database:
        return URL.create("sqlite", database=str(Path(url.database).expanduser().absolute()))
    if kind in ("postgresql", "postgres"):
        _require_psycopg()
        return url.set(drivername="postgresql+psycopg")
    raise InputError(f"a feedback log is no {kind or 'such'} database", f"Write {_FORMS}.")


_FORMS = "a path, sqlite:///path, or postgresql://user:password@host/database"


def _require_psycopg() -> None:
    try:
        import psycopg  # noqa: F401
    except ImportError:
        raise InputError("PostgreSQL's driver is not installed", "pip install 'luthier-feedback[postgresql]'") from None


def place_of(url: URL) -> str:
    """A database's name for messages, without its password."""
    if url.get_backend_name() == "sqlite":
        return str(url.database)
    return url.set(drivername="postgresql").render_as_string(hide_password=True)


class OpenFile(sqlite3.Connection):
    """A connection that notices when its file was removed, or another put in its place.

    A process that has a file open can write to it after it was removed, and nobody will ever read that.
    """

    opened: tuple[Path, tuple[int, int] | None]

    def unmoved(self) -> bool:
        """Whether its file is there, the same, with the write-ahead log beside it."""
        path, identity = self.opened
        return identity is not None and _identity(path) == identity and path.with_name(f"{path.name}-wal").exists()


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


Mode = Literal["create", "write", "read"]
"""Whether a file that is not there is made, whether what is there may be written, or only read."""


def connect(url: URL, *, mode: Mode, timeout: float) -> Engine:
    """An engine whose commits are on the disk before they are told.

    Args:
        url: as `locate` gives it.
        mode: what may be done with it.
        timeout: seconds that a lock is waited for.

    Raises:
        InputError: if there is no file, and none is to be made.
    """
    if url.get_backend_name() == "sqlite":
        return _sqlite(Path(str(url.database)), mode=mode, timeout=timeout)
    milliseconds = int(timeout * 1000)
    options = f"-c synchronous_commit=on -c lock_timeout={milliseconds} -c statement_timeout={12 * milliseconds}"
    options += " -c default_transaction_read_only=on" if mode == "read" else ""
    return create_engine(
        url,
        connect_args={"connect_timeout": max(2, int(timeout)), "options": options},
        pool_pre_ping=True,
        pool_timeout=timeout,
    )


def _sqlite(path: Path, *, mode: Mode, timeout: float) -> Engine:
    if mode == "create":
        _make_room(path)
    elif not path.is_file():
        raise InputError(f"there is no feedback log {path}", f"Name another one, with --log or {VARIABLE}.")

    def open_file() -> OpenFile:
        identity = _identity(path)
        # Not created here: a log that is gone must not become an empty one while a server runs.
        connection = sqlite3.connect(
            f"{path.as_uri()}?mode={'ro' if mode == 'read' else 'rw'}",
            uri=True,
            timeout=timeout,
            isolation_level=None,
            check_same_thread=False,
            factory=OpenFile,
        )
        connection.opened = (path, identity)
        try:
            if mode != "read":
                _settings(connection, path)
        except BaseException:
            connection.close()
            raise
        return connection

    engine = create_engine("sqlite://", creator=open_file, poolclass=QueuePool, pool_timeout=timeout)

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        writes = connection.get_execution_options().get("luthier_writes")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def _make_room(path: Path) -> None:
    """Make the file where there is none; a directory that is made for it is kept out of version control."""
    try:
        # Tried, not looked for first: several may begin one log at once, and only one of them makes its directory.
        try:
            path.parent.mkdir(parents=True)
        except FileExistsError:
            pass
        else:
            # People's words are not to be committed by accident.
            (path.parent / ".gitignore").write_text("*\n", encoding="utf-8")
        path.touch(mode=0o600)
    except OSError as error:
        raise InputError(
            f"cannot make the feedback log {path}: {error.strerror}", f"Name another place, with --log or {VARIABLE}."
        ) from error


def _settings(connection: sqlite3.Connection, path: Path) -> None:
    [mode] = connection.execute("PRAGMA journal_mode=WAL").fetchone()
    if mode != "wal":
        raise InputError(
            f"the file system of {path} cannot hold SQLite's write-ahead log",
            "Keep the feedback log on a local disk, or in PostgreSQL.",
        )
    connection.execute("PRAGMA synchronous=FULL")
    # macOS: fsync alone leaves data in the drive's cache. Elsewhere this does nothing.
    connection.execute("PRAGMA fullfsync=ON")
    # What is deleted is overwritten with zeros.
    connection.execute("PRAGMA secure_delete=ON")


def erase(engine: Engine, place: str, tables: Sequence[str]) -> None:
    """Write the files of a database anew, so that nothing of deleted rows is left in them.

    Raises:
        LogUnavailable: if others read it for longer than the time-out.
    """
    if engine.dialect.name == "postgresql":
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.exec_driver_sql("SET statement_timeout = 0")
            connection.exec_driver_sql(f"VACUUM FULL {', '.join(tables)}")
        return
    raw = engine.raw_connection()
    try:
        driver = raw.driver_connection
        assert isinstance(driver, OpenFile)
        driver.execute("VACUUM")
        # VACUUM writes into the write-ahead log, where the deleted rows are too until it is emptied.
        [busy, *_] = driver.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    finally:
        raw.close()
    if busy:
        raise _unavailable(place, "locked", "the rows are removed, but their bytes are still in its files")


@contextmanager
def errors_in_words(place: str) -> Iterator[None]:
    """Turn what a database refuses into `LogUnavailable`.

    A broken constraint and an error in a statement are bugs of ours, and stay what they are.
    """
    try:
        yield
    except PoolTimeout as error:
        raise _unavailable(place, "locked", "all connections are in use") from error
    except IntegrityError:
        raise
    except DBAPIError as error:
        reason = _reason(error.orig)
        if reason is None:
            raise
        raise _unavailable(place, reason, str(error.orig).strip().partition("\n")[0]) from error
    except sqlite3.Error as error:
        reason = _reason(error)
        if reason is None:
            raise
        raise _unavailable(place, reason, str(error)) from error


def _unavailable(place: str, reason: Reason, detail: str) -> LogUnavailable:
    return LogUnavailable(f"the feedback log {place} is {reason}: {detail}", _REMEDIES[reason], reason)


def check_unmoved(connection: Connection, place: str) -> None:
    """See that what was just committed is where the next process will look for it.

    Raises:
        LogUnavailable: if the file was removed or replaced while it was open.
    """
    driver = connection.connection.driver_connection
    if isinstance(driver, OpenFile) and not driver.unmoved():
        connection.invalidate()
        raise _unavailable(place, "gone", "its file was removed or replaced")


def locked(place: str) -> LogUnavailable:
    """The error that says that other threads of this process kept the log for themselves for too long."""
    return _unavailable(place, "locked", "others write to it")


def _reason(error: Any) -> Reason | None:
    if isinstance(error, sqlite3.Error):
        # A file that is put in the log's place may be a database of something else.
        if "no such table" in str(error):
            return "gone"
        name = getattr(error, "sqlite_errorname", "")
        return next((reason for prefix, reason in _SQLITE.items() if name.startswith(prefix)), None)
    code: str | None = getattr(error, "sqlstate", None)
    if code is not None and code in _POSTGRESQL:
        return _POSTGRESQL[code]
    # Without a code no server answered; of these classes are lost connections, shutdowns and want of resources.
    return "unreachable" if code is None or code.startswith(("08", "57P", "53")) else None
