"""The choice and the Pareto front, held against their definitions."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from luthier_optimize.choosing import choose, keeps_to, misses, nearest, pareto
from luthier_optimize.commands import parse_size
from luthier_optimize.outcome import Tried
from luthier_optimize.routes import Limits
from luthier_optimize.trying import margin

models = st.lists(
    st.builds(
        lambda size, kl, ratio: Tried("", bytes=size, mean_kl=kl, ratios={"decode": ratio}),
        st.integers(1, 6),
        st.sampled_from([0.0, 0.01, 0.02, 0.5]),
        st.sampled_from([0.5, 1.0, 2.0]),
    ),
    max_size=8,
)
limits = st.builds(Limits, st.none() | st.sampled_from([0.01, 0.1]), st.none() | st.integers(1, 6))


def beats(one: Tried, other: Tried, goal: str) -> bool:
    cost = {"size": lambda each: each.bytes, "decode": lambda each: -each.ratios["decode"]}[goal]
    no_worse = cost(one) <= cost(other) and one.mean_kl <= other.mean_kl
    return no_worse and (cost(one), one.mean_kl) != (cost(other), other.mean_kl)


@given(models, st.sampled_from(["size", "decode"]))
def test_nothing_beats_what_is_on_the_front_and_something_beats_or_equals_the_rest(measured, goal):
    front = pareto(measured, goal)
    assert not any(beats(each, one, goal) for one in front for each in measured)
    for each in measured:
        if not any(each is one for one in front):
            assert any(
                beats(one, each, goal)
                or (one.bytes, one.mean_kl) == (each.bytes, each.mean_kl)
                or (one.ratios, one.mean_kl) == (each.ratios, each.mean_kl)
                for one in front
            )


@given(models, limits, st.sampled_from(["size", "decode", "quality"]))
def test_the_choice_keeps_to_the_limits_and_is_on_the_front_of_those_that_do(measured, limits, goal):
    chosen = choose(measured, limits, goal)
    within = [each for each in measured if keeps_to(each, limits)]
    assert (chosen is None) == (not within)
    if chosen is not None and goal != "quality":
        assert any(each is chosen for each in within)
        assert not any(beats(each, chosen, goal) for each in within)
    if chosen is not None and goal == "quality":
        assert chosen.mean_kl == min(each.mean_kl for each in within)


@given(models, limits)
def test_the_nearest_misses_by_the_least(measured, limits):
    found = nearest(measured, limits)
    if found is not None:
        worst = max(misses(found, limits).values(), default=1.0)
        assert worst == min(max(misses(each, limits).values(), default=1.0) for each in measured)


def test_what_has_no_time_is_not_chosen_for_it():
    assert choose([Tried("a", bytes=1, mean_kl=0.0)], Limits(), "decode") is None


@pytest.mark.parametrize(
    ("text", "size"), [("110MB", 110e6), ("1.5 gb", 1.5e9), ("800k", 800e3), ("2000", 2000.0), ("7B", 7.0)]
)
def test_sizes_are_read_in_powers_of_1000(text, size):
    assert parse_size(text) == size


def test_the_interval_of_a_mean_is_that_of_its_examples():
    values = [0.0, 1.0] * 50
    # The standard error of a mean of 100 values that deviate by 0.5 is 0.05.
    assert margin(values, [3.0] * 100) == pytest.approx(1.96 * 0.05)
    assert margin([2.0, 2.0], [1.0, 5.0]) == 0
