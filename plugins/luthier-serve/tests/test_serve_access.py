"""Who may ask, and what a server tells of itself to the others."""

from __future__ import annotations

from pathlib import Path

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from luthier.cli import app
from luthier_serve.stops import StopText

SCRIPTED = Path(__file__).parent / "scripted.py"
ROUTES = [("GET", "/v1/models"), ("POST", "/v1/chat/completions"), ("POST", "/v1/completions"), ("GET", "/metrics")]


@pytest.mark.parametrize(("method", "path"), ROUTES)
@pytest.mark.parametrize("header", [None, "Bearer wrong", "Bearer", "Basic {}", "{}", "Bearer {}x"])
def test_every_route_wants_the_token(server, method, path, header):
    headers = {} if header is None else {"authorization": header.format(server.token)}
    answer = httpx2.request(method, f"{server.url}{path}", headers=headers)
    assert answer.status_code == 401
    assert answer.json()["error"]["type"] == "authentication_error"
    assert answer.headers["www-authenticate"] == "Bearer"


def test_the_health_and_the_page_need_none_and_tell_nothing(server):
    answer = httpx2.get(f"{server.url}/healthz")
    assert (answer.status_code, answer.json()) == (200, {"status": "ready"})
    page = httpx2.get(server.url)
    assert page.status_code == 200
    assert "default-src 'self'" in page.headers["content-security-policy"]
    assert server.token not in page.text
    assert "toy" not in page.text


@pytest.mark.parametrize("host", ["evil.example.org", "127.0.0.1.evil.example.org", "", "localhost@evil.org", "[::1"])
def test_a_name_that_is_not_the_servers_is_refused(server, host):
    answer = server.http.get("/healthz", headers={"host": host})
    assert answer.status_code in (400, 403)
    assert b"ready" not in answer.content


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8000", "127.0.0.1:1", "[::1]:80"])
def test_the_names_of_this_machine_are_the_servers(server, host):
    assert server.http.get("/healthz", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    ("origin", "code"),
    [("https://evil.example.org", 403), ("null", 403), ("http://127.0.0.1:1", 403), (None, 200), ("own", 200)],
)
def test_pages_of_others_may_not_ask(server, origin, code):
    headers = {} if origin is None else {"origin": server.url if origin == "own" else origin}
    assert server.http.get("/v1/models", headers=headers).status_code == code


def test_a_page_that_may_ask_is_told_so(limited):
    server = limited
    origin = {"origin": "https://app.example.org"}
    assert server.http.get("/v1/models", headers=origin).headers["access-control-allow-origin"] == origin["origin"]
    asked = {"access-control-request-method": "POST", "access-control-request-headers": "authorization"}
    allowed = httpx2.options(f"{server.url}/v1/chat/completions", headers={**origin, **asked})
    assert allowed.status_code == 200
    assert httpx2.get(f"{server.url}/v1/models", headers=origin).status_code == 401


