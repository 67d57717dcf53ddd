"""`/v1/feedback`: kept where it can be, refused where it must be, and the server stays up."""

from __future__ import annotations

import sqlite3

import pytest

pytest.importorskip("luthier_feedback")


def test_feedback_is_kept_about_models_that_were_served(start, tmp_path):
    place = tmp_path / "feedback.db"
    server = start("--feedback", str(place))
    answer = server.chat("count 2")
    row = {"prompt": "count 2", "answer": "0 1 ", "model": answer.system_fingerprint, "vote": 1}
    kept = server.http.post("/v1/feedback", json=row)
    assert kept.status_code == 201, kept.text
    with sqlite3.connect(place) as database:
        assert any(table for (table,) in database.execute("select name from sqlite_master where type = 'table'"))
    unknown = server.http.post("/v1/feedback", json={**row, "model": "0" * 64})
    assert (unknown.status_code, "is not known here" in unknown.text) == (404, True)
    for wrong in (b"{", b"[]", b'{"vote": "perhaps"}'):
        assert server.http.post("/v1/feedback", content=wrong).status_code == 422
    assert server.http.post("/v1/feedback", json=row, headers={"authorization": "Bearer no"}).status_code == 401
    assert server.http.get("/healthz").status_code == 200


def test_a_list_of_feedback_is_kept_whole_or_not_at_all(start, tmp_path):
    server = start("--feedback", str(tmp_path / "feedback.db"))

    def both(*ids, **last):
        rows = [{"id": each, "prompt": "p", "answer": each, "vote": 1, "comparison": "c"} for each in ids]
        rows[-1] |= last
        return server.http.post("/v1/feedback", json=rows)

    def kept():
        return sorted(row["id"] for row in server.http.get("/v1/feedback").json()["data"])

    first = both("a", "b")
    assert (first.status_code, [each["id"] for each in first.json()["data"]]) == (201, ["a", "b"])
    again = both("a", "b")
    assert (again.status_code, [each["changed"] for each in again.json()["data"]]) == (200, [False, False])
    # Whatever is wrong with the last one, nothing is kept of those before it.
    for status, wrong in (
        (409, {"id": "a"}), (404, {"model": "0" * 64}), (422, {"vote": 2}), (413, {"answer": "x" * 200_000}),
    ):  # fmt: skip
        assert both("c", "d", **wrong).status_code == status
    assert both(*map(str, range(21))).status_code == 413
    assert server.http.post("/v1/feedback", json=[]).status_code == 422
    assert kept() == ["a", "b"]


def test_feedback_is_listed_and_reviewed(start, tmp_path):
    server = start("--feedback", str(tmp_path / "feedback.db"))
    for name in "abc":
        row = {"id": name, "prompt": "p", "answer": name, "vote": 1}
        assert server.http.post("/v1/feedback", json=row).status_code == 201

    def listed(**query):
        page = server.http.get("/v1/feedback", params=query).json()
        return [row["id"] for row in page["data"]], page["has_more"]

    def review(id, **said):
        return server.http.post(f"/v1/feedback/{id}/review", json=said)

    assert listed(limit=2) == (["c", "b"], True)
    assert listed(limit=2, before=2) == (["a"], False)
    assert review("c", state="edited", correction="see", revision=1).json()["correction"] == "see"
    assert review("a", state="rejected").json()["state"] == "rejected"
    assert (listed(state="edited"), listed(state="new")) == ((["c"], False), (["b"], False))
    assert server.http.get("/v1/feedback/counts").json()["state"] == {"edited": 1, "new": 1, "rejected": 1}
    late = review("c", state="accepted", revision=1)
    assert (late.status_code, "was changed meanwhile" in late.text) == (409, True)
    assert review("absent", state="accepted").status_code == 404
    assert review("b", state="edited", correction="x" * 200_000).status_code == 413
    for wrong in ({"state": "perhaps"}, {"state": "edited"}, {"state": "new", "correction": "x"}, {"revision": 1}):
        assert review("b", **wrong).status_code == 400
    for query in ({"limit": 0}, {"limit": 51}, {"before": 0}, {"before": 2**63}, {"state": "'; DROP TABLE"}):
        assert server.http.get("/v1/feedback", params=query).status_code == 400
    assert listed(state="new") == (["b"], False)
    for method, path in (("GET", ""), ("GET", "/counts"), ("POST", "/b/review")):
        answer = server.http.request(method, f"/v1/feedback{path}", headers={"authorization": "Bearer no"})
        assert answer.status_code == 401


def test_a_log_that_cannot_be_used_is_told_and_the_server_stays(start, tmp_path):
    (tmp_path / "file").write_text("no directory")
    server = start("--feedback", str(tmp_path / "file" / "feedback.db"))
    assert server.log.count("cannot make the feedback log") == 1  # told when it starts
    refused = server.http.post("/v1/feedback", json={"prompt": "a", "answer": "b", "vote": 1})
    assert (refused.status_code, refused.json()["error"]["type"]) == (503, "server_error")
    assert server.http.get("/v1/feedback").status_code == server.http.get("/v1/feedback/counts").status_code == 503
    assert server.chat("count 1").choices[0].message.content == "0 "
    assert server.log.count("cannot make the feedback log") == 4


def test_a_server_may_take_none(server, start):
    assert start("--feedback", "none").http.post("/v1/feedback", json={}).status_code == 404
