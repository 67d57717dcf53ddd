"""Budgets and the schedule."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import luthier
import luthier_tune
from luthier.testing import make_context
from luthier_tune.budget import (
    cooldown_start,
    known_steps,
    learning_rate,
    seconds_per_step,
    total_with_cooldown_at,
)
from luthier_tune.options import Training
from luthier_tune.validation import steps_between


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


@settings(deadline=None)
@given(st.integers(1, 300), st.integers(0, 40))
def test_the_rate_rises_stays_and_falls_to_zero(total, warmup):
    rates = [learning_rate(step, total, peak=1.0, warmup_steps=warmup) for step in range(total)]
    start = cooldown_start(total)
    assert all(0 < rate <= 1 for rate in rates)
    assert all(a <= b for a, b in pairwise(rates[:start]))
    if start >= warmup:
        assert all(rate == 1 for rate in rates[warmup : start + 1])
        assert all(a > b for a, b in pairwise(rates[start:]))
        assert rates[-1] == pytest.approx(1 / (total - start))
        assert 0.3 * total <= total - start < 0.3 * total + 1


@settings(deadline=None)
@given(st.integers(0, 1000), st.integers(1, 2000), st.integers(0, 20))
def test_until_the_rate_falls_it_does_not_depend_on_the_total(step, cooldown, warmup):
    total = total_with_cooldown_at(cooldown)
    assert cooldown_start(total) == cooldown
    if step < cooldown:
        known = learning_rate(step, total, peak=1.0, warmup_steps=warmup)
        assert known == learning_rate(step, None, peak=1.0, warmup_steps=warmup)


def test_the_speed_is_that_of_the_recent_steps():
    slow = [{"seconds": 4.0, "tokens": 10.0}] * 40
    fast = [{"seconds": 1.0, "tokens": 10.0}] * 5
    assert seconds_per_step(slow + fast, 20.0, 165.0) == pytest.approx(2.0)
    # A tenth of the time went into validation and checkpoints.
    assert seconds_per_step(slow + fast, 20.0, 165.0 * 1.1) == pytest.approx(2.2)


def test_patience_needs_a_validation(tmp_path):
    recipe = tmp_path / "recipe.yaml"
    config = "    patience: 2\n    valid_examples: 0\n"
    assert "`patience` waits for a better validation loss" in problems_of(recipe, config)
    assert "waits for" not in problems_of(recipe, "    patience: 2\n")


@pytest.mark.parametrize(
    ("options", "steps"),
    [
        ({}, 250),  # an epoch
        ({"batch_size": 400}, 3),
        ({"batch_size": 1000}, 1),
        ({"valid": 600}, 500),  # so that they take about a tenth of the time
        ({"evaluate_every": 7}, 7),
        ({"keep": "last"}, None),
        ({"keep": "last", "patience": 3}, 250),
        ({"valid": 0}, None),
        ({"valid": 0, "evaluate_every": 7}, None),
    ],
)
def test_how_often_the_validation_loss_is_measured(options, steps):
    valid = options.pop("valid", 60)
    assert steps_between(Training(**options), train=1000, valid=valid) == steps
