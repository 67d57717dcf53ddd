"""The transformers runtime: batching changes nothing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import luthier_models
from luthier import InputError, Model
from luthier.testing import make_context
from luthier_models.packing import fill_rows, pack
from luthier_models.runtime import TransformersGenerator

PROMPTS = ["Return the table.", "a", "Write the array to a file in the binary format, please, and soon", "", "row"]
COMPLETIONS = ["The number of rows.", "x", "", "Return the number of rows of the table", "file " * 30]


@pytest.fixture(scope="module")
def generator(tiny, tmp_path_factory):
    context = make_context(tmp_path_factory.mktemp("runtime"))
    return luthier_models.transformers(Model.at(tiny, "causal-lm"), context, batch_size=3, batch_tokens=128)


def test_batched_completions_are_those_of_single_prompts(generator, tiny):
    single = TransformersGenerator(tiny, batch_size=1)
    batched = generator.generate(PROMPTS, max_new_tokens=12)
    assert batched == [single.generate([prompt], max_new_tokens=12)[0] for prompt in PROMPTS]
    assert any(batched)
    assert generator._ctx.events[-1]["done"] == len(PROMPTS)


def test_greedy_completions_are_those_of_a_plain_loop(generator):
    ids = torch.tensor([generator.encoder.prompt("Return the table.")])
    start = ids.shape[1]
    with torch.no_grad():
        for _ in range(12):
            ids = torch.cat([ids, generator.model(ids).logits[:, -1:].argmax(-1)], 1)
    assert generator.generate(["Return the table."], max_new_tokens=12) == [
        generator.encoder.decode(ids[0, start:].tolist())
    ]


def test_long_text_is_scored_in_windows_that_overlap_by_half(generator):
    text = "Write the array to a file in the binary format, row by row. " * 80
    ids = generator.encoder.text(text)
    context = generator.model.config.max_position_embeddings
    assert len(ids) > 2 * context
    (score,) = generator.score([""], [text])
    assert len(score.log_probabilities) == len(ids) - 1

    def predicted(start, end):
        with torch.no_grad():
            logits = generator.model(torch.tensor([ids[end - context - 1 : end - 1]])).logits[0].log_softmax(1)
        return [logits[number - end, ids[number]].item() for number in range(start, end)]

    parts = [(1, context + 1), (context + 1, context + 1 + context // 2), (len(ids) - 1, len(ids))]
    for start, end in parts:
        assert score.log_probabilities[start - 1 : end - 1] == pytest.approx(predicted(start, end), abs=1e-4)


def test_stop_strings_cut_the_completion(generator):
    (whole,) = generator.generate(["Return the table."], max_new_tokens=20)
    mark = whole[len(whole) // 2 :][:2]
    assert generator.generate(["Return the table."], max_new_tokens=20, stop=[mark, "never"]) == [
        whole[: whole.index(mark)]
    ]


def test_scores_are_those_of_plain_forward_passes(generator):
    scores = generator.score(PROMPTS, COMPLETIONS)
    for prompt, completion, score in zip(PROMPTS, COMPLETIONS, scores, strict=True):
        ids, targets = generator.encoder.pair(prompt, completion)
        with torch.no_grad():
            logits = generator.model(torch.tensor([ids + targets])).logits[0, len(ids) - 1 : -1]
        expected = logits.log_softmax(-1)[range(len(targets)), targets]
        assert score.log_probabilities == pytest.approx(expected.tolist(), abs=1e-5)
        assert generator.score([prompt], [completion])[0].log_probabilities == pytest.approx(
            score.log_probabilities, abs=1e-5
        )


def test_a_prompt_with_several_completions_is_read_once(generator, monkeypatch):
    prompts = [prompt for prompt in PROMPTS for _ in COMPLETIONS]
    completions = COMPLETIONS * len(PROMPTS)
    read = []
    inputs = generator._batched._inputs
    monkeypatch.setattr(generator._batched, "_inputs", lambda row: read.append(len(row.ids)) or inputs(row))
    together = generator.score(prompts, completions)
    tokens, read[:] = sum(read), []
    alone = [generator.score([prompt], [text])[0] for prompt, text in zip(prompts, completions, strict=True)]
    assert tokens < 0.5 * sum(read)
    for ours, expected in zip(together, alone, strict=True):
        np.testing.assert_allclose(ours.log_probabilities, expected.log_probabilities, atol=1e-5)


def test_logits_come_in_order_and_agree_with_the_scores(generator):
    scores = generator.score(PROMPTS, COMPLETIONS)
    found = list(generator.logits(PROMPTS, COMPLETIONS))
    for prompt, completion, score, logits in zip(PROMPTS, COMPLETIONS, scores, found, strict=True):
        targets = generator.encoder.pair(prompt, completion)[1]
        assert logits.dtype == np.float32
        assert logits.shape == (len(targets), generator.model.config.vocab_size)
        values = torch.from_numpy(logits).log_softmax(-1)[range(len(targets)), targets]
        assert values.tolist() == pytest.approx(score.log_probabilities, abs=1e-5)


def test_an_output_that_is_more_than_its_layer_is_asked_for_whole(tiny):
    generator = TransformersGenerator(tiny)
    expected = generator.score(PROMPTS, COMPLETIONS)
    generator = TransformersGenerator(tiny)
    # As architectures do that scale their logits (Cohere, Granite): twice the logits.
    generator.model.register_forward_hook(lambda _m, _a, output: output.__setitem__("logits", 2 * output.logits))
    assert generator._batched.head is None
    scaled = list(generator.logits(PROMPTS, COMPLETIONS))
    plain = list(TransformersGenerator(tiny).logits(PROMPTS, COMPLETIONS))
    for twice, once in zip(scaled, plain, strict=True):
        np.testing.assert_allclose(twice, 2 * once, atol=1e-4)
    assert generator.score(PROMPTS, COMPLETIONS)[0] != expected[0]


def test_documents_that_see_each_other_go_one_to_a_row(tiny):
    generator = TransformersGenerator(tiny)
    expected = generator.score(PROMPTS, COMPLETIONS)
    broken = TransformersGenerator(tiny)
    forward = broken.model.base_model.forward

    # A model that carries a state along the row: everything before a token shifts it.
    def leaky(**inputs):
        output = forward(**inputs)
        output.last_hidden_state = output.last_hidden_state.cumsum(1)
        return output

    broken.model.base_model.forward = leaky
    assert generator._batched.isolates_documents
    assert not broken._batched.isolates_documents
    rows = [members for members, _ in broken._batched.rows([([1], [2]), ([3], [4, 5])], 100)]
    assert sorted(rows) == [[0], [1]]
    assert len(expected) == len(PROMPTS)


def test_a_text_beyond_the_context_is_refused(generator):
    with pytest.raises(InputError, match="does not fit"):
        generator.generate(["table " * 600])
    with pytest.raises(InputError, match="does not fit"):
        generator.score(["Return"], ["table " * 600])


def test_a_gpu_that_is_not_there(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(InputError, match="no CUDA device"):
        TransformersGenerator(tiny, make_context(tmp_path, device="cuda"))


@settings(deadline=None)
@given(st.lists(st.integers(1, 50), max_size=30), st.integers(0, 80))
def test_rows_hold_each_document_once_within_the_limit(lengths, limit):
    rows = list(fill_rows(lengths, limit))
    assert sorted(number for row in rows for number in row) == list(range(len(lengths)))
    assert all(len(row) == 1 or sum(lengths[number] for number in row) <= limit for row in rows)


def test_a_packed_row():
    row = pack([([1, 5], [6, 2]), ([1], [7])])
    assert row.ids.tolist() == [1, 5, 6, 1]
    assert row.positions.tolist() == [0, 1, 2, 0]
    assert row.index.tolist() == [1, 2, 3]
    assert row.labels.tolist() == [6, 2, 7]
    assert row.sizes == (2, 1)


@pytest.mark.slow
def test_smollm2_makes_sense(smollm2):
    generator = TransformersGenerator(smollm2)
    assert generator.generate(["What is the capital of France?"], max_new_tokens=12) == [
        "The capital of France is Paris."
    ]
