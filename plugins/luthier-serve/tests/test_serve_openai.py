"""The official client on a server with a scripted model: what it asks for, and how it is told of errors."""

from __future__ import annotations

import json

import openai
import pytest


def test_a_chat_is_answered_whole(server):
    answer = server.chat("count 3")
    (choice,) = answer.choices
    assert (choice.message.role, choice.message.content, choice.finish_reason) == ("assistant", "0 1 2 ", "stop")
    assert answer.usage.model_dump(exclude_none=True) == {
        "prompt_tokens": 2,
        "completion_tokens": 3,
        "total_tokens": 5,
    }
    assert answer.system_fingerprint == server.openai.models.retrieve("toy").hash
    assert answer.object == "chat.completion"


def test_a_chat_is_streamed_token_by_token(server):
    chunks = list(server.chat("count 4", stream=True, stream_options={"include_usage": True}))
    *told, usage = chunks
    assert [chunk.choices[0].delta.content for chunk in told] == ["", "0 ", "1 ", "2 ", "3 "]
    assert [chunk.choices[0].finish_reason for chunk in told] == [None] * 4 + ["stop"]
    assert told[0].choices[0].delta.role == "assistant"
    assert usage.choices == []
    assert usage.usage.completion_tokens == 4
    assert len({chunk.id for chunk in chunks}) == 1
    assert all(chunk.usage is None for chunk in server.chat("count 2", stream=True))


def test_log_probabilities_are_told(server):
    content = server.chat("echo a é", logprobs=True, top_logprobs=2).choices[0].logprobs.content
    assert [token.token for token in content] == ["a ", "é "]
    assert content[1].bytes == list("é ".encode())
    assert [other.logprob for other in content[0].top_logprobs] == [-1.0, -2.0]
    assert server.chat("echo a").choices[0].logprobs is None
    answer = server.openai.completions.create(model="toy", prompt="echo a b", logprobs=1)
    assert answer.choices[0].logprobs.text_offset == [0, 2]
    assert answer.choices[0].logprobs.top_logprobs == [{"other0": -1.0}] * 2


def test_a_text_is_continued_without_a_template(server):
    answer = server.openai.completions.create(model="toy", prompt=["template", "template x"], n=2)
    assert [choice.text for choice in answer.choices] == ["False"] * 4
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
    assert answer.usage.prompt_tokens == 3
    assert answer.object == "text_completion"
    parts = server.openai.completions.create(model="toy", prompt="echo a b", stream=True)
    assert "".join(part.choices[0].text for part in parts) == "a b "
    assert server.chat("template").choices[0].message.content == "True"


@pytest.mark.parametrize(
    ("stop", "text"), [("c", "a b "), (["x", "b c"], "a "), ("z", "a b c d "), (["d e"], "a b c d "), ("a", "")]
)
def test_a_stop_string_ends_a_completion_before_it_however_tokens_part_it(server, stop, text):
    answer = server.chat("echo a b c d", stop=stop)
    assert (answer.choices[0].message.content, answer.choices[0].finish_reason) == (text, "stop")
    streamed = server.chat("echo a b c d", stop=stop, stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in streamed) == text


def test_a_completion_is_cut_at_its_limit(server):
    for limit in ({"max_tokens": 2}, {"max_completion_tokens": 2}):
        answer = server.chat("count 5", **limit)
        assert (answer.choices[0].message.content, answer.choices[0].finish_reason) == ("0 1 ", "length")


def test_sampling_reaches_the_model_and_choices_have_seeds_of_their_own(server):
    answer = server.chat("seed", seed=7, temperature=0.5, top_p=0.9, n=3)
    assert [choice.message.content for choice in answer.choices] == ["7 0.5 0.9", "8 0.5 0.9", "9 0.5 0.9"]
    assert server.chat("seed", seed=-1).choices[0].message.content == f"{2**64 - 1} 0.0 1.0"
    assert server.chat("seed").choices[0].message.content != server.chat("seed").choices[0].message.content
    parts = [chunk.choices[0] for chunk in server.chat("count 3", n=2, stream=True)]
    for number in (0, 1):
        assert "".join(part.delta.content or "" for part in parts if part.index == number) == "0 1 2 "


def test_a_schema_reaches_the_model(server):
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    wanted = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema, "strict": True}}
    assert json.loads(server.chat("schema", response_format=wanted).choices[0].message.content) == schema
    assert server.chat("schema", response_format={"type": "json_object"}).choices[0].message.content == (
        '{"type": "object"}'
    )
    assert server.chat("schema", response_format={"type": "text"}).choices[0].message.content == "none"


def test_messages_may_have_parts_and_a_developer(server):
    messages = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "echo one "}, {"type": "text", "text": "two"}]},
    ]
    answer = server.openai.chat.completions.create(model="toy", messages=messages)
    assert answer.choices[0].message.content == "one two "


