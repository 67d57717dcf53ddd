"""Gates: what a bound means, and what the paired bootstrap makes of it."""

from __future__ import annotations

import math
import random
import re
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from luthier import InputError, PluginError
from luthier.gates import Bound, GateSyntax, judge, parse_gate

NUMBERS = st.floats(-1e6, 1e6, allow_nan=False)


def measure(
    values: Sequence[float], name: str = "rougeL", weights: Sequence[float] | None = None, aggregate: str = "mean"
) -> list[dict[str, Any]]:
    """A validator's metric records, as they are read from JSON."""
    used = weights or [1.0] * len(values)
    mean = math.fsum(w * x for w, x in zip(used, values, strict=True)) / math.fsum(used)
    value = math.exp(mean) if aggregate == "exp-mean" else mean
    return [
        {"name": name, "value": value, "per_example": list(values), "weights": weights, "aggregate": aggregate},
        {"name": "seconds", "value": 3.5, "per_example": None, "weights": None, "aggregate": "mean"},
    ]


# --- how bounds are written ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "subject", "offset", "text"),
    [
        (0.95, None, 0.95, "at least 0.95"),
        (1, None, 1.0, "at least 1"),
        (-2.5, None, -2.5, "at least -2.5"),
        ("base", "base", 0.0, "at least base"),
        ("base + 0.10", "base", 0.1, "at least base + 0.1"),
        ("reference-1e-3", "reference", -0.001, "at least reference - 0.001"),
        (" champion+.5 ", "champion", 0.5, "at least champion + 0.5"),
    ],
)
def test_bounds(written: object, subject: str | None, offset: float, text: str) -> None:
    [bound] = parse_gate({"rougeL": {"at_least": written}})
    assert bound == Bound("rougeL", "at_least", subject, offset, None)
    assert bound.text() == text


@pytest.mark.parametrize(
    ("written", "subject", "other", "offset", "text"),
    [
        ("candidate.lead_rougeL + 0.05", "candidate", "lead_rougeL", 0.05, "at least candidate.lead_rougeL + 0.05"),
        ("candidate.mean-kl", "candidate", "mean-kl", 0.0, "at least candidate.mean-kl"),
        ("base.lead_rougeL-1e-3", "base", "lead_rougeL", -0.001, "at least base.lead_rougeL - 0.001"),
        ("candidate.base", "candidate", "base", 0.0, "at least candidate.base"),
        ("base.rougeL + 0.1", "base", "", 0.1, "at least base + 0.1"),
    ],
)
def test_bounds_on_another_metric(written: str, subject: str, other: str, offset: float, text: str) -> None:
    [bound] = parse_gate({"rougeL": {"at_least": written}})
    assert bound == Bound("rougeL", "at_least", subject, offset, None, other)
    assert bound.text() == text


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("lead_rougeL + 0.05", "for another metric of the candidate, write `candidate.lead_rougeL`"),
        ("candidate", "rougeL of the candidate is held against itself"),
        ("candidate.rougeL + 0.1", "rougeL of the candidate is held against itself"),
        ("candidat.lead_rougeL", "did you mean 'candidate'"),
        ("candidate.", "a bound is a number, `base + 0.1` or `candidate.METRIC + 0.1`"),
        ("candidate.a.b", "a bound is a number"),
    ],
)
def test_bounds_that_name_no_metric(written: str, message: str) -> None:
    with pytest.raises(GateSyntax, match=re.escape(message)):
        parse_gate({"rougeL": {"at_least": written}})


def test_a_gate_holds_many_bounds() -> None:
    gate = {"kl": {"at_most": 0.02}, "rougeL": {"at_least": "base", "at_most": 0.9, "confidence": 0.95}}
    assert [bound.text() for bound in parse_gate(gate)] == [
        "at most 0.02",
        "at least base (95% confidence)",
        "at most 0.9 (95% confidence)",
    ]


def test_every_problem_is_found_with_its_place() -> None:
    with pytest.raises(GateSyntax) as caught:
        parse_gate(
            {
                "a": {"at_lest": 1},
                "b": {"at_least": True},
                "c": {"at_least": "0.5"},
                "d": {"at_most": "bass - 1", "confidence": 95},
                "e": 0.5,
                "f": {"at_most": math.inf, "confidence": True},
            }
        )
    problems = caught.value.problems
    assert [path for path, _ in problems] == [
        ("a", "at_lest"),
        ("a",),
        ("b", "at_least"),
        ("c", "at_least"),
        ("d", "confidence"),
        ("d", "at_most"),
        ("e",),
        ("f", "confidence"),
        ("f", "at_most"),
    ]
    messages = dict(problems)
    assert "did you mean 'at_least'" in messages["a", "at_lest"]
    assert "did you mean 'base'" in messages["d", "at_most"]
    assert "0.95, not 95" in messages["d", "confidence"]


