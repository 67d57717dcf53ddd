from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from luthier_validate.ngrams import END, ByteNgrams

# Few letters, so that contexts come again; and any bytes, so that nothing is special.
text = st.one_of(st.text("ab", max_size=12).map(str.encode), st.binary(max_size=12))
texts = st.lists(text, max_size=8)


@settings(deadline=None, max_examples=50)
@given(texts, text, st.integers(1, 7), st.booleans())
def test_probabilities_sum_to_one_whatever_was_learned(learned, context, order, ends):
    model = ByteNgrams([*learned, b"a"], order=order, ends=ends)
    found = model.distribution(context)
    assert len(found) == 256 + ends
    assert (found > 0).all()
    assert found.sum() == pytest.approx(1, abs=1e-9)


@settings(deadline=None, max_examples=50)
@given(texts, st.lists(text, min_size=1, max_size=4), st.integers(1, 5), st.booleans())
def test_a_text_costs_what_its_symbols_cost_one_by_one(learned, measured, order, ends):
    model = ByteNgrams([*learned, b"a"], order=order, ends=ends)
    for nats, one in zip(model.nats(measured), measured, strict=True):
        symbols = [*one, *([END] if ends else [])]
        steps = [-math.log(model.distribution(one[:place])[symbol]) for place, symbol in enumerate(symbols)]
        assert nats == pytest.approx(math.fsum(steps), abs=1e-9)


def test_bigrams_are_those_computed_by_hand():
    model = ByteNgrams([b"ab", b"abac"], order=2)
    # ^a 2, ab 2, ba 1, ac 1: n1 = 2, n2 = 2, D = 1/3.
    # Unigrams by continuation: a after ^ and b: 2; b: 1; c: 1; n1 = 2, n2 = 1, D = 1/2, total 4, 3 types.
    uniform = 1 / 256
    unigram = (1 - 0.5) / 4 + 0.5 * 3 / 4 * uniform
    assert model.distribution(b"a")[ord("b")] == pytest.approx((2 - 1 / 3) / 3 + (1 / 3) * 2 / 3 * unigram)
    # An unknown context leaves the unigrams.
    assert model.distribution(b"z")[ord("b")] == pytest.approx(unigram)


def test_what_comes_again_gets_cheaper():
    learned = [b"the cat sat on the mat. "] * 20
    nats = ByteNgrams(learned).nats([b"the cat sat.", b"qxzjv wkpqd."])
    assert nats[0] < nats[1] / 4
    untaught = ByteNgrams([b""]).nats([b"abc"])
    assert untaught == pytest.approx([3 * math.log(256)])


def test_distribution_reads_only_the_last_bytes():
    model = ByteNgrams([b"abcabcabd"], order=3)
    np.testing.assert_array_equal(model.distribution(b"zzzab"), model.distribution(b"qqab"))
