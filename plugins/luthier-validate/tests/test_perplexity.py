from __future__ import annotations

import math

import numpy as np
import pytest
from toy_generator import ToyGenerator

from luthier import InputError, PluginError, Score
from luthier.testing import make_context
from luthier_validate import perplexity

ROWS = [("say a word", "word."), ("count", "a b c d e f g"), ("nothing", "")]


def test_perplexity_is_per_token_over_the_corpus(pairs, tmp_path):
    ctx, toy = make_context(tmp_path), ToyGenerator()
    perplexity(toy, pairs(*ROWS), ctx)
    tokens = [value for score in toy.score(*zip(*ROWS, strict=True)) for value in score.log_probabilities]
    assert ctx.metrics["perplexity"].value == pytest.approx(math.exp(-np.mean(tokens)))
    assert ctx.metrics["perplexity"].recomputed() == pytest.approx(ctx.metrics["perplexity"].value)
    assert ctx.metrics["perplexity"].weights == (6.0, 14.0, 1.0)


def test_bits_per_byte_are_per_byte_over_the_corpus(texts, tmp_path):
    ctx, toy = make_context(tmp_path), ToyGenerator()
    rows = ["the first text", "größer"]
    perplexity(toy, texts(*rows), ctx)
    nats = -sum(value for score in toy.score(["", ""], rows) for value in score.log_probabilities)
    assert ctx.metrics["bits_per_byte"].value == pytest.approx(nats / math.log(2) / (14 + 8))


def test_a_uniform_model_has_the_perplexity_of_its_vocabulary(pairs, tmp_path):
    ctx, toy = make_context(tmp_path), ToyGenerator()
    toy.table[:] = 3.0
    perplexity(toy, pairs(*ROWS), ctx)
    assert ctx.metrics["perplexity"].value == pytest.approx(len(toy.table))


def test_max_examples_limits_what_is_scored(pairs, tmp_path):
    ctx = make_context(tmp_path)
    perplexity(ToyGenerator(), pairs(*ROWS), ctx, max_examples=2)
    assert len(ctx.metrics["perplexity"].per_example) == 2


def test_texts_without_tokens_are_refused(texts, tmp_path):
    with pytest.raises(InputError, match="empty"):
        perplexity(ToyGenerator(), texts("", "a"), make_context(tmp_path))


@pytest.mark.parametrize("value", [-math.inf, math.nan])
def test_log_probabilities_that_are_not_finite_are_an_error(pairs, tmp_path, value):
    toy = ToyGenerator()
    toy.score = lambda prompts, completions: [Score((value,)) for _ in prompts]
    with pytest.raises(PluginError, match="not finite"):
        perplexity(toy, pairs(*ROWS), make_context(tmp_path))
