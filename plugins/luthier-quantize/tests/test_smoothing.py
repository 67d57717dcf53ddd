"""`smooth`: the same function with evener inputs, whose rounding costs less."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from luthier import Model
from luthier.testing import make_context
from luthier_models.runtime import TransformersGenerator
from luthier_onnx.runtime import GenaiGenerator
from luthier_quantize import int8, smooth
from luthier_quantize.folding import Fold
from luthier_quantize.layerwise import Group
from luthier_quantize.smoothing import smoothing_scales
from luthier_validate.divergence import kl_divergences

TEXTS = ["the number of items in a list is read from a file", "no value is found, and written to the table"]


@pytest.fixture(scope="module")
def smoothed(uneven, data, tmp_path_factory):
    ctx = make_context(tmp_path_factory.mktemp("smoothed"))
    smooth(Model.at(uneven, "causal-lm"), data, ctx, calibration_tokens=1024)
    return ctx


def test_it_computes_the_same(uneven, smoothed):
    before, after = (
        np.concatenate(list(TransformersGenerator(path, dtype="float32").logits(TEXTS, TEXTS)))
        for path in (uneven, smoothed.output)
    )
    np.testing.assert_allclose(after, before, atol=1e-3 * np.abs(before).max())
    assert smoothed.metrics["mean_kl"].value < 1e-6
    assert smoothed.metrics["smoothed"].value == 1


def test_the_table_says_what_became_even(smoothed):
    table = pl.read_parquet(smoothed.notes / "tables" / "smooth.parquet")
    assert table.height == 2 * 4
    norms = table.filter(pl.col("products").str.contains("q_proj|gate_proj"))
    assert norms.height == 4
    assert (norms["after"] < 0.6 * norms["before"]).all()


def test_rounding_the_inputs_costs_less(uneven, smoothed, export, tmp_path):
    def lost(model):
        ctx = make_context(tmp_path / model.name)
        int8(export(model), ctx)
        runtimes = GenaiGenerator(ctx.output), TransformersGenerator(uneven, dtype="float32")
        ours, theirs = (np.concatenate(list(each.logits(TEXTS, TEXTS))) for each in runtimes)
        return float(kl_divergences(theirs, ours).mean())

    assert lost(smoothed.output) < 0.8 * lost(uneven)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**31), st.floats(0, 1), st.integers(1, 3))
def test_scales_are_positive_bounded_and_shared_where_outputs_are(seed, strength, readers):
    generator = torch.Generator().manual_seed(seed)
    outputs = 8
    source = torch.arange(outputs).repeat(readers)
    inputs = torch.randn(64, outputs * readers, generator=generator) * 10 ** torch.randn(outputs * readers)
    module = torch.nn.Linear(outputs * readers, 4, bias=False)
    group = Group({"product.weight": module}, inputs.T @ inputs / 64)
    scales = smoothing_scales(group, Fold(torch.nn.Linear(4, outputs), source), strength)
    assert scales.shape == (outputs,)
    assert torch.isfinite(scales).all()
    assert (scales >= 1 / 20).all()
    assert (scales <= 20).all()
