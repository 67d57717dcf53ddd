"""Recurrent language models: their arithmetic, their state, documents that do not see each other, every later stage."""

from __future__ import annotations

import json

import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM

from luthier import Dataset, InputError, Model
from luthier.testing import make_context
from luthier_models import Vocabulary, pretrained, rnn_lm, transformers
from luthier_models.families.sizes import parameters
from luthier_models.loading import load_causal_lm
from luthier_models.packing import PackedModel, pack
from luthier_models.recurrent.cells import initialise, make_cell, run, run_documents, run_padded
from luthier_models.recurrent.sizes import RecurrentShape, RecurrentWishes, recurrent_shape

TEXTS = ["The river is long, and the bridge over it is old.", "A bridge of 1907; nobody knows why."] * 6
CHARACTERS = Vocabulary(kind="character", size=64)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Dataset:
    directory = tmp_path_factory.mktemp("data")
    numbers = [str(number) for number in range(len(TEXTS))]
    rows = {"id": numbers, "group": numbers, "split": ["train"] * len(TEXTS), "text": TEXTS}
    pl.DataFrame(rows).write_parquet(directory / "shard-00000.parquet")
    return Dataset.at(directory, "language-modelling")


@pytest.fixture(scope="module", params=["lstm", "gru"])
def directory(request, data, tmp_path_factory):
    """An untrained model of two layers, whose embedding is projected to."""
    ctx = make_context(tmp_path_factory.mktemp(request.param), seed=3)
    sizes = {"layers": 2, "width": 48, "embedding_width": 32}
    rnn_lm(data, ctx, cell=request.param, parameters="100K", tokenizer=CHARACTERS, dropout=0.1, **sizes)
    return ctx.output


@pytest.mark.parametrize("cell", ["lstm", "gru"])
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("embedding_width", [None, 300])
def test_the_arithmetic_is_that_of_the_model(tmp_path, data, cell, tied, embedding_width):
    ctx = make_context(tmp_path, seed=1)
    wishes = {"layers": 2, "tied": tied, "embedding_width": embedding_width}
    rnn_lm(data, ctx, cell=cell, parameters="300K", tokenizer=CHARACTERS, **wishes)
    count = load_causal_lm(ctx.output).num_parameters()
    assert ctx.metrics["parameters"].value == count
    assert 200_000 < count <= 300_000
    assert pl.read_parquet(ctx.notes / "tables" / "parameters.parquet")["parameters"].sum() == count


@given(st.integers(50_000, 50_000_000), st.integers(64, 8_192), st.sampled_from(["gru", "lstm"]), st.integers(1, 4))
@settings(max_examples=40, deadline=None)
def test_a_budget_is_used_and_never_exceeded(budget, vocabulary, cell, layers):
    wishes = RecurrentWishes(cell=cell, layers=layers)
    try:
        shape = recurrent_shape(budget, vocabulary, wishes)
    except InputError:
        narrowest = RecurrentWishes(cell=cell, layers=layers, width=16)
        assert parameters(recurrent_shape(10**9, vocabulary, narrowest)) > budget
        return
    wider = RecurrentWishes(cell=cell, layers=layers, width=shape.width + 16)
    assert parameters(shape) <= budget < parameters(recurrent_shape(10**9, vocabulary, wider))


def test_a_known_shape_has_the_parameters_that_pytorch_counts():
    shape = RecurrentShape(cell="lstm", vocabulary=100, embedding_width=64, layers=1, width=512)
    # Four gates of 512 with 64 inputs, 512 states and two biases; the embedding; the projection to its width.
    assert parameters(shape) == 4 * 512 * (64 + 512 + 2) + 100 * 64 + 512 * 64


def test_too_small_a_budget_is_refused(tmp_path, data):
    with pytest.raises(InputError, match="2,000 parameters are too few"):
        rnn_lm(data, make_context(tmp_path), parameters="2000", tokenizer=CHARACTERS)


def test_the_seed_decides_the_weights(tmp_path, data):
    made = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        ctx = make_context(tmp_path / name, seed=seed)
        rnn_lm(data, ctx, parameters="50K", tokenizer=CHARACTERS)
        made.append((ctx.output / "model.safetensors").read_bytes())
    assert made[0] == made[1] != made[2]


def test_first_weights_keep_states_and_gates_open():
    cell = make_cell("lstm", 16, 24, 2, 0.0)
    initialise(cell)
    recurrent = cell.weight_hh_l1.detach()[:24]
    assert torch.allclose(recurrent @ recurrent.T, torch.eye(24), atol=1e-5)
    assert cell.bias_ih_l0.detach()[24:48].eq(1).all()
    assert cell.bias_hh_l0.detach().eq(0).all()


@given(st.lists(st.integers(1, 9), min_size=1, max_size=12), st.sampled_from(["gru", "lstm"]))
@settings(max_examples=40, deadline=None)
def test_documents_side_by_side_are_what_they_are_alone(lengths, name):
    torch.manual_seed(0)
    cell = make_cell(name, 5, 6, 2, 0.0).double()
    inputs = torch.randn(sum(lengths), 5, dtype=torch.float64, requires_grad=True)
    together = run_documents(cell, inputs, lengths)
    alone = torch.cat([run(cell, part[None])[0][0] for part in torch.split(inputs, lengths)])
    assert torch.allclose(together, alone, atol=1e-12)
    weights = torch.randn_like(together)
    gradients = [
        torch.autograd.grad((each * weights).sum(), [inputs, *cell.parameters()]) for each in (together, alone)
    ]
    assert all(torch.allclose(a, b, atol=1e-10) for a, b in zip(*gradients, strict=True))


