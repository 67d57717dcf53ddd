"""`mixed`: the choice keeps to its budget, is the best there is, and is what the export has."""

from __future__ import annotations

import itertools

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import luthier
from luthier import InputError, Model
from luthier.testing import make_context
from luthier_onnx import genai
from luthier_onnx.packed import read_packed
from luthier_quantize import mixed
from luthier_quantize.choosing import Candidate, choices, loss_of, lower_hull, size_of, within_loss, within_size
from luthier_quantize.options import Calibration

candidates = st.lists(
    st.builds(Candidate, st.just(0), st.integers(1, 50), st.floats(0, 1, allow_nan=False)), min_size=1, max_size=4
)
some_parts = st.dictionaries(st.sampled_from("abcd"), candidates, min_size=1)


@settings(max_examples=80, deadline=None)
@given(some_parts)
def test_no_choice_of_a_size_on_the_way_loses_less(parts):
    everything = [
        (sum(each.size for each in row), sum(each.loss for each in row)) for row in itertools.product(*parts.values())
    ]
    found = list(choices(parts))
    assert [size_of(choice) for choice in found] == sorted(size_of(choice) for choice in found)
    for choice in found:
        best = min(loss for size, loss in everything if size <= size_of(choice))
        assert loss_of(choice) <= best + 1e-9
    assert loss_of(found[-1]) == pytest.approx(min(loss for _, loss in everything))


@settings(max_examples=40, deadline=None)
@given(some_parts, st.floats(0, 4), st.integers(1, 200))
def test_budgets_are_kept_where_they_can_be(parts, loss, size):
    choice = within_loss(parts, loss)
    possible = sum(min(each.loss for each in options) for options in parts.values())
    assert loss_of(choice) <= max(loss, possible + 1e-9)
    smallest = sum(min(each.size for each in options) for options in parts.values())
    if smallest > size:
        with pytest.raises(InputError, match="the smallest choice takes"):
            within_size(parts, size)
    else:
        assert size_of(within_size(parts, size)) <= size


def test_what_is_above_the_hull_is_never_chosen():
    hull = lower_hull([Candidate("a", 1, 1.0), Candidate("b", 2, 0.9), Candidate("c", 3, 0.2), Candidate("d", 4, 0.3)])
    assert [each.option for each in hull] == ["a", "c"]


@pytest.mark.parametrize("given_budget", ["", "    max_kl: 0.1\n    max_megabytes: 10\n"])
def test_one_budget_is_asked_for_while_planning(tmp_path, given_budget):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"luthier: 1\nsteps:\n  - quantize: mixed\n{given_budget}")
    with pytest.raises(luthier.LuthierError, match="needs one budget"):
        luthier.plan(recipe)


def quantized(tiny, data, directory, **budget):
    ctx = make_context(directory)
    mixed(Model.at(tiny, "causal-lm"), data, ctx, calibration=Calibration(calibration_tokens=2048), **budget)
    return ctx


def bits(ctx) -> set[int]:
    return {each.bits for each in read_packed(ctx.output).values()}


@pytest.mark.slow
def test_a_size_is_kept_to_and_more_of_it_loses_less(tiny, data, tmp_path):
    small, large = (quantized(tiny, data, tmp_path / str(size), max_megabytes=size) for size in (0.186, 0.206))
    assert small.metrics["megabytes"].value <= 0.186 < large.metrics["megabytes"].value <= 0.206
    assert large.metrics["mean_kl"].value < small.metrics["mean_kl"].value
    assert large.metrics["predicted_kl"].value < small.metrics["predicted_kl"].value
    table = pl.read_parquet(large.notes / "tables" / "mixed.parquet")
    assert table["kl"].sum() == pytest.approx(large.metrics["predicted_kl"].value)
    assert table["part"].to_list()[-1] == "head"
    assert (table["kl_int8/64"] < table["kl_int4/32"]).all()
    exported = make_context(tmp_path / "export")
    genai(Model.at(large.output, "causal-lm"), exported)
    assert exported.metrics["megabytes"].value == pytest.approx(large.metrics["megabytes"].value, abs=0.05)


def test_a_loss_is_kept_to_by_the_smallest_model_that_does(tiny, data, tmp_path):
    strict, lax = (quantized(tiny, data, tmp_path / str(kl), max_kl=kl) for kl in (0.005, 0.3))
    assert strict.metrics["mean_kl"].value <= 0.005
    assert lax.metrics["mean_kl"].value <= 0.3
    assert lax.metrics["megabytes"].value < strict.metrics["megabytes"].value
    assert bits(strict) > {4} or bits(strict) == {8}


def test_a_loss_that_no_choice_keeps_to_is_told(tiny, data, tmp_path, caplog):
    ctx = quantized(tiny, data, tmp_path, max_kl=1e-9)
    assert "above `max_kl`" in caplog.text
    assert bits(ctx) == {8}


def test_a_size_that_nothing_fits_into_is_refused(tiny, data, tmp_path):
    with pytest.raises(InputError, match=r"the smallest choice takes 0\.\d+ MB, .*; `max_megabytes` allows 0\.01"):
        quantized(tiny, data, tmp_path, max_megabytes=0.01)