@pytest.mark.parametrize(
    ("wrong", "param"),
    [
        ({"temperature": 2.5}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"n": 100}, "n"),
        ({"max_tokens": 10**9}, "max_tokens"),
        ({"stop": ["a"] * 5}, "stop"),
        ({"stop": [""]}, "stop.0"),
        ({"seed": 2**70}, "seed"),
        ({"frequency_penalty": 0.5}, "frequency_penalty"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools"),
        ({"top_logprobs": 50, "logprobs": True}, "top_logprobs"),
        ({"response_format": {"type": "json_schema"}}, "response_format"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages.0.content.0.type"),
        ({"extra_body": {"typical_p": 0.2}}, "typical_p"),
    ],
)
def test_what_is_beyond_a_bound_is_refused_and_named(server, wrong, param):
    asked = {"model": "toy", "messages": [{"role": "user", "content": "count 1"}], **wrong}
    with pytest.raises(openai.BadRequestError) as told:
        server.openai.chat.completions.create(**asked)
    assert told.value.param == param
    assert param in told.value.message
    assert told.value.type == "invalid_request_error"


def test_what_is_not_understood_is_refused_unless_it_asks_for_nothing(server):
    for wrong in ({"presence_penalty": 1}, {"logit_bias": {"5": 1}}, {"store": True}, {"extra_body": {"min_p": 0.1}}):
        with pytest.raises(openai.BadRequestError, match="is not understood by this server; leave it out"):
            server.chat("count 1", **wrong)
    nothing = {"presence_penalty": 0.0, "frequency_penalty": 0, "logit_bias": {}, "store": False, "tools": []}
    assert server.chat("count 1", **nothing).choices[0].message.content == "0 "
    with pytest.raises(openai.BadRequestError, match="echo is not understood"):
        server.openai.completions.create(model="toy", prompt="count 1", echo=True)


def test_what_the_model_refuses_is_the_clients_error_before_and_not_in_a_stream(server):
    for stream in (False, True):
        with pytest.raises(openai.BadRequestError, match=r"not to the model's taste\. Ask otherwise"):
            server.chat("refuse", stream=stream)


def test_a_model_that_is_not_served_is_told(server):
    with pytest.raises(openai.NotFoundError, match="there is no model 'gpt' here; there is toy"):
        server.openai.chat.completions.create(model="gpt", messages=[{"role": "user", "content": "a"}])
    by_hash = server.openai.models.retrieve("toy").hash
    assert server.openai.models.retrieve(by_hash).id == "toy"


def test_a_bug_of_the_runtime_ends_one_completion_and_quotes_nothing(server):
    with pytest.raises(openai.InternalServerError, match="ValueError in the runtime"):
        server.chat("bug very-private")
    with pytest.raises(openai.APIError, match="ValueError in the runtime"):
        list(server.chat("bug very-private", stream=True))
    assert server.chat("count 1").choices[0].message.content == "0 "
    assert "scripted.py" in server.log
    assert "very-private" not in server.log


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b"{", "the body is no JSON: Expecting property name"),
        (b"[]", "the body is no JSON object"),
        (b'"a"', "the body is no JSON object"),
        (b"\xff", "the body is no JSON: it is not UTF-8"),
        (b"[" * 100_000, "the body is no JSON: it is nested too deeply"),
        (b'{"model": "toy", "messages": []}', "messages: List should have at least 1 item"),
    ],
)
def test_what_is_no_request_is_refused(server, body, told):
    answer = server.http.post("/v1/chat/completions", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 400
    assert answer.json()["error"]["message"].startswith(told)


def test_a_body_without_its_type_and_a_route_that_is_not_there_are_told(server):
    answer = server.http.post("/v1/chat/completions", content=b'{"model": "toy"}')
    assert (answer.status_code, answer.json()["error"]["code"]) == (415, "unsupported_media_type")
    assert "`Content-Type: application/json`" in answer.json()["error"]["message"]
    for method, path, status in (("POST", "/chat/completions", 404), ("GET", "/v1/completions", 405)):
        answer = server.http.request(method, path)
        assert answer.status_code == status
        assert f"there is no {method} {path} here; OpenAI's API is below /v1" in answer.json()["error"]["message"]


def test_several_models_are_served_by_their_names(start, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    (other / "config.json").write_text('{"greeting": "other"}')
    server = start(str(other), greeting="toy")
    names = [model.id for model in server.openai.models.list()]
    assert names == ["toy", "other"]
    for name in names:
        answer = server.openai.chat.completions.create(model=name, messages=[{"role": "user", "content": "greet"}])
        assert answer.choices[0].message.content == name


def test_a_parameter_of_the_runtime_is_set(start):
    server = start("--set", "greeting=ahoy")
    assert server.chat("greet").choices[0].message.content == "ahoy"
