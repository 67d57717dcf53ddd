"""`luthier feedback`, as a user calls it."""

from __future__ import annotations

import gzip
import json
import re
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

import luthier
from luthier import InputError
from luthier_feedback import Feedback, FeedbackLog, Kept, LogUnavailable, post
from luthier_feedback.commands import app
from luthier_feedback.transfer import export_rows, import_rows

HOSTILE = "\x1b]0;owned\x07\x1b[2J<b>'; DROP TABLE x"


@pytest.fixture
def call(where, monkeypatch, tmp_path):
    """Call a command on the log of the test; its working directory is the test's."""
    monkeypatch.setenv("LUTHIER_FEEDBACK", where)
    monkeypatch.setenv("LUTHIER_HOME", str(tmp_path / "store"))
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object, input: str | None = None, fails: int = 0):
        result = CliRunner().invoke(app, [str(each) for each in arguments], input=input)
        if fails != result.exit_code:
            raise AssertionError(result.output) from result.exception
        return result

    return run


def test_rows_are_listed_and_counted_and_terminals_are_safe(log, body, call):
    post(log, body(id="a", source="web", consent=True))
    post(log, body(id="b", answer=HOSTILE, correction=HOSTILE, vote=1))
    told = call("list").output
    assert told.index("\nb ") < told.index("\na ")  # the newest first
    assert "\x1b" not in told
    assert "\x07" not in told
    assert [row["id"] for row in json.loads(call("list", "--source", "web", "--json").output)] == ["a"]
    assert json.loads(call("list", "--limit", 1, "--json").output)[0]["answer"] == HOSTILE
    counts = json.loads(call("stats", "--json").output)
    assert counts["total"] == {"rows": 2, "corrections": 1, "may be learnt from": 1}
    assert counts["vote"] == {"-1": 1, "1": 1}
    assert counts["model"]["none"] == 2
    assert re.search(r"^source +web +1$", call("stats").output, re.MULTILINE)


def test_a_reviewer_goes_through_what_is_new(log, body, call):
    for number in range(6):
        post(log, body(id=f"r{number}", answer=HOSTILE))
    log.review("r5", "accepted")
    told = call("review", input="x\na\nr\ne\nParis\ns\nq\n").output
    assert "\x1b" not in told
    assert [row.state for row in log.rows()] == ["accepted", "rejected", "edited", "new", "new", "accepted"]
    assert log.get("r2").correction == "Paris"
    assert "accepted: 1, rejected: 1, edited: 1, skipped: 1" in told


def test_rows_are_reviewed_without_a_terminal(log, body, call):
    for number in range(4):
        post(log, body(id=f"r{number}", source="flood" if number < 3 else "web"))
    assert "rejected: 3" in call("review", "--source", "flood", "--reject").output
    call("review", "r3", "--edit", "Paris")
    call("review", "r0", "--accept")
    assert [row.state for row in log.rows()] == ["accepted", "rejected", "rejected", "edited"]
    assert isinstance(call("review", "--edit", "x", fails=1).exception, InputError)
    assert isinstance(call("review", "r0", "--accept", "--reject", fails=1).exception, InputError)
    assert isinstance(call("review", "nobody", "--accept", fails=1).exception, InputError)
    post(log, body(id="new"))
    unasked = call("review", fails=1).exception
    assert isinstance(unasked, InputError)
    assert "--accept or --reject" in unasked.remedy


def test_an_export_is_imported_as_it_was(log, body, call, tmp_path):
    post(log, body(id="a", person="p", tags=["x"], keep_until="2030-01-01T00:00:00Z"))
    post(log, body(id="b", correction="Paris\nTexas", consent=True))
    log.review("b", "accepted")
    call("export", "rows.jsonl")
    assert (tmp_path / "rows.jsonl").read_text() == call("export").output
    other = tmp_path / "other.db"
    assert "added 2" in call("import", "rows.jsonl", "--log", other).output
    assert call("export", "--log", other).output == call("export").output
    assert "added 0, changed 0, known 2" in call("import", "rows.jsonl", "--log", other).output
    assert not Path("rows.jsonl.bad.jsonl").exists()


