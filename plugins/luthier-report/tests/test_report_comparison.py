"""The numbers side by side: which direction is good, when a difference counts."""

from __future__ import annotations

from typing import Any

import pytest

from luthier.context import Metric
from luthier.runrecord import GateResult
from luthier_report._comparison import comparisons, direction_of


@pytest.mark.parametrize(
    ("metric", "direction"),
    [
        ("rougeL", "higher"),
        ("top1_agreement", "higher"),
        ("tokens_per_second", "higher"),
        ("perplexity", "lower"),
        ("mean_kl", "lower"),
        ("bits_per_byte", "lower"),
        ("skill", ""),
        ("length", ""),
    ],
)
def test_the_direction_is_told_by_the_name(builder: Any, metric: str, direction: str) -> None:
    assert direction_of(builder.finish(), "step", metric) == direction


def test_a_gate_knows_the_direction_better(builder: Any) -> None:
    builder.data.gates.append(GateResult("step", "perplexity", 9.0, "at least 4", True, ""))
    run = builder.finish()
    assert direction_of(run, "step", "perplexity") == "higher"
    assert direction_of(run, "other", "perplexity") == "lower"


def compared(builder: Any, candidate: Any, base: Any) -> Any:
    step = builder.step("perplexity", "validate", "perplexity", kind="report")
    builder.note(step, subject="candidate", metrics={"perplexity": candidate})
    builder.note(step, subject="base", metrics={"perplexity": base})
    (one,) = comparisons(builder.finish())
    assert one.subjects == ["candidate", "base"]
    return one.rows[0].differences["base"]


def test_numbers_without_examples_have_no_interval(builder: Any) -> None:
    difference = compared(builder, 9.0, 12.0)
    assert (difference.value, difference.interval, difference.verdict) == (-3.0, None, "better")


def test_a_difference_of_nothing_is_the_same_and_no_chance(builder: Any) -> None:
    metric = Metric("perplexity", 2.0, (1.0, 3.0, 2.0))
    difference = compared(builder, metric, metric)
    assert difference.verdict == "same"
    assert not difference.may_be_chance


def test_a_difference_whose_interval_holds_zero_may_be_chance(builder: Any) -> None:
    difference = compared(builder, Metric("perplexity", 2.0, (1.0, 3.0)), Metric("perplexity", 2.5, (4.0, 1.0)))
    assert difference.verdict == "same"
    assert difference.may_be_chance


def test_examples_that_cannot_be_paired_give_no_interval(builder: Any) -> None:
    difference = compared(builder, Metric("perplexity", 2.0, (1.0, 3.0)), Metric("perplexity", 3.0, (3.0,)))
    assert difference.interval is None
    assert difference.verdict == "better"


def test_a_dot_in_a_metric_is_no_subject(builder: Any) -> None:
    step = builder.step("toxicity", "validate", "toxicity", kind="report")
    builder.note(step, subject="candidate", metrics={"harm.insult": 0.1})
    (one,) = comparisons(builder.finish())
    assert [row.name for row in one.rows] == ["harm.insult"]
