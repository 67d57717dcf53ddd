"""The client against a server that answers, refuses, fails, and loses its answers."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from luthier import InputError
from luthier_feedback import (
    Client,
    Conflict,
    FeedbackError,
    FeedbackLog,
    InvalidFeedback,
    LogUnavailable,
    TooLarge,
    UnknownModel,
    post,
)


class Server(ThreadingHTTPServer):
    """`POST /v1/feedback` on a log, with a fault for each of the first requests: a status, or `lost`."""

    def __init__(self, log: FeedbackLog) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.log = log
        self.faults: list[int | str] = []
        self.requests = 0
        self.answer: bytes | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        self.server.requests += 1
        body = self.rfile.read(int(self.headers["Content-Length"]))
        fault = self.server.faults.pop(0) if self.server.faults else None
        if self.headers["Authorization"] != "Bearer token":
            return self._answer(401, {"error": {"message": "no token"}})
        if self.path != "/v1/feedback" or isinstance(fault, int):
            return self._answer(fault or 404, {"error": {"message": "not now"}}, {"Retry-After": "0.01"})
        try:
            receipt = post(self.server.log, body, knows={"a" * 64}.__contains__)
        except FeedbackError as error:
            return self._answer(error.status, error.to_json())
        if fault == "lost":
            return None  # the row is kept, and nobody hears of it
        return self._answer(receipt.status, receipt.to_json())

    def _answer(self, status: int, told: object, headers: dict[str, str] = {}) -> None:  # noqa: B006
        text = self.server.answer or json.dumps(told).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if 300 <= status < 400:
            self.send_header("Location", f"{self.server.url}/elsewhere")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: object) -> None:
        """Print nothing."""


@pytest.fixture
def server(tmp_path):
    with FeedbackLog(tmp_path / "f.db") as log, Server(log) as serving:
        thread = threading.Thread(target=serving.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield serving
        serving.shutdown()
        thread.join()


@pytest.fixture
def client(server):
    return Client(server.url, token="token", source="tests", timeout=5)


def test_feedback_arrives(server, client):
    receipt = client.send("Capital?", "Lyon", vote=-1, correction="Paris", tags=["x"], person="p", consent=True)
    assert receipt.created
    row = server.log.get(receipt.id)
    assert (row.prompt[0].content, row.correction, row.source, row.person) == ("Capital?", "Paris", "tests", "p")
    again = Client(f"{server.url}/v1/", token="token", source="tests").send(
        "Capital?", "Lyon", vote=1, id=receipt.id, person="p"
    )
    assert (again.created, again.changed, again.revision) == (False, True, 2)
    assert server.log.get(receipt.id).vote == 1


def test_a_lost_answer_and_a_busy_server_make_no_second_row(server, client):
    server.faults = ["lost", 503, 429, "lost"]
    receipt = client.send("Capital?", "Lyon", vote=-1)
    assert (receipt.created, receipt.changed, server.requests) == (False, False, 5)
    assert [row.id for row in server.log.rows()] == [receipt.id]


def test_what_is_refused_is_not_sent_again(server, client):
    client.send("Capital?", "Lyon", vote=1, id="x")
    with pytest.raises(Conflict, match="409"):
        client.send("Capital?", "Nice", vote=1, id="x")
    with pytest.raises(UnknownModel, match="404"):
        client.send("Capital?", "Nice", vote=1, model="b" * 64)
    with pytest.raises(FeedbackError, match=r"401.*no token"):
        Client(server.url, token="wrong").send("Capital?", "Nice", vote=1)
    assert server.requests == 4
    with pytest.raises(TooLarge):
        client.send("Capital?", "Nice", correction="c" * 10_000_000)
    with pytest.raises(InvalidFeedback):
        client.send("Capital?", "Nice")
    with pytest.raises(InvalidFeedback, match="tags"):
        client.send("Capital?", "Nice", tags="geography")
    assert server.requests == 4  # those three were not sent


def test_a_redirect_is_not_followed(server, client):
    server.faults = [307]
    with pytest.raises(FeedbackError, match="307"):
        client.send("Capital?", "Lyon", vote=1)
    assert server.requests == 1


def test_what_does_not_answer_as_a_log_is_an_error(server, client):
    server.answer = b"<html>"
    with pytest.raises(FeedbackError, match="does not answer as a feedback log"):
        client.send("Capital?", "Lyon", vote=1)


def test_a_server_that_is_not_there_is_told_after_all_retries(server):
    url = server.url
    server.faults = [503] * 9
    with pytest.raises(LogUnavailable, match="3 times: 503: not now"):
        Client(url, token="token", retries=2).send("Capital?", "Lyon", vote=1)
    assert server.requests == 3
    with pytest.raises(LogUnavailable, match="1 times"):
        Client("http://127.0.0.1:9", retries=0).send("Capital?", "Lyon", vote=1)
    with pytest.raises(InputError, match="no URL"):
        Client("file:///etc/passwd")
