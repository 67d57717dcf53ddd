from __future__ import annotations

import math

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from toy_generator import ToyGenerator

from luthier import InputError, PluginError
from luthier.testing import make_context
from luthier_validate import divergence, parity, perplexity
from luthier_validate.divergence import kl_divergences

ROWS = [("say a word", "word."), ("count", "a b c d e f g"), ("nothing", "")]
logits = hnp.arrays(np.float32, (5, 7), elements=st.floats(-30, 30, width=32))


@given(logits, logits)
def test_divergence_is_not_negative_and_equals_the_formula(p, q):
    found = kl_divergences(p, q)
    assert (found >= 0).all()
    for row in range(len(p)):
        a, b = ([math.exp(float(x)) for x in table[row]] for table in (p, q))
        direct = sum(x / sum(a) * math.log((x / sum(a)) / (y / sum(b))) for x, y in zip(a, b, strict=True))
        assert found[row] == pytest.approx(direct, rel=1e-6, abs=1e-9)


@given(logits, st.floats(-1e4, 1e4, width=32))
def test_divergence_from_itself_is_zero_wherever_the_logits_lie(p, offset):
    np.testing.assert_array_equal(kl_divergences(p, p), 0)
    np.testing.assert_array_less(kl_divergences(p, p + np.float32(offset)), 1e-3)


@settings(max_examples=20)
@given(st.integers(1, 200))
def test_divergence_does_not_depend_on_the_rows_compared_at_a_time(rows):
    p, q = np.random.default_rng(0).normal(size=(2, rows, 11)).astype(np.float32)
    one_by_one = [kl_divergences(p[row : row + 1], q[row : row + 1])[0] for row in range(rows)]
    np.testing.assert_allclose(kl_divergences(p, q), one_by_one, rtol=1e-12)


def test_tokens_that_the_reference_excludes_add_nothing():
    p = np.array([[0.0, 0.0, -np.inf]], np.float32)
    q = np.array([[0.0, 0.0, 0.0]], np.float32)
    assert kl_divergences(p, q)[0] == pytest.approx(math.log(3 / 2))
    assert kl_divergences(p, p)[0] == 0
    assert kl_divergences(q, p)[0] == math.inf


def test_a_model_is_at_parity_with_itself(pairs, tmp_path):
    ctx = make_context(tmp_path)
    parity(ToyGenerator(), ToyGenerator(), pairs(*ROWS), ctx)
    assert {name: metric.value for name, metric in ctx.metrics.items()} == {
        "mean_kl": 0.0,
        "top1_agreement": 1.0,
        "perplexity_ratio": 1.0,
    }


def test_metrics_are_means_over_tokens(pairs, tmp_path):
    ctx, data = make_context(tmp_path), pairs(*ROWS)
    subject, reference = ToyGenerator(noise=0.5), ToyGenerator()
    parity(subject, reference, data, ctx)
    prompts, completions = zip(*ROWS, strict=True)
    p = np.concatenate(list(reference.logits(prompts, completions)))
    q = np.concatenate(list(subject.logits(prompts, completions)))
    assert ctx.metrics["mean_kl"].value == pytest.approx(kl_divergences(p, q).mean())
    assert ctx.metrics["mean_kl"].value > 0.01
    assert ctx.metrics["top1_agreement"].value == pytest.approx((p.argmax(1) == q.argmax(1)).mean())
    assert ctx.metrics["top1_agreement"].value < 1
    values = []
    for number, model in enumerate((subject, reference)):
        other = make_context(tmp_path / str(number))
        perplexity(model, data, other)
        values.append(other.metrics["perplexity"].value)
    assert ctx.metrics["perplexity_ratio"].value == pytest.approx(values[0] / values[1])
    table = pl.read_parquet(tmp_path / "notes" / "tables" / "parity.parquet")
    assert table["tokens"].sum() == len(p)
    assert tuple(table["mean_kl"]) == ctx.metrics["mean_kl"].per_example


def test_logits_of_both_are_read_in_lockstep(pairs):
    subject, reference = ToyGenerator(noise=0.5), ToyGenerator()
    examples = divergence.select_examples(pairs(*ROWS), "test", None)
    for count, _ in enumerate(divergence.compare(subject, reference, examples), start=1):
        assert (subject.given, reference.given) == (count, count)


def test_language_modelling_works_too(texts, tmp_path):
    ctx = make_context(tmp_path)
    parity(ToyGenerator(noise=0.1), ToyGenerator(), texts("some text", "more text"), ctx)
    assert ctx.metrics["mean_kl"].weights == (8.0, 8.0)


def test_of_text_longer_than_the_context_the_beginning_is_compared(texts, tmp_path):
    whole, cut = (make_context(tmp_path / name) for name in ("whole", "cut"))
    parity(ToyGenerator(noise=0.5, context=4), ToyGenerator(context=4), texts("some text that goes on", "more"), cut)
    assert sorted(cut.metrics["mean_kl"].weights) == [3.0, 4.0]
    # Its first four tokens are predicted from the same ones as those of a text that ends there.
    parity(ToyGenerator(noise=0.5), ToyGenerator(), texts("some ", "more"), whole)
    for name in ("mean_kl", "perplexity_ratio", "top1_agreement"):
        assert cut.metrics[name].value == pytest.approx(whole.metrics[name].value)


def test_another_tokenisation_is_refused(pairs, tmp_path):
    with pytest.raises(InputError, match="tokenise alike"):
        parity(ToyGenerator(extra_tokens=1), ToyGenerator(), pairs(*ROWS), make_context(tmp_path))


def test_another_vocabulary_is_refused(pairs, tmp_path):
    subject = ToyGenerator()
    subject.table = subject.table[:, :-1]
    with pytest.raises(InputError, match="vocabulary"):
        parity(subject, ToyGenerator(), pairs(*ROWS), make_context(tmp_path))


def test_scores_of_other_lengths_than_the_logits_are_refused(pairs, tmp_path):
    subject = ToyGenerator()
    subject.score = lambda prompts, completions: ToyGenerator(extra_tokens=1).score(prompts, completions)
    with pytest.raises(InputError, match="tokenise alike"):
        parity(subject, ToyGenerator(), pairs(*ROWS), make_context(tmp_path))


def test_logits_that_are_not_finite_are_an_error(pairs, tmp_path):
    subject = ToyGenerator()
    subject.table[:] = np.nan
    with pytest.raises(PluginError, match="not finite"):
        parity(subject, ToyGenerator(), pairs(*ROWS), make_context(tmp_path))