@pytest.mark.parametrize("gate", [{}, [], None, "rougeL", 0.5])
def test_what_is_no_gate(gate: Any) -> None:
    with pytest.raises(GateSyntax, match="maps metrics to bounds"):
        parse_gate(gate)


@given(subject=st.sampled_from(["base", "reference", "champion"]), offset=NUMBERS)
def test_a_bound_reads_as_it_is_written(subject: str, offset: float) -> None:
    sign = "-" if offset < 0 else "+"
    [bound] = parse_gate({"m": {"at_most": f"{subject} {sign} {abs(offset)!r}"}})
    assert (bound.subject, bound.offset) == (subject, offset)


@given(st.text(max_size=20) | st.from_regex(r"(base|bass) ?[+-] ?[0-9.e-]{1,5}", fullmatch=True))
def test_any_text_is_a_bound_or_a_clear_error(text: str) -> None:
    def read() -> Bound | GateSyntax:
        try:
            return parse_gate({"m": {"at_least": text}})[0]
        except GateSyntax as error:
            return error

    found = read()
    if isinstance(found, GateSyntax):
        assert [path for path, _ in found.problems] == [("m", "at_least")]
    else:
        assert text.strip().startswith(str(found.subject))
        assert math.isfinite(found.offset)


# --- decisions without confidence ---------------------------------------------------------------------


def test_a_fixed_bound() -> None:
    decision = judge(Bound("rougeL", "at_least", None, 0.5), measure([0.4, 0.8]), None)
    assert decision.passed
    assert (round(decision.value, 9), decision.bound, decision.interval) == (0.6, 0.5, None)
    refused = judge(Bound("rougeL", "at_most", None, 0.5), measure([0.4, 0.8]), None)
    assert not refused.passed
    assert refused.reason == "rougeL is 0.6; it must be at most 0.5"


def test_a_compared_bound() -> None:
    base = measure([0.1, 0.3])
    decision = judge(Bound("rougeL", "at_least", "base", 0.1), measure([0.3, 0.5]), base)
    assert decision.passed
    assert decision.bound == pytest.approx(0.3)
    assert decision.bound_text == "at least base + 0.1"
    assert not judge(Bound("rougeL", "at_least", "base", 0.3), measure([0.3, 0.5]), base).passed


def test_a_bound_on_another_metric_of_the_candidate() -> None:
    # The baseline is as good on average, and 0.05 worse on each example but one.
    mine, lead = [0.2, 0.4, 0.6, 0.3], [0.15, 0.35, 0.55, 0.45]
    candidate = [*measure(mine), *measure(lead, "lead_rougeL")]
    bound = Bound("rougeL", "at_least", "candidate", 0.0, 0.95, "lead_rougeL")
    decision = judge(bound, candidate, candidate)
    assert decision.bound == pytest.approx(0.375)
    assert decision.interval == pytest.approx((-0.1, 0.05))
    assert not decision.passed
    assert "the interval of its difference from candidate.lead_rougeL is -0.1 to 0.05" in decision.reason
    assert judge(Bound("rougeL", "at_most", "candidate", 0.1, 0.95, "lead_rougeL"), candidate, candidate).passed
    # The differences are paired, so their interval is that of one metric minus the other, recorded as one.
    alone = judge(
        Bound("d", "at_least", None, 0.0, 0.95), measure([a - b for a, b in zip(mine, lead, strict=True)], "d"), None
    )
    assert decision.interval == pytest.approx(alone.interval)


def test_another_metric_has_weights_of_its_own() -> None:
    losses, sizes = [1.0, 2.0, 4.0], [10.0, 20.0, 5.0]
    candidate = [*measure([2.0, 3.0, 5.0], "ngram", sizes), *measure(losses, "bits", sizes)]
    decision = judge(Bound("bits", "at_most", "candidate", -1.0, 0.9, "ngram"), candidate, candidate)
    assert decision.passed
    assert decision.interval == pytest.approx((-1.0, -1.0))


