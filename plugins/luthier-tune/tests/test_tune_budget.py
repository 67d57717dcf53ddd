"""Budgets and the schedule."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from luthier import InputError
from luthier_tune.budget import MEASURED_STEPS, check_budget, known_steps, learning_rate, steps_for


def test_more_than_one_budget_is_refused():
    with pytest.raises(InputError, match="max_steps, max_minutes"):
        check_budget(10, None, 4.0)
    check_budget(None, None, None)
    check_budget(10, None, None)


@pytest.mark.parametrize(
    ("budget", "steps"),
    [
        ((None, None, None), 7),
        ((12, None, None), 12),
        ((None, 2.0, None), 14),
        ((None, 0.5, None), 4),
        ((None, None, 3.0), None),
    ],
)
def test_known_steps(budget, steps):
    assert known_steps(*budget, steps_per_epoch=7) == steps


@pytest.mark.parametrize(("left", "steps"), [(10.0, 25), (0.0, 5), (-3.0, 5)])
def test_a_budget_in_seconds_never_loses_done_steps(left, steps):
    assert steps_for(left, done=5, seconds_per_step=0.5) == steps


@settings(deadline=None)
@given(st.integers(1, 300), st.integers(0, 40))
def test_the_rate_rises_and_then_falls_to_zero(total, warmup):
    rates = [learning_rate(step, total, peak=1.0, warmup_steps=warmup) for step in range(total)]
    start = max(warmup, MEASURED_STEPS)
    assert all(0 < rate <= 1 for rate in rates)
    assert all(a <= b for a, b in pairwise(rates[:start]))
    assert all(a > b for a, b in pairwise(rates[start:]))
    if total > start:
        assert rates[-1] == pytest.approx(1 / (total - start))


@settings(deadline=None)
@given(st.integers(0, MEASURED_STEPS - 1), st.integers(MEASURED_STEPS, 500), st.integers(0, 20))
def test_the_measured_steps_learn_alike_whatever_the_total(step, total, warmup):
    known = learning_rate(step, total, peak=1.0, warmup_steps=warmup)
    assert known == learning_rate(step, None, peak=1.0, warmup_steps=warmup)
