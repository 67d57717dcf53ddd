"""Completions token by token: which tokens sampling leaves, how text grows, and that nothing else changes."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from luthier import InputError, Sampling, completed
from luthier_models.prompts import PromptEncoder
from luthier_models.runtime import TransformersGenerator
from luthier_models.sampling import Sampler, likely
from luthier_models.streams import CHUNK, GrowingText
from luthier_models.testing import tiny_tokenizer, write_tiny_model

LOGITS = st.lists(st.floats(-30, 30, width=32), min_size=1, max_size=40).map(lambda each: np.array(each, np.float32))
PROMPT = "Return the number of items."
LONG = " ".join(["The cache keeps every answer until it is full."] * 7)


@pytest.fixture(scope="module")
def generator(tmp_path_factory) -> TransformersGenerator:
    return TransformersGenerator(write_tiny_model(tmp_path_factory.mktemp("streams") / "model"))


@pytest.fixture(scope="module")
def encoder() -> PromptEncoder:
    return PromptEncoder(tiny_tokenizer())


@given(LOGITS, st.floats(0.05, 5), st.integers(0, 10), st.floats(0.01, 1))
def test_sampling_leaves_the_fewest_most_probable_tokens_that_reach_p(logits, temperature, top_k, top_p):
    wide = logits.astype(np.float64) / temperature
    probabilities = np.exp(wide - wide.max())
    probabilities /= probabilities.sum()
    order = np.argsort(-probabilities, kind="stable")
    order = order[: top_k or None]
    share = probabilities[order].cumsum() / (probabilities[order].sum() if top_k else 1)
    tokens, kept = likely(logits, Sampling(temperature, top_k, top_p))
    assert tokens.tolist() == order[: len(tokens)].tolist()
    np.testing.assert_allclose(kept, probabilities[tokens], atol=1e-12)
    if top_p < 1:
        assert share[len(tokens) - 1] >= top_p - 1e-9
        assert len(tokens) == 1 or share[len(tokens) - 2] <= top_p + 1e-9


@given(LOGITS, st.integers(0, 2**64 - 1), st.floats(0.05, 5))
def test_a_seed_gives_the_same_draws_and_only_tokens_that_may_be(logits, seed, temperature):
    logits[:-1][::2] = -np.inf
    sampling = Sampling(temperature, seed=seed)
    draws = [[sampler.choose(logits) for _ in range(5)] for sampler in (Sampler(sampling), Sampler(sampling))]
    assert draws[0] == draws[1]
    assert all(np.isfinite(logits[token]) for token in draws[0])


def test_tokens_are_drawn_as_often_as_they_are_probable():
    logits = np.log(np.array([0.5, 0.3, 0.2], np.float32))
    sampler = Sampler(Sampling(temperature=1.0, seed=3))
    counts = np.bincount([sampler.choose(logits) for _ in range(4000)], minlength=3) / 4000
    np.testing.assert_allclose(counts, [0.5, 0.3, 0.2], atol=0.03)
    assert Sampler(Sampling()).choose(logits) == 0


@pytest.mark.parametrize(
    "wrong", [{"temperature": -0.1}, {"temperature": float("nan")}, {"top_p": 0}, {"top_k": -1}, {"seed": 2**64}]
)
def test_what_is_no_sampling_is_refused(wrong):
    with pytest.raises(InputError, match=f"{next(iter(wrong))} is"):
        Sampling(**wrong)


@settings(deadline=None)
@given(st.lists(st.integers(0, 373), max_size=30))
def test_growing_text_is_the_text_of_all_tokens(encoder, ids):
    ids = [token for token in ids if token not in encoder.end_tokens]
    growing = GrowingText(encoder)
    parts = [growing.add(token) for token in ids]
    assert "".join([*parts, growing.rest()]) == encoder.decode(ids)


def test_no_character_is_told_in_parts(encoder):
    growing = GrowingText(encoder)
    ids = encoder.text("né 開く 🎻!")
    parts = [growing.add(token) for token in ids]
    assert "".join(parts) == "né 開く 🎻!"
    assert not any("\N{REPLACEMENT CHARACTER}" in part for part in parts)
    assert len(ids) > len([part for part in parts if part])


def test_a_greedy_stream_is_what_generate_gives(generator):
    tokens = list(completed(generator.open(LONG, max_new_tokens=16, alternatives=3)))
    assert ["".join(token.text for token in tokens)] == generator.generate([LONG], max_new_tokens=16)
    assert tokens[-1].end
    assert not any(token.end for token in tokens[:-1])
    for token in tokens:
        assert token.alternatives[0].id == token.id
        assert token.alternatives[0].log_probability == token.log_probability
    if tokens[-1].end == "length":
        assert len(tokens) == 16


def test_streams_go_on_side_by_side_and_may_be_closed_at_any_time(generator):
    alone = [token.id for token in completed(generator.open(PROMPT, max_new_tokens=8))]
    first, second, third = (generator.open(text, max_new_tokens=8) for text in (PROMPT, LONG, PROMPT))
    left = [stream.read() for stream in (first, second, third)]
    assert left == [0, second.prompt_tokens - CHUNK, 0]
    found = [first.step().id]
    while second.read():
        third.step()
    third.close()
    third.close()
    while len(found) < len(alone):
        found.append(first.step().id)
        if len(found) < 4:
            second.step()
    assert found == alone
    with pytest.raises(RuntimeError, match="has ended"):
        third.step()


def test_draws_are_the_same_again_and_others_with_another_seed(generator):
    def drawn(seed: int) -> list[int]:
        sampling = Sampling(temperature=1.5, top_p=0.95, seed=seed)
        return [token.id for token in completed(generator.open(PROMPT, max_new_tokens=12, sampling=sampling))]

    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)


def test_a_completion_keeps_to_a_schema(generator):
    schema = {
        "type": "object",
        "properties": {"name": {"type": "string", "maxLength": 8}, "count": {"enum": [1, 2, 3]}},
        "required": ["name", "count"],
        "additionalProperties": False,
    }
    sampling = Sampling(temperature=1.0, seed=5)
    stream = generator.open(PROMPT, max_new_tokens=200, sampling=sampling, schema=json.dumps(schema))
    tokens = list(completed(stream))
    answer = json.loads("".join(token.text for token in tokens))
    assert set(answer) == {"name", "count"}
    assert answer["count"] in (1, 2, 3)
    assert tokens[-1].end == "stop"


@pytest.mark.parametrize("schema", ["{", '{"type": "nonsense"}', '{"$ref": "https://example.org/x"}'])
def test_what_is_no_schema_is_refused(generator, schema):
    with pytest.raises(InputError, match="the schema cannot be kept to"):
        generator.open(PROMPT, schema=schema)


def test_a_text_without_template_is_continued(generator):
    plain, asked = generator.open(PROMPT, template=False), generator.open(PROMPT)
    assert plain.prompt_tokens == len(generator.encoder.text(PROMPT)) < asked.prompt_tokens
    with pytest.raises(InputError, match="template"):
        generator.open([{"role": "user", "content": PROMPT}], template=False)


def test_a_completion_ends_where_the_context_does(generator):
    prompt = "a" * 450
    given = generator.open(prompt, template=False).prompt_tokens
    room = generator.context - given
    assert 0 < room < 500
    tokens = list(completed(generator.open(prompt, max_new_tokens=10_000, template=False)))
    assert len(tokens) <= room
    with pytest.raises(InputError, match="no room in the model's context of 512"):
        generator.open(LONG * 10)
    with pytest.raises(InputError, match="the prompt is empty"):
        generator.open("", template=False)
