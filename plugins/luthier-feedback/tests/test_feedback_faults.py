"""What was acknowledged survives; what fails is an error in words, and the log goes on once it can."""

from __future__ import annotations

import concurrent.futures
import random
import shutil
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from luthier import InputError
from luthier_feedback import FeedbackLog, LogUnavailable, post

WRITER = Path(__file__).with_name("writer.py")


def killed_writer(where: str, name: str, seconds: float) -> list[str]:
    """The ids that a writer acknowledged before it was killed with SIGKILL, so long after its first."""
    with subprocess.Popen([sys.executable, str(WRITER), where, name], stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        first = writer.stdout.readline()
        time.sleep(seconds)
        writer.kill()
        told = first + writer.stdout.read()
    ids = told.decode().splitlines()
    assert ids
    return ids


def kill_under_load(where: str, times: int) -> None:
    """No row that was acknowledged is lost or doubled, and what is sent again makes no second row."""
    chance = random.Random(7)
    acknowledged: list[str] = []
    with FeedbackLog(where) as reader:
        for number in range(times):
            acknowledged += killed_writer(where, f"k{number}", chance.uniform(0, 0.3))
            kept = [row.id for row in reader.rows()]
            assert len(kept) == len(set(kept))
            assert set(acknowledged) <= set(kept)
            # At most what the four threads were at was kept and not told.
            assert len(kept) <= len(acknowledged) + 4 * (number + 1)
        for row in acknowledged[-5:]:
            assert not post(reader, {"id": row, "prompt": row, "answer": row * 20, "vote": 1}).created
        if Path(where).exists():
            with sqlite3.connect(where) as connection:
                assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_no_acknowledged_row_is_lost_by_a_kill(tmp_path):
    kill_under_load(str(tmp_path / "feedback.db"), 3)


@pytest.mark.slow
def test_no_acknowledged_row_is_lost_by_fifty_kills(where):
    kill_under_load(where, 50)


def refused(log: FeedbackLog, body: dict) -> LogUnavailable:
    """The error that the log refuses a row with, which a server answers as a 503."""
    with pytest.raises(LogUnavailable) as error:
        post(log, body)
    assert error.value.status == 503
    assert error.value.to_json()["error"]["type"] == "server_error"
    return error.value


def test_a_log_that_another_process_locks_is_an_error_until_it_is_free(tmp_path, body):
    path = tmp_path / "f.db"
    with FeedbackLog(path, timeout=0.1) as log:
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        assert refused(log, body(id="x")).reason == "locked"
        assert list(log.rows()) == []  # reading goes on
        other.execute("ROLLBACK")
        other.close()
        assert post(log, body(id="x")).created


def test_a_table_that_another_session_locks_is_an_error_until_it_is_free(database, body):
    import psycopg

    with FeedbackLog(database, timeout=0.2) as log:
        with psycopg.connect(database) as other:
            other.execute("LOCK TABLE luthier_feedback")
            assert refused(log, body(id="x")).reason == "locked"
        assert post(log, body(id="x")).created


def test_connections_that_the_server_ends_are_made_again(database, body):
    import psycopg

    with FeedbackLog(database, timeout=2) as log:
        post(log, body(id="x"))
        with psycopg.connect(database, autocommit=True) as other:
            other.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
        assert not post(log, body(id="x")).created
        with psycopg.connect(database, autocommit=True) as other:
            other.execute("DROP TABLE luthier_feedback")
        assert refused(log, body()).reason == "gone"


def test_a_server_that_is_not_there_is_an_error_without_its_password(postgresql):
    del postgresql  # its driver is installed
    with pytest.raises(LogUnavailable) as error:
        FeedbackLog("postgresql://luthier:secret@/x?host=/nowhere", timeout=1)
    assert error.value.reason == "unreachable"
    assert "secret" not in str(error.value)


FULL = """
import resource, sys
from luthier_feedback import FeedbackLog, LogUnavailable, post

log = FeedbackLog(sys.argv[1])
row = {"prompt": "p", "answer": "a" * 50_000, "vote": 1}
kept = [post(log, row).id]
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, hard))
try:
    while len(kept) < 1000:
        kept.append(post(log, row).id)
except LogUnavailable as error:
    print(error.reason, error.status)
assert 1 < len(kept) < 1000
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
kept.append(post(log, row).id)
assert [row.id for row in log.rows()] == kept
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit on the size of files")
def test_a_disk_without_room_is_an_error_and_the_log_goes_on_once_there_is(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path / "f.db")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() in ("full 503", "failing 503")


def test_a_file_that_is_gone_is_an_error_and_not_a_new_log(tmp_path, body):
    path = tmp_path / "f.db"
    with FeedbackLog(path) as log:
        post(log, body(id="x"))
        log.close()
        shutil.move(path, tmp_path / "kept.db")
        for _ in range(2):
            assert refused(log, body(id="y")).reason == "gone"
        assert not path.exists()
        shutil.move(tmp_path / "kept.db", path)
        post(log, body(id="y"))
        assert [row.id for row in log.rows()] == ["x", "y"]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows lets nobody remove a file that is open")
def test_a_file_that_is_removed_while_it_is_open_takes_no_more_rows(tmp_path, body):
    path = tmp_path / "f.db"
    with FeedbackLog(path) as log:
        post(log, body(id="x"))
        path.unlink()
        assert refused(log, body(id="y")).reason == "gone"
    with FeedbackLog(path) as log, FeedbackLog(tmp_path / "other.db") as other:
        post(other, body(id="o"))
        (tmp_path / "other.db").replace(path)
        assert refused(log, body(id="y")).reason == "gone"


def test_a_file_that_is_no_log_is_an_error(tmp_path, body):
    path = tmp_path / "f.db"
    path.write_bytes(b"people's words, in a file of another kind " * 100)
    with pytest.raises(LogUnavailable) as error:
        FeedbackLog(path)
    assert error.value.reason == "damaged"
    assert path.read_bytes().startswith(b"people's words")
    with sqlite3.connect(tmp_path / "else.db") as connection:
        connection.execute("CREATE TABLE other (x)")
    with pytest.raises(InputError, match="there is no feedback in"):
        FeedbackLog(tmp_path / "else.db", mode="read")


def test_a_log_of_a_newer_version_is_refused(log, where):
    import sqlalchemy

    from luthier_feedback.database import locate

    engine = sqlalchemy.create_engine(locate(where))
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE luthier_feedback_meta SET value = '99' WHERE key = 'version'")
    engine.dispose()
    with pytest.raises(InputError, match="has version 99"):
        FeedbackLog(where)


@pytest.mark.parametrize("mode", ["create", "write", "read"])
def test_a_log_of_the_first_version_is_brought_up(log, where, body, mode):
    import sqlalchemy

    from luthier_feedback.database import locate

    post(log, body(id="x"))
    engine = sqlalchemy.create_engine(locate(where))
    names = {"luthier_feedback_person", "luthier_feedback_state"}
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE luthier_feedback_meta SET value = '1' WHERE key = 'version'")
        for name in names:
            connection.exec_driver_sql(f"DROP INDEX {name}")
        connection.exec_driver_sql("ALTER TABLE luthier_feedback DROP COLUMN comparison")
    with FeedbackLog(where, mode=mode) as opened:
        assert [(row.id, row.comparison) for row in opened.rows()] == [("x", None)]
    with engine.begin() as connection:
        assert names <= {index["name"] for index in sqlalchemy.inspect(connection).get_indexes("luthier_feedback")}
        found = connection.exec_driver_sql("SELECT value FROM luthier_feedback_meta WHERE key = 'version'")
        assert found.scalar_one() == "3"
    engine.dispose()


def test_a_log_that_several_begin_at_once_is_one_log(where, body):
    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        logs = list(pool.map(lambda _: FeedbackLog(where), range(6)))
    for number, log in enumerate(logs):
        post(log, body(id=str(number)))
    assert [row.id for row in logs[0].rows()] == [str(number) for number in range(6)]
    for log in logs:
        log.close()


@pytest.mark.parametrize(
    ("where", "told"),
    [("mysql://x/y", "no mysql database"), ("sqlite://", "no sqlite database"), ("://", "cannot be read")],
)
def test_other_databases_are_refused(where, told):
    with pytest.raises(InputError, match=told):
        FeedbackLog(where)
