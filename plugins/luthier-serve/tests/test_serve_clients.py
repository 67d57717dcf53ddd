"""Many clients, impatient ones, ones that go away; a model that dies; a server that is told to end."""

from __future__ import annotations

import asyncio
import itertools
import re
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import openai
import pytest

from luthier_serve import processes


def text_of(stream) -> str:
    return "".join(chunk.choices[0].delta.content or "" for chunk in stream)


def test_clients_are_served_side_by_side_and_a_late_one_waits_for_nobody(server):
    early = [server.chat(f"count 60 {number}", stream=True) for number in range(4)]
    for stream in early:
        next(stream)
        next(stream)
    assert server.chat("count 3 9").choices[0].message.content == "0 1 2 "
    with ThreadPoolExecutor(4) as threads:
        assert len(set(threads.map(text_of, early))) == 1
    # Between two tokens of the late one each of the others has one, and they go on after it.
    steps = [line.removeprefix("count ") for line in server.steps if re.fullmatch(r"count (60 [0-3]|3 9): step", line)]
    late = [place for place, line in enumerate(steps) if line.startswith("3 9")]
    assert len(late) == 3
    for before, after in itertools.pairwise(late):
        assert sorted(line[:4] for line in steps[before + 1 : after]) == ["60 0", "60 1", "60 2", "60 3"]
    assert late[-1] < len(steps) - 40


def test_a_long_prompt_is_read_in_pieces_between_the_tokens_of_others(server):
    stream = server.chat("count 41", stream=True)
    next(stream)
    next(stream)
    server.chat("count 2 1280")
    text_of(stream)
    turns = [line for line in server.steps if not line.endswith("close")]
    reads = [place for place, line in enumerate(turns) if line == "count 2 1280: read"]
    assert len(reads) == 10
    assert all(turns[place + 1] == "count 41: step" for place in reads[:-1])


def test_a_client_that_goes_away_ends_its_completion(server):
    stream = server.chat("count 501", stream=True)
    next(stream)
    next(stream)
    stream.close()
    server.wait_until(lambda: "count 501: close" in server.steps)
    with pytest.raises(openai.APITimeoutError):
        server.chat("count 502", timeout=0.5)
    server.wait_until(lambda: "count 502: close" in server.steps)
    for prompt in ("count 501", "count 502"):
        assert server.steps.count(f"{prompt}: step") < 300
    server.wait_until(lambda: server.metric("luthier_active_completions") == 0)


def test_beyond_the_queue_clients_are_told_to_come_again(start):
    server = start("--parallel", "1", "--queue", "1", pause=0.05)
    first = server.chat("count 100", stream=True)
    next(first)
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(server.chat, "count 1")
        server.wait_until(lambda: server.metric("luthier_waiting_completions") == 1)
        refused = server.post()
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "2")
        assert refused.json()["error"]["code"] == "queue_full"
        assert server.post(n=3).status_code == 429
        first.close()
        assert waiting.result().choices[0].message.content == "0 "
    assert server.chat("count 2").choices[0].message.content == "0 1 "


def test_a_request_has_its_time(limited):
    answer = limited.post("count 999")
    assert (answer.status_code, answer.json()["error"]["code"]) == (408, "time_limit")
    with pytest.raises(openai.APIError, match=r"more than 2 seconds"):
        text_of(limited.chat("count 999", stream=True))
    assert limited.chat("count 2").choices[0].message.content == "0 1 "


def test_prompts_have_their_length(limited):
    answer = limited.post("echo a b c d e f")
    assert answer.status_code == 400
    assert "the prompt has 7 tokens, and this server reads up to 5" in answer.json()["error"]["message"]
    assert limited.post("echo a b c d").status_code == 200


def test_a_model_that_dies_is_started_again_and_the_server_stays(start):
    server = start()
    with pytest.raises(openai.InternalServerError, match="is being started again") as told:
        server.chat("die")
    assert told.value.status_code == 503
    assert int(told.value.response.headers["retry-after"]) > 0
    assert server.http.get("/healthz").status_code == 503
    assert server.post().status_code == 503
    server.wait_until(lambda: server.http.get("/healthz").status_code == 200)
    stream = server.chat("die", stream=True)
    with pytest.raises(openai.APIError, match="is being started again"):
        text_of(stream)
    server.wait_until(lambda: server.http.get("/healthz").status_code == 200)
    assert server.chat("count 1").choices[0].message.content == "0 "
    assert server.metric("luthier_model_restarts_total") == 2


def test_a_process_that_hangs_is_ended(tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "SILENT_SECONDS", 1.0)
    monkeypatch.setenv("LUTHIER_PLUGINS", "scripted")
    monkeypatch.setenv("SCRIPTED_LOG", str(tmp_path / "steps.log"))
    (tmp_path / "config.json").write_text("{}")
    plugins = (str(Path(__file__).parent / "scripted.py"),)
    spec = processes.ModelSpec(str(tmp_path), "model", "causal-lm", "", runtime="scripted", plugins=plugins)
    sampling = {"temperature": 0.0, "top_k": 0, "top_p": 1.0, "seed": 0}
    request = {"prompt": "hang", "max_new_tokens": 4, "sampling": sampling, "alternatives": 0, "schema": None}

    async def hang() -> list[str]:
        process = await processes.ModelProcess.start(spec)
        told = process.complete({**request, "template": True, "stop": [], "prompt_tokens": None})
        kinds = [(await anext(told))["type"]]
        with pytest.raises(processes.ProcessDied):
            await anext(told)
        await process.end()
        return kinds

    assert asyncio.run(hang()) == ["begun"]


def test_what_runs_when_the_server_is_told_to_end_may_end(start):
    server = start(pause=0.02)
    stream = server.chat("count 40", stream=True)
    next(stream)
    server.process.send_signal(signal.SIGTERM)
    server.wait_until(lambda: "shutting down" in server.log)
    # A 503 that says so, for the tenth of a second until the port is closed.
    with pytest.raises((openai.APIConnectionError, openai.InternalServerError), match=r"Connection|shutting"):
        server.chat("count 1")
    assert text_of(stream).endswith("39 ")
    assert server.process.wait(30) == 0


def test_what_runs_for_too_long_is_ended_with_an_error(start):
    server = start("--drain", "0.3", pause=0.05)
    stream = server.chat("count 1000", stream=True)
    next(stream)
    ended = threading.Thread(target=server.stop, args=(signal.SIGINT,))
    ended.start()
    began = time.monotonic()
    with pytest.raises(openai.APIError, match="the server is shutting down"):
        text_of(stream)
    ended.join(30)
    assert server.process.returncode == 0
    assert time.monotonic() - began < 30


def test_a_server_that_is_killed_leaves_no_process_behind(start):
    server = start(pause=0.02)
    stream = server.chat("count 1000", stream=True)
    next(stream)
    server.process.kill()
    server.process.wait()
    count = -1

    def still() -> bool:
        nonlocal count
        before, count = count, len(server.steps)
        time.sleep(0.1)
        return before == count

    server.wait_until(still)
    assert count < 1000