def test_bad_lines_are_told_and_set_aside_and_the_others_are_kept(log, body, call, tmp_path):
    post(log, body(id="taken"))
    good = [json.dumps(body(id=f"r{number}")) for number in range(3)]
    long = json.dumps(body(correction="c" * 2_000_000))
    lines = [good[0], "{not json", good[1], json.dumps(body(id="taken", answer="else")), "", long, good[2], '{"x": 1}']
    with gzip.open(tmp_path / "rows.jsonl.gz", "wt") as file:
        file.write("\n".join(lines))
    result = call("import", "rows.jsonl.gz", "--quarantine", "bad.jsonl", fails=1)
    for where in ("rows.jsonl.gz:2: ", "rows.jsonl.gz:4: ", "rows.jsonl.gz:6: ", "rows.jsonl.gz:8: "):
        assert where in result.output
    assert "added 3" in result.output
    assert [row.id for row in log.rows()] == ["taken", "r0", "r1", "r2"]
    aside = [json.loads(line) for line in (tmp_path / "bad.jsonl").read_text().splitlines()]
    assert {each["where"]: each["record"][:9] for each in aside}["rows.jsonl.gz:2"] == "{not json"
    assert isinstance(call("import", "nothing.jsonl", fails=1).exception, InputError)


def test_lines_without_ids_are_rows_of_their_own_once(log, body, call, tmp_path):
    line = json.dumps({name: value for name, value in body().items() if name != "id"})
    (tmp_path / "rows.jsonl").write_text(f"{line}\n{line}\n")
    assert "added 2, changed 0, known 0" in call("import", "rows.jsonl").output
    assert "added 0, changed 0, known 2" in call("import", "rows.jsonl").output


def test_a_line_without_a_state_leaves_what_a_reviewer_said(log, body, call, tmp_path):
    post(log, body(id="a"))
    log.review("a", "accepted")
    (tmp_path / "rows.jsonl").write_text(json.dumps(body(id="a")))
    assert "known 1" in call("import", "rows.jsonl").output
    assert log.get("a").state == "accepted"


def files_of(log: FeedbackLog) -> bytes:
    path = Path(log.place)
    return b"".join(each.read_bytes() for each in path.parent.glob(f"{path.name}*"))


def test_a_persons_rows_and_their_history_are_removed(log, body, call):
    for person in ("alice", "bob"):
        post(log, body(id=person, person=person, vote=1))
        post(log, body(id=person, person=person, vote=-1))
    assert "removed 1 rows" in call("purge", "--person", "alice", "--yes").output
    assert [row.id for row in log.rows()] == ["bob"]
    assert (len(log.history("alice")), len(log.history("bob"))) == (0, 1)
    assert post(log, body(id="alice", person="alice")).sequence > 2  # no number is given twice


@pytest.mark.parametrize("where", ["sqlite"], indirect=True)
def test_a_person_is_removed_to_the_last_byte_and_the_runs_that_saw_them_are_named(log, body, call):
    secret = "the moon is made of green cheese"
    said = [{"prompt": f"{number}?", "consent": True} for number in range(60)]
    log.add_all(
        Feedback.model_validate(body(**each, correction=f"{whose} {number}", person=person, id=f"{person[0]}{number}"))
        for person, whose in (("alice", secret), ("bob", "no"))
        for number, each in enumerate(said)
    )
    post(log, body(prompt="0?", correction=f"once {secret}", consent=True, person="alice", id="a0"))  # history
    recipe = luthier.Recipe("learnt").step("source", "feedback", max_daily_per_person=100)
    run = luthier.run(recipe, display=False)
    assert "would remove 60 rows" in call("purge", "--person", "alice", "--dry-run").output
    assert len(list(log.rows())) == 120
    assert secret.encode() in files_of(log)
    told = json.loads(call("purge", "--person", "alice", "--yes", "--json").output)
    assert sorted(told["rows"]) == sorted(f"a{number}" for number in range(60))
    [seen] = told["runs"]
    assert (seen["run"], seen["recipe"], seen["models"]) == (run.id, "learnt", [])
    table = run.report("feedback").table("feedback")
    alice = table.filter(table["row"].str.starts_with("a"))
    assert seen["trained_on"] == (alice["use"] == "train").sum() > 0
    assert seen["held_out"] == (alice["use"] == "held-out").sum() > 0
    assert {row.person for row in log.rows()} == {"bob"}
    assert log.history("a0") == []
    assert secret.encode() not in files_of(log)
    assert "removed 0 rows" in call("purge", "--person", "alice", "--yes").output


