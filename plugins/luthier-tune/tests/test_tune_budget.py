"""Budgets and the schedule."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import luthier
import luthier_tune
from luthier.testing import make_context
from luthier_tune.budget import MEASURED_STEPS, known_steps, learning_rate, steps_for
from luthier_tune.options import Training


def problems_of(recipe, budget):
    recipe.write_text(f"luthier: 1\nsteps:\n  - tune: lora\n{budget}", encoding="utf-8")
    with pytest.raises(luthier.LuthierError) as refused:  # a recipe without data and without a model
        luthier.plan(recipe)
    return str(refused.value)


def test_more_than_one_budget_is_refused_while_planning(tmp_path):
    recipe = tmp_path / "recipe.yaml"
    refused = "more than one training budget"
    assert f"{refused}: max_steps, max_minutes" in problems_of(recipe, "    max_steps: 10\n    max_minutes: 4.0\n")
    assert refused not in problems_of(recipe, "    max_steps: 10\n")
    assert refused not in problems_of(recipe, "")


def test_more_than_one_budget_is_refused_without_a_plan(tmp_path):
    two = Training(max_epochs=1.0, max_minutes=4.0)
    with pytest.raises(luthier.InputError, match="max_epochs, max_minutes"):
        luthier_tune.lora(None, None, make_context(tmp_path), training=two)


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