@given(st.lists(st.integers(1, 6), min_size=1, max_size=5), st.sampled_from(["left", "right"]))
@settings(max_examples=20, deadline=None)
def test_padding_on_either_side_changes_nothing(lengths, side):
    torch.manual_seed(0)
    cell = make_cell("lstm", 4, 5, 2, 0.0).double()
    longest = max(lengths)
    inputs = torch.randn(len(lengths), longest, 4, dtype=torch.float64)
    mask = torch.zeros(len(lengths), longest)
    for row, length in enumerate(lengths):
        mask[row, slice(longest - length, None) if side == "left" else slice(length)] = 1
    outputs, states = run_padded(cell, inputs, mask)
    for row in range(len(lengths)):
        real = mask[row].bool()
        expected, last = run(cell, inputs[row, real][None])
        assert torch.allclose(outputs[row, real], expected[0], atol=1e-12)
        assert all(torch.allclose(a[:, row], b[:, 0], atol=1e-12) for a, b in zip(states, last, strict=True))


def test_the_state_is_all_that_generation_keeps(directory):
    model = load_causal_lm(directory)
    ids = torch.tensor([[5, 6, 7, 8, 9, 10]])
    with torch.no_grad():
        whole = model(ids, use_cache=False).logits
        first = model(ids[:, :4], use_cache=True)
        second = model(ids[:, 4:], past_key_values=first.past_key_values, use_cache=True)
    assert torch.allclose(torch.cat([first.logits, second.logits], 1), whole, atol=1e-5)
    assert second.past_key_values.get_seq_length() == 6
    # Two layers of 48 for the output and, in an LSTM, the memory: no more after six tokens than after four.
    assert [each.shape for each in second.past_key_values.states] == [
        each.shape for each in first.past_key_values.states
    ]


@pytest.mark.parametrize("beams", [1, 3])
def test_generating_with_the_state_is_generating_without(directory, beams):
    model = load_causal_lm(directory)
    prompt = {"input_ids": torch.tensor([[5, 6, 7]]), "attention_mask": torch.ones(1, 3, dtype=torch.long)}
    options = {"max_new_tokens": 10, "do_sample": False, "num_beams": beams, "eos_token_id": None}
    assert model.generate(**prompt, **options).equal(model.generate(**prompt, **options, use_cache=False))


def test_batches_of_prompts_are_completed_as_each_alone(tmp_path, directory):
    runtime = transformers(Model.at(directory, "causal-lm"), make_context(tmp_path), batch_size=3)
    prompts = ["The", "A bridge of 1907; nobody", "T", "river"]
    together = runtime.generate(prompts, max_new_tokens=12)
    assert together == [runtime.generate([prompt], max_new_tokens=12)[0] for prompt in prompts]
    # Scores of packed documents are those of a plain call.
    [score] = runtime.score([""], [TEXTS[0]])
    assert runtime.score(["", "", "A"], [TEXTS[1], TEXTS[0], " b"])[1].log_probabilities == pytest.approx(
        score.log_probabilities, abs=1e-4
    )
    ids = torch.tensor([runtime.encoder.text(TEXTS[0])])
    with torch.no_grad():
        logits = runtime.model(ids).logits[0, :-1].log_softmax(-1)
    assert score.log_probabilities == pytest.approx(logits.gather(1, ids[0, 1:, None])[:, 0].tolist(), abs=1e-4)


def test_packed_documents_are_kept_apart_and_rows_are_wide(directory):
    packed = PackedModel(load_causal_lm(directory))
    assert packed.isolates_documents
    assert packed.head is not None
    pairs = [([1, 2], [3] * 300)] * 8
    # One after the other they would be slow: a row has more documents than was asked for.
    [(members, row)] = packed.rows(pairs, 256)
    assert members == list(range(8))
    assert packed.hidden(row).shape == (8 * 300, 32)


def test_a_directory_is_taken_as_a_pretrained_model(tmp_path, directory):
    ctx = make_context(tmp_path)
    pretrained(ctx, model=str(directory))
    assert (ctx.output / "model.safetensors").read_bytes() == (directory / "model.safetensors").read_bytes()
    config = json.loads((ctx.output / "config.json").read_text())
    assert (config["model_type"], config["architectures"]) == ("rnn-lm", ["RnnForCausalLM"])
    assert AutoModelForCausalLM.from_pretrained(ctx.output).config.hidden_size == 48


def test_masks_and_labels_are_those_of_transformers(directory):
    model = load_causal_lm(directory)
    ids = torch.tensor([[5, 6, 7, 8], [9, 10, 0, 0]])
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])
    with torch.no_grad():
        padded = model(ids, attention_mask=mask, labels=ids.masked_fill(mask == 0, -100))
        alone = model(ids[1:, :2]).logits
        logits = [model(ids[:1]).logits[0, :-1], alone[0, :-1]]
    expected = torch.nn.functional.cross_entropy(torch.cat(logits), torch.tensor([6, 7, 8, 10]))
    assert torch.allclose(padded.loss, expected, atol=1e-5)
    row = pack([([5], [6, 7, 8]), ([9], [10])])
    packed = PackedModel(model)
    with torch.no_grad():
        assert torch.allclose(torch.cat(logits), packed.logits(row), atol=1e-5)