def test_rounding_decides_nothing() -> None:
    assert 0.3 + 0.1 + 0.2 != 0.6
    assert judge(Bound("rougeL", "at_most", "base", 0.3), measure([0.6]), measure([0.1 + 0.2])).passed
    assert judge(Bound("rougeL", "at_most", None, 0.6), measure([0.3 + 0.1 + 0.2]), None).passed


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("relation", ["at_least", "at_most"])
def test_what_is_no_finite_number_never_passes(value: float, relation: Any) -> None:
    records = [{"name": "m", "value": value}]
    assert not judge(Bound("m", relation, None, 0.0), records, None).passed


@given(value=NUMBERS, low=NUMBERS, step=st.floats(0, 1e6))
def test_a_stricter_bound_passes_no_more(value: float, low: float, step: float) -> None:
    records = [{"name": "m", "value": value}]
    assert (
        judge(Bound("m", "at_least", None, low), records, None).passed
        >= judge(Bound("m", "at_least", None, low + step), records, None).passed
    )


# --- the bootstrap ------------------------------------------------------------------------------------

EXAMPLES = st.lists(st.floats(0, 1), min_size=2, max_size=30)


@settings(max_examples=20, deadline=None)
@given(examples=EXAMPLES, difference=st.sampled_from([-0.5, 0.0, 0.25, 1.0]))
def test_a_constant_difference_is_certain(examples: list[float], difference: float) -> None:
    candidate = measure([x + difference for x in examples])
    decision = judge(Bound("rougeL", "at_least", "base", difference, 0.95), candidate, measure(examples))
    assert decision.interval == pytest.approx((difference, difference), abs=1e-9)
    assert decision.passed


@settings(max_examples=10, deadline=None)
@given(pairs=st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=2, max_size=20), seed=st.integers(0, 9))
def test_with_confidence_it_is_monotone_and_stricter(pairs: list[tuple[float, float]], seed: int) -> None:
    candidate, base = (measure(side) for side in zip(*pairs, strict=True))
    passed = []
    for offset in (-1.0, -0.1, 0.0, 0.1, 1.0):
        sure = judge(Bound("rougeL", "at_least", "base", offset, 0.95), candidate, base, seed)
        assert sure.passed <= judge(Bound("rougeL", "at_least", "base", offset), candidate, base).passed
        passed.append(sure.passed)
    assert passed == sorted(passed, reverse=True)
    assert passed[0]


def test_at_most_with_confidence_looks_at_the_upper_end() -> None:
    values = [0.0, 1.0] * 50
    low, high = judge(Bound("rougeL", "at_most", None, 1.0, 0.95), measure(values), None).interval or (0, 0)
    assert 0.3 < low < 0.5 < high < 0.7
    assert judge(Bound("rougeL", "at_most", None, high, 0.95), measure(values), None).passed
    assert not judge(Bound("rougeL", "at_most", None, high - 0.01, 0.95), measure(values), None).passed


def test_the_interval_is_as_wide_as_theory_says() -> None:
    rng = random.Random(3)
    values = [rng.gauss(0, 1) for _ in range(400)]
    decision = judge(Bound("rougeL", "at_least", None, 0.0, 0.95), measure(values), None)
    assert decision.interval is not None
    mean = math.fsum(values) / 400
    deviation = math.sqrt(math.fsum((x - mean) ** 2 for x in values) / 400)
    expected = 1.96 * deviation / math.sqrt(400)
    assert decision.interval == pytest.approx((mean - expected, mean + expected), abs=0.15 * expected)


def test_pairing_makes_a_difference_certain_that_else_were_not() -> None:
    rng = random.Random(1)
    difficulty = [rng.random() for _ in range(200)]
    better = [x + 0.03 + 0.02 * rng.random() for x in difficulty]
    bound = Bound("rougeL", "at_least", "base", 0.0, 0.95)
    assert judge(bound, measure(better), measure(difficulty)).passed
    assert not judge(bound, measure(better), measure(rng.sample(difficulty, 200))).passed


