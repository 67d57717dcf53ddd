"""A model on onnxruntime-genai behind the server: what clients get is what the model writes elsewhere."""

from __future__ import annotations

import json
import math
from concurrent.futures import ThreadPoolExecutor

import pytest

from luthier import Model
from luthier.testing import make_context

PROMPTS = [
    "Return the number of items.",
    "The cache keeps every answer until it is full. " * 5,
    "Öffne die Datei: 開く",
]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    from luthier_models.testing import write_tiny_model
    from luthier_onnx import genai

    room = tmp_path_factory.mktemp("tiny")
    ctx = make_context(room / "export")
    genai(Model.at(write_tiny_model(room / "model"), "causal-lm"), ctx)
    return ctx.output


@pytest.fixture(scope="module")
def expected(exported):
    from luthier_onnx.runtime import GenaiGenerator

    return GenaiGenerator(exported)


@pytest.fixture(scope="module")
def real(exported, tmp_path_factory, real_server):
    server = real_server(exported, tmp_path_factory.mktemp("real"))
    yield server
    server.close()


def test_clients_at_once_get_what_the_model_writes(real, expected):
    def ask(prompt: str) -> str:
        chunks = real.chat(prompt, max_tokens=24, stream=True)
        return "".join(chunk.choices[0].delta.content or "" for chunk in chunks)

    with ThreadPoolExecutor(len(PROMPTS)) as threads:
        assert list(threads.map(ask, PROMPTS)) == expected.generate(PROMPTS, max_new_tokens=24)


def test_log_probabilities_are_the_models_scores(real, expected):
    answer = real.chat(PROMPTS[0], max_tokens=8, logprobs=True, top_logprobs=3)
    content = answer.choices[0].logprobs.content
    [logits] = expected.logits(PROMPTS[:1], [answer.choices[0].message.content])
    first = logits[0] - logits[0].max()
    first = first - math.log(sum(math.exp(value) for value in first.tolist()))
    best = sorted(first.tolist(), reverse=True)[:3]
    assert content[0].logprob == pytest.approx(best[0], abs=1e-4)
    assert [other.logprob for other in content[0].top_logprobs] == pytest.approx(best, abs=1e-4)
    assert answer.usage.prompt_tokens == len(expected.encoder.prompt(PROMPTS[0]))
    assert answer.usage.completion_tokens == len(content)


def test_seeds_and_schemas_hold(real):
    schema = {
        "type": "object",
        "properties": {"kind": {"enum": ["a", "b"]}, "size": {"type": "integer", "minimum": 0, "maximum": 99}},
        "required": ["kind", "size"],
        "additionalProperties": False,
    }
    wanted = {"type": "json_schema", "json_schema": {"name": "thing", "schema": schema}}
    drawn = [
        real.chat(PROMPTS[0], temperature=1.5, seed=seed, max_tokens=64, response_format=wanted).choices[0]
        for seed in (1, 1, 2)
    ]
    assert drawn[0].message.content == drawn[1].message.content
    for choice in drawn:
        assert choice.finish_reason == "stop"
        answer = json.loads(choice.message.content)
        assert answer["kind"] in ("a", "b")
        assert 0 <= answer["size"] <= 99
    assert (
        real.post("a", response_format={**wanted, "json_schema": {"name": "x", "schema": {"type": 5}}}).status_code
        == 400
    )


def test_a_prompt_beyond_the_context_is_refused(real):
    answer = real.post("a" * 2000)
    assert answer.status_code == 400
    assert "no room in the model's context of 512" in answer.json()["error"]["message"]
