"""Grids of blocks: what every method keeps, and which comes nearer."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from luthier_models.grids import METHODS, quantize


def gaussian(seed: int, rows: int = 64, columns: int = 96) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(sorted(METHODS)),
    st.sampled_from([4, 8]),
    st.sampled_from([16, 32, 64]),
    st.integers(1, 5),
    st.integers(1, 100),
    st.sampled_from([0.0, 1e-20, 1.0, 1e20]),
    st.integers(0, 99),
)
def test_every_method_gives_integers_that_fit_and_numbers_that_are_finite(
    method, bits, block_size, rows, columns, size, seed
):
    weight = gaussian(seed, rows, columns) * size
    found = quantize(weight, METHODS[method], bits, block_size)
    assert found.integers.shape == weight.shape
    assert found.grid.scales.shape == (rows, -(-columns // block_size))
    assert int(found.integers.max()) < 2**bits
    zero_points = found.grid.zero_points
    assert torch.equal(zero_points, zero_points.round().clamp(0, 2**bits - 1))
    values = found.values()
    assert torch.isfinite(values).all()
    # No weight leaves the range of its block by more than a step of it.
    step = found.grid.scales.repeat_interleave(block_size, 1)[:, :columns]
    assert ((values - weight).abs() <= weight.abs().amax() + step).all()


@pytest.mark.parametrize("method", sorted(METHODS))
def test_what_lies_on_a_grid_is_kept(method):
    lowest = 1 if method == "symmetric" else 0
    integers = torch.randint(lowest, 16, (8, 64), generator=torch.Generator().manual_seed(0)).float()
    # Every block has its extremes, so that its range is that of the grid.
    integers[:, ::32], integers[:, 1::32] = lowest, 15
    zero = 8 if method == "symmetric" else 6
    found = quantize(0.25 * (integers - zero), METHODS[method], 4, 32)
    assert torch.allclose(found.values(), 0.25 * (integers - zero), atol=1e-6)


def test_a_search_comes_nearer_than_the_range():
    weight = gaussian(1, 256, 256)
    errors = {name: (quantize(weight, find, 4, 32).values() - weight).square().mean() for name, find in METHODS.items()}
    assert errors["k-quant"] < 0.95 * errors["rtn"]
    assert errors["hqq"] < errors["rtn"]
    assert errors["rtn"] < errors["symmetric"]


def test_columns_that_count_more_are_kept_better():
    weight = gaussian(2, 256, 64)
    importance = torch.ones(64)
    importance[::2] = 25
    plain, weighted = (
        (quantize(weight, METHODS["k-quant"], 4, 32, each).values() - weight).square().mean(0)
        for each in (None, importance)
    )
    assert weighted[::2].mean() < 0.9 * plain[::2].mean()


def test_rows_are_independent_of_those_around_them():
    weight = gaussian(3, 5000, 32)
    whole = quantize(weight, METHODS["hqq"], 4, 32).values()
    assert torch.equal(whole[4500:], quantize(weight[4500:], METHODS["hqq"], 4, 32).values())