def test_different_examples_are_drawn_side_by_side_and_are_as_uncertain_as_theory_says() -> None:
    rng = random.Random(4)
    now, then = ([rng.gauss(0.5, 0.2) for _ in range(size)] for size in (150, 400))
    bound = Bound("rougeL", "at_least", "champion", 0.0, 0.95)
    decision = judge(bound, measure(now), measure(then), paired=False)
    assert decision.interval is not None
    means = [math.fsum(side) / len(side) for side in (now, then)]
    squares = [
        math.fsum((x - mean) ** 2 for x in side) / len(side) ** 2 for side, mean in zip((now, then), means, strict=True)
    ]
    half = 1.96 * math.sqrt(sum(squares))
    difference = means[0] - means[1]
    assert decision.interval == pytest.approx((difference - half, difference + half), abs=0.15 * half)
    # The same examples, known to be so, leave no doubt.
    assert judge(bound, measure(now), measure(now)).interval == pytest.approx((0.0, 0.0))
    low, high = judge(bound, measure(now), measure(now), paired=False).interval or (0.0, 0.0)
    assert low < -0.02
    assert high > 0.02


def test_the_same_seed_decides_the_same() -> None:
    rng = random.Random(2)
    candidate, base = (measure([rng.random() for _ in range(50)]) for _ in range(2))
    bound = Bound("rougeL", "at_least", "base", 0.0, 0.9)
    assert judge(bound, candidate, base, 1) == judge(bound, candidate, base, 1)
    assert judge(bound, candidate, base, 1).interval != judge(bound, candidate, base, 2).interval


def test_weights_and_exponential_means() -> None:
    # A perplexity: the loss of each example, weighted by its tokens. Both sides double: a ratio is constant.
    losses, tokens = [1.0, 2.0, 3.0, 2.5], [10.0, 20.0, 5.0, 1.0]
    base = measure(losses, "perplexity", tokens, "exp-mean")
    same = judge(Bound("perplexity", "at_most", "base", 0.0, 0.95), base, base)
    assert same.interval == (0.0, 0.0)
    assert same.passed
    alone = judge(Bound("perplexity", "at_most", None, 100.0, 0.95), base, None)
    assert alone.interval is not None
    assert math.e - 1e-9 <= alone.interval[0] < alone.value < alone.interval[1] <= math.exp(3) + 1e-9


def test_an_overflowing_perplexity_is_refused() -> None:
    records = [{"name": "p", "value": math.inf, "per_example": [1e9, 1.0], "weights": None, "aggregate": "exp-mean"}]
    assert not judge(Bound("p", "at_most", "base", 1.0, 0.95), records, records).passed


# --- what cannot be judged ----------------------------------------------------------------------------


def test_a_metric_that_was_not_measured() -> None:
    with pytest.raises(InputError, match=r"'rougel'.*the candidate: did you mean 'rougeL'\?\n.*rougeL, seconds"):
        judge(Bound("rougel", "at_least", None, 0.0), measure([1.0]), None)
    with pytest.raises(InputError, match=r"not measured of base\n.*nothing"):
        judge(Bound("rougeL", "at_least", "base", 0.0), measure([1.0]), None)


def test_confidence_needs_examples() -> None:
    with pytest.raises(InputError, match="recorded without examples"):
        judge(Bound("seconds", "at_most", None, 4.0, 0.95), measure([1.0]), None)


def test_another_metric_must_have_been_measured_with_examples() -> None:
    candidate = measure([1.0])
    with pytest.raises(InputError, match=r"'second', which was not measured of candidate: did you mean 'seconds'"):
        judge(Bound("rougeL", "at_most", "candidate", 0.0, None, "second"), candidate, candidate)
    with pytest.raises(InputError, match="seconds was recorded without examples"):
        judge(Bound("rougeL", "at_most", "candidate", 0.0, 0.95, "seconds"), candidate, candidate)
    assert judge(Bound("rougeL", "at_most", "candidate", 0.0, None, "seconds"), candidate, candidate).passed


def test_examples_must_pair() -> None:
    with pytest.raises(PluginError, match="1 and 2 examples for candidate and base"):
        judge(Bound("rougeL", "at_least", "base", 0.0, 0.95), measure([1.0]), measure([1.0, 2.0]))


def test_a_metric_may_have_a_list_of_bounds():
    bounds = parse_gate({"m": [{"at_least": 1}, {"at_most": "base + 2", "confidence": 0.9}]})
    assert [(bound.relation, bound.subject, bound.offset) for bound in bounds] == [
        ("at_least", None, 1.0),
        ("at_most", "base", 2.0),
    ]


def test_what_is_wrong_in_a_list_is_told_with_its_place():
    with pytest.raises(GateSyntax) as caught:
        parse_gate({"m": [{"at_least": 1}, {"at_lest": 2}, 3]})
    assert {path for path, _ in caught.value.problems} == {("m", 1), ("m", 1, "at_lest"), ("m", 2)}