def test_what_is_past_its_retention_is_purged_and_nothing_without_a_word(log, body, call):
    post(log, body(id="old", keep_until="2020-01-01T00:00:00Z"))
    post(log, body(id="young", keep_until="2099-01-01T00:00:00Z"))
    post(log, body(id="ever"))
    assert "nothing was changed" in call("purge", "--expired", input="n\n", fails=1).stderr
    unasked = call("purge", "--expired", fails=1).exception
    assert isinstance(unasked, InputError)
    assert "--yes" in unasked.remedy
    assert len(list(log.rows())) == 3
    told = call("purge", "--expired", input="y\n").output
    assert "removed 1 rows" in told
    assert "no run saw them" in told
    assert [row.id for row in log.rows()] == ["young", "ever"]
    assert isinstance(call("purge", fails=1).exception, InputError)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT to send to one process")
def test_ctrl_c_ends_a_question_at_once(tmp_path, body):
    # Python leaves a SIGINT ignored that its parent ignores.
    code = (
        "import signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\nfrom luthier.cli import main\nmain()"
    )
    with FeedbackLog(tmp_path / "f.db") as log:
        post(log, body(person="alice"))
        command = [sys.executable, "-c", code, "feedback", "purge", "--person", "alice", "--log", log.place]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        ) as asks:
            assert asks.stderr is not None
            while asks.stderr.read(1) != b"]":
                assert asks.poll() is None
            time.sleep(0.2)  # From the question's last character to the reading of the answer.
            asks.send_signal(signal.SIGINT)
            assert asks.wait(timeout=60) == 130  # Its input does not end.
            assert b"interrupted" in asks.stderr.read()
        assert [row.person for row in log.rows()] == ["alice"]


def test_a_purge_beside_a_reader_says_that_bytes_are_left(tmp_path, body):
    path = tmp_path / "f.db"
    with FeedbackLog(path, timeout=0.2) as log:
        post(log, body(person="alice"))
        reader = sqlite3.connect(path, isolation_level=None)
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM luthier_feedback").fetchone()
        with pytest.raises(LogUnavailable, match="locked"):
            log.purge(person="alice")
        reader.execute("COMMIT")
        reader.close()
        assert log.purge(person="alice") == []
        assert b"Lyon" not in files_of(log)


def test_looking_at_a_log_that_is_not_there_makes_none(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["list"])
    assert isinstance(result.exception, InputError)
    assert "no feedback log" in str(result.exception)
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_is_made_for_a_log_is_not_committed(tmp_path, monkeypatch, body):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LUTHIER_FEEDBACK", raising=False)
    with FeedbackLog() as log:
        post(log, body())
    assert (tmp_path / "feedback" / "feedback.db").exists()
    assert (tmp_path / "feedback" / ".gitignore").read_text() == "*\n"


TEXTS = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=40)
KEPT = st.fixed_dictionaries(
    {
        "prompt": TEXTS,
        "answer": TEXTS,
        "vote": st.sampled_from([-1, 1]),
        "correction": TEXTS | st.none(),
        "tags": st.lists(TEXTS.filter(bool), max_size=2).map(tuple),
        "person": TEXTS.filter(bool) | st.none(),
        "consent": st.booleans(),
        "state": st.sampled_from(["new", "accepted", "rejected"]),
    }
)


@given(st.lists(KEPT, max_size=6))
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_row_survives_export_and_import(tmp_path_factory, rows):
    directory = tmp_path_factory.mktemp("round")
    file = directory / "rows.jsonl"
    exported = []
    for name in ("one.db", "two.db"):
        with FeedbackLog(directory / name) as log:
            if name == "one.db":
                log.add_all(Kept.model_validate(row) for row in rows)
            else:
                [total] = import_rows(log, file)
                assert total.added == len(rows)
            exported.append("".join(export_rows(log.rows())))
            file.write_text(exported[-1], encoding="utf-8", newline="\n")
    assert exported[0] == exported[1]
