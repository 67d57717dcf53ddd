"""The log keeps what it acknowledged, in both databases, whatever is in it and whoever else writes to it."""

from __future__ import annotations

import concurrent.futures
import json
from collections import Counter
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from luthier_feedback import (
    Conflict,
    FeedbackError,
    FeedbackLog,
    InvalidFeedback,
    TooLarge,
    UnknownModel,
    UnknownRow,
    post,
)

HOSTILE = "'); DROP TABLE luthier_feedback; -- <script>alert(1)</script> \" \\ %s :x {y} \U0001f9e8"
MODEL = "a" * 64


def test_a_row_comes_back_as_it_was_posted(log, body):
    until = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)
    given_ = body(
        id="a-1",
        model=MODEL,
        champion="summaries",
        run="20261127-1",
        prompt=[{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Capital?"}],
        correction="Paris",
        tags=["geography", "wrong"],
        person="p7",
        consent=True,
        keep_until="2030-01-02T04:04:05+01:00",
    )
    receipt = post(log, given_)
    assert (receipt.status, receipt.revision, receipt.created) == (201, 1, True)
    row = log.get("a-1")
    kept = row.model_dump(mode="json")
    assert {name: kept[name] for name in given_ if name != "keep_until"} == {
        name: value for name, value in given_.items() if name != "keep_until"
    }
    assert row.keep_until == until
    assert (row.state, row.sequence) == ("new", receipt.sequence)
    assert datetime.now(UTC) - timedelta(minutes=5) < row.time <= datetime.now(UTC)


def test_every_field_holds_sql_and_html_as_text(log, body):
    name = HOSTILE[:128]
    fields = {"champion": name, "run": name, "answer": HOSTILE, "correction": HOSTILE, "source": name, "person": name}
    receipt = post(log, body(**fields, prompt=HOSTILE, tags=[name]))
    row = log.get(receipt.id)
    assert {field: getattr(row, field) for field in fields} == fields
    assert (row.prompt[0].content, row.tags) == (HOSTILE, (name,))
    assert [each.id for each in log.rows(source=name, person=name)] == [receipt.id]
    with pytest.raises(InvalidFeedback, match="id"):
        post(log, body(id=HOSTILE))
    with pytest.raises(UnknownRow):
        log.get(HOSTILE)


def test_the_same_id_again_is_the_same_row(log, body):
    first = post(log, body(id="x", person="p"))
    again = post(log, body(id="x", person="p"))
    assert (again.created, again.changed, again.status) == (False, False, 200)
    assert (again.sequence, again.revision) == (first.sequence, 1)
    assert len(list(log.rows())) == 1
    assert log.history("x") == []


def test_a_vote_twice_is_one_vote_and_the_last_counts(log, body):
    first = post(log, body(id="x", vote=1, consent=True))
    log.review("x", "accepted")
    second = post(log, body(id="x", vote=-1, consent=True))
    assert (second.sequence, second.created, second.changed) == (first.sequence, False, True)
    [row] = log.rows()
    assert (row.vote, row.revision) == (-1, 3)
    assert row.state == "new"  # what was accepted was another vote
    assert [(json.loads(line)["vote"], json.loads(line)["state"]) for line in log.history("x")] == [
        (1, "new"),
        (1, "accepted"),
    ]


def test_consent_can_be_taken_back_without_another_review(log, body):
    post(log, body(id="x", consent=True))
    log.review("x", "accepted")
    post(log, body(id="x", consent=False))
    row = log.get("x")
    assert (row.consent, row.state) == (False, "accepted")


@pytest.mark.parametrize("field", ["answer", "prompt", "source", "person", "champion"])
def test_an_id_is_not_given_to_feedback_about_something_else(log, body, field):
    post(log, body(id="x"))
    with pytest.raises(Conflict) as error:
        post(log, body(id="x", **{field: "something else"}))
    assert error.value.status == 409
    assert len(list(log.rows())) == 1


@pytest.mark.parametrize(
    ("bad", "error", "told"),
    [
        (b"{", InvalidFeedback, "Invalid JSON"),
        (b"\xff\xfe", InvalidFeedback, "Invalid JSON"),
        (b'{"prompt": "\\ud800", "answer": "a", "vote": 1}', InvalidFeedback, "Invalid JSON"),
        (b"1", InvalidFeedback, "an object"),
        (b"[]", InvalidFeedback, "List should have at least 1 item"),
        (b"[[]]", InvalidFeedback, r"\[0\]: Input should be an object"),
        (b"[" + b",".join([b"{}"] * 21) + b"]", TooLarge, "List should have at most 20 items"),
        (b"[" * 5000, InvalidFeedback, "JSON"),
        ({"vote": 0}, InvalidFeedback, "vote: Input should be -1 or 1"),
        ({"vote": True}, InvalidFeedback, "vote"),
        ({"vote": None}, InvalidFeedback, "neither a vote, nor a correction, nor a tag"),
        ({"prompt": []}, InvalidFeedback, "prompt"),
        ({"prompt": [{"role": "robot", "content": "x"}]}, InvalidFeedback, r"prompt\[0\].role"),
        ({"answer": None}, InvalidFeedback, "answer"),
        ({"answer": "a\0b"}, InvalidFeedback, "NUL"),
        ({"model": "smollm"}, InvalidFeedback, "model"),
        ({"keep_until": "2030-01-01T00:00:00"}, InvalidFeedback, "keep_until.*timezone"),
        ({"consent": "yes"}, InvalidFeedback, "consent"),
        ({"votes": 1}, InvalidFeedback, "votes: Extra inputs"),
        ({"x" * 100_000: 1}, InvalidFeedback, "x{10,40}…: Extra inputs"),
        ({"tags": ["t"] * 21}, TooLarge, "tags"),
        ({"source": "s" * 129}, TooLarge, "source"),
        ({"correction": "c" * 10_000_000}, TooLarge, "10,000,[0-9]+ bytes; the limit is 1,048,576"),
        ({"correction": "c" * 100_001}, TooLarge, "correction"),
    ],
    ids=lambda value: str(value)[:40] if isinstance(value, dict | bytes) else "",
)
def test_bad_feedback_is_refused_in_words_and_never_repeated(tmp_path, body, bad, error, told):
    with FeedbackLog(tmp_path / "f.db") as log:
        with pytest.raises(error, match=told) as caught:
            post(log, bad if isinstance(bad, bytes) else body(**bad))
        answer = caught.value.to_json()["error"]
        assert (answer["code"], answer["type"]) == (caught.value.code, "invalid_request_error")
        assert len(answer["message"]) < 1000
        assert list(log.rows()) == []


def test_a_body_that_is_no_json_value_is_refused(tmp_path, body):
    with FeedbackLog(tmp_path / "f.db") as log, pytest.raises(InvalidFeedback):
        post(log, body(answer={1, 2}))


def test_an_unknown_model_is_refused_where_the_server_knows_its_own(log, body):
    with pytest.raises(UnknownModel) as error:
        post(log, body(model="b" * 64), knows={MODEL}.__contains__)
    assert error.value.status == 404
    post(log, body(id="known", model=MODEL), knows={MODEL}.__contains__)
    post(log, body(id="unknown"), knows={MODEL}.__contains__)
    post(log, body(id="elsewhere", model="b" * 64))
    assert [row.id for row in log.rows()] == ["known", "unknown", "elsewhere"]
    assert [row.id for row in log.rows(model=MODEL)] == ["known"]


def test_retention_is_for_what_names_none_and_stays_when_it_is_sent_again(log, body):
    post(log, body(id="x"), retention=timedelta(days=30))
    row = log.get("x")
    assert row.keep_until == row.time + timedelta(days=30)
    again = post(log, body(id="x"), retention=timedelta(days=60))
    assert not again.changed
    assert log.get("x").keep_until == row.keep_until
    post(log, body(id="y", keep_until="2031-01-01T00:00:00Z"), retention=timedelta(days=30))
    assert log.get("y").keep_until == datetime(2031, 1, 1, tzinfo=UTC)


def test_an_edit_is_the_reviewers_correction(log, body):
    post(log, body(id="x", correction="Pariss"))
    assert log.review("x", "edited", correction="Paris").correction == "Paris"
    assert [row.id for row in log.rows(state="edited")] == ["x"]
    with pytest.raises(ValueError, match="edited"):
        log.review("x", "accepted", correction="Rome")
    with pytest.raises(TooLarge):
        log.review("x", "edited", correction="c" * 100_001)
    with pytest.raises(InvalidFeedback, match="NUL"):
        log.review("x", "edited", correction="\0")
    with pytest.raises(UnknownRow):
        log.review("y", "accepted")
    with pytest.raises(Conflict, match="it has the revision 2, not 1"):
        log.review("x", "rejected", revision=1)
    assert log.review("x", "rejected", revision=2).revision == 3


def test_the_newest_rows_are_read_page_by_page(log, body):
    for name in "abc":
        post(log, body(id=name))
    first, second = log.rows(newest=2)
    assert (first.id, second.id) == ("c", "b")
    assert [row.id for row in log.rows(newest=2, before=second.sequence)] == ["a"]
    assert [row.id for row in log.rows(before=second.sequence)] == ["a"]


def test_the_same_sent_again_does_not_undo_an_edit_and_something_else_does(log, body):
    posted = body(id="x", correction="Pariss", consent=True)
    post(log, posted)
    log.review("x", "edited", correction="Pari")
    log.review("x", "edited", correction="Paris")
    assert not post(log, posted).changed
    assert (log.get("x").correction, log.get("x").state) == ("Paris", "edited")
    assert post(log, posted | {"consent": False}).changed
    assert (log.get("x").correction, log.get("x").state) == ("Paris", "edited")
    assert post(log, posted | {"correction": "Rome"}).changed
    assert (log.get("x").correction, log.get("x").state) == ("Rome", "new")


def test_the_largest_row_can_be_exported_and_imported(tmp_path, body):
    from luthier_feedback.rows import MAX_BYTES, read_kept

    turns = [{"role": "user", "content": "x" * 100_000}] * 10
    room = MAX_BYTES - len(json.dumps(body(prompt=turns, answer="")))
    with FeedbackLog(tmp_path / "f.db") as log:
        receipt = post(log, body(prompt=turns, answer="y" * room))
        row = log.get(receipt.id)
        assert len(row.to_line()) > MAX_BYTES
        assert read_kept(row.to_line().encode()).digest == row.digest
        with pytest.raises(TooLarge):
            post(log, body(prompt=turns, answer="y" * (room + 1)))


def test_a_clock_that_is_set_back_does_not_change_the_order(log, body, monkeypatch):
    from luthier_feedback import rows

    class Clock(datetime):
        hour_of_day = 12

        @classmethod
        def now(cls, tz=None):
            cls.hour_of_day -= 1
            return datetime(2026, 11, 27, cls.hour_of_day, tzinfo=tz)

    monkeypatch.setattr("luthier_feedback.records.datetime", Clock)
    for number in range(5):
        post(log, body(id=f"r{number}"))
    found = list(log.rows())
    assert [row.id for row in found] == [f"r{number}" for number in range(5)]
    assert all(early.time > late.time for early, late in pairwise(found))
    assert all(early.sequence < late.sequence for early, late in pairwise(found))
    assert rows.datetime is datetime


def test_all_of_several_or_none(log, body):
    from luthier_feedback.rows import Feedback

    taken = Feedback.model_validate(body(id="x"))
    log.add(taken)
    with pytest.raises(Conflict):
        log.add_all([Feedback.model_validate(body(id="y")), Feedback.model_validate(body(id="x", answer="Nice"))])
    assert [row.id for row in log.rows()] == ["x"]


def test_eight_writers_and_a_reader_lose_and_double_nothing(where, body):
    """Four threads on each of two logs, which are two processes as far as the database is concerned."""
    with FeedbackLog(where) as one, FeedbackLog(where) as other:

        def write(writer: int) -> list[str]:
            log = (one, other)[writer % 2]
            ids = [f"w{writer}-{number}" for number in range(15)]
            # Each also sends one that all of them send.
            return [post(log, body(id=each)).id for each in [*ids, "shared"]]

        with concurrent.futures.ThreadPoolExecutor(9) as pool:
            writing = [pool.submit(write, writer) for writer in range(8)]
            reading = pool.submit(lambda: [len(list(one.rows())) for _ in range(5)])
            acknowledged = {row for each in writing for row in each.result()}
            assert reading.result() == sorted(reading.result())
        counts = Counter(row.id for row in one.rows())
    assert set(counts) == acknowledged
    assert set(counts.values()) == {1}
    assert len(acknowledged) == 8 * 15 + 1


def test_rows_are_read_page_by_page(tmp_path, body, monkeypatch):
    monkeypatch.setattr("luthier_feedback.log.PAGE", 3)
    with FeedbackLog(tmp_path / "f.db") as log:
        for number in range(7):
            post(log, body(id=str(number)))
        seen = []
        for row in log.rows():
            seen.append(row.id)
            if row.id == "2":
                post(log, body(id="late"))
        assert seen == [*map(str, range(7)), "late"]


TEXTS = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=60)
NAMES = TEXTS.filter(bool)
POSTED = st.fixed_dictionaries(
    {"prompt": TEXTS, "answer": TEXTS, "vote": st.sampled_from([-1, 1])},
    optional={
        "correction": TEXTS,
        "tags": st.lists(NAMES, max_size=3),
        "source": NAMES,
        "person": NAMES,
        "consent": st.booleans(),
        "model": st.text("0123456789abcdef", min_size=64, max_size=64),
        "keep_until": st.datetimes(min_value=datetime(1970, 1, 2), max_value=datetime(9998, 1, 1)).map(
            lambda time: time.isoformat() + "+02:00"
        ),
    },
)


@given(POSTED)
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_posted_is_what_is_read(log, posted):
    from luthier_feedback.rows import read_feedback

    receipt = post(log, posted)
    expected = read_feedback(json.dumps({**posted, "id": receipt.id}).encode())
    row = log.get(receipt.id)
    assert {name: getattr(row, name) for name in type(expected).model_fields} == expected.__dict__


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
@settings(max_examples=100, deadline=None)
def test_no_bytes_do_more_than_be_refused(noise):
    from luthier_feedback.rows import read_feedback

    with pytest.raises(FeedbackError):
        read_feedback(noise)