def test_a_request_has_its_size_whether_it_tells_it_or_not(limited):
    server = limited
    text = "x" * 3000
    assert server.post(text).status_code == 413
    chunks = (f'{{"model": "{text[:1000]}{number}"'.encode() for number in range(5))
    answer = server.http.post("/v1/chat/completions", content=chunks, headers={"content-type": "application/json"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "request_too_large")
    assert server.post("count 1").status_code == 200


def test_prompts_are_logged_only_where_that_is_asked_for(server, start):
    secret = "a-very-private-matter"
    telling = start("--log-prompts")
    for each, told in ((server, False), (telling, True)):
        each.chat(f"echo {secret}")
        each.post(f"echo {secret}", temperature=99)
        each.post(f"refuse {secret}")
        assert (secret in each.log) == told
        assert each.token not in each.log


def test_a_token_may_come_from_a_file_and_be_left_out_on_this_machine(start, tmp_path):
    token = "0123456789abcdef-secret"
    (tmp_path / "token").write_text(f"{token}\n")
    server = start("--token-file", str(tmp_path / "token"), token=token)
    assert server.http.get("/v1/models").status_code == 200
    open_to_all = start("--no-token", "--host", "localhost")
    assert open_to_all.url.startswith("http://localhost:")
    assert httpx2.get(f"{open_to_all.url}/v1/models").status_code == 200
    assert httpx2.get(f"{open_to_all.url}/v1/models", headers={"host": "evil.org"}).status_code == 403


def test_a_server_that_listens_everywhere_prints_an_address_that_answers(start):
    server = start("--host", "0.0.0.0", "--allow-host", "localhost", "--allow-host", "models.example.org")
    assert server.url.startswith("http://localhost:")
    assert server.http.get("/healthz").status_code == server.http.get("/v1/models").status_code == 200
    # Programs on this machine ask by its names, such as one that looks whether it is well; nobody by what is no name.
    for asked, status in (("127.0.0.1", 200), ("models.example.org", 200), ("0.0.0.0", 403)):
        assert server.http.get("/healthz", headers={"host": asked}).status_code == status


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--no-token", "--host", "0.0.0.0", "--allow-host", "a"], "--no-token would let everybody"),
        (["--host", "0.0.0.0"], "Name those that clients use"),
        (["--token-file", "absent"], "the token cannot be read"),
        (["--token-file", "short"], "at least 16"),
        (["--no-token", "--token-file", "short"], "contradict each other"),
        (["--allow-host", "https://models.example.org"], "is no host's name"),
        (["--allow-host", "models.example.org:443"], "without scheme, port and path"),
        (["--allow-origin", "app.example.org"], "is no origin"),
        (["--host", "192.0.2.1"], "192.0.2.1:8000 cannot be listened at"),
        (["--runtime", "greedy-only", "--port", "0"], "greedy-only does not write token by token"),
        (["--set", "greetings=x", "--port", "0"], "runtime:scripted: greetings: "),
        (["--set", "greeting"], "there is no KEY=VALUE in it"),
        (["--runtime", "absent", "--port", "0"], "no runtime component is called 'absent'"),
    ],
)
def test_what_cannot_be_served_is_told_before(tmp_path, monkeypatch, options, told):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LUTHIER_PLUGINS", "scripted,serve")
    Path("toy").mkdir()
    Path("toy", "config.json").write_text("{}")
    Path("short").write_text("secret")
    runtime = [] if "--runtime" in options else ["--runtime", "scripted"]
    result = CliRunner().invoke(app, ["serve", "toy", "--plugin", str(SCRIPTED), *runtime, *options])
    assert (result.exit_code, told in " ".join(result.stderr.split())) == (1, True), result.stderr


def test_two_models_of_one_name_are_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for place in ("a", "b"):
        Path(place, "toy").mkdir(parents=True)
        Path(place, "toy", "config.json").write_text("{}")
    result = CliRunner().invoke(app, ["serve", "a/toy", "b/toy", "--plugin", str(SCRIPTED)])
    assert (result.exit_code, "two models would be called 'toy'" in result.stderr) == (1, True)


@given(st.text("ab<>", max_size=30), st.lists(st.text("ab<>", min_size=1, max_size=4), max_size=3), st.data())
def test_stops_cut_a_text_in_pieces_as_they_cut_it_whole(text, stops, data):
    stopping, told, seen = StopText(stops), "", ""
    while seen != text:
        size = data.draw(st.integers(1, len(text) - len(seen)))
        piece, seen = text[len(seen) : len(seen) + size], text[: len(seen) + size]
        more, stopped = stopping.add(piece)
        told += more
        places = [seen.index(stop) for stop in stops if stop in seen]
        assert stopped == bool(places)
        if stopped:
            assert told == seen[: min(places)]
            return
        assert seen.startswith(told)
    assert told + stopping.rest() == text
