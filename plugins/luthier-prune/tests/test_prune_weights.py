"""Single weights become zero, those that matter least by the chosen measure, in the chosen pattern."""

from __future__ import annotations

import polars as pl
import pytest
import torch

from luthier.testing import make_context
from luthier_models.loading import load_causal_lm
from luthier_models.prompts import PromptEncoder
from luthier_prune import weights
from luthier_prune.calibration import read_calibration
from luthier_prune.layouts import layout_of
from luthier_prune.matrices import is_matrix, matrix
from luthier_prune.options import Pruning


def prune(model, data, directory, *, method="wanda", pattern="unstructured", **settings):
    ctx = make_context(directory, seed=1)
    pruning = Pruning(**{"curve": 0, **settings})
    weights(model, data, ctx, method=method, pattern=pattern, pruning=pruning)
    return ctx


def matrices(model):
    blocks = enumerate(layout_of(model).blocks(model))
    return {f"{n}.{name}": m for n, b in blocks for name, m in b.named_modules() if is_matrix(m)}


@pytest.mark.parametrize("method", ["wanda", "magnitude"])
@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_the_least_weights_are_zero_and_the_others_as_they_were(request, name, examples, tmp_path, method):
    model = request.getfixturevalue(name)
    ctx = prune(model, examples, tmp_path, method=method, ratio=0.25)
    before, after = load_causal_lm(model.path), load_causal_lm(ctx.output)
    zeros = 0
    for pair in zip(matrices(before).values(), matrices(after).values(), strict=True):
        old, new = map(matrix, pair)
        gone = new == 0
        assert old[~gone].equal(new[~gone])
        zeros += int(gone.sum())
        if method == "magnitude":
            assert old[gone].abs().max() <= old[~gone].abs().min()
        else:
            assert (gone.sum(1) == old.shape[1] // 4).all()
    whole = sum(each.numel() for each in before.parameters())
    assert ctx.metrics["parameters"].value == whole - zeros
    table = pl.read_parquet(ctx.notes / "tables" / "weights.parquet")
    assert table["zeros"].to_list() == pytest.approx([0.25] * len(table), abs=0.005)


def test_wanda_weighs_by_the_norm_of_the_inputs(llama, examples, tmp_path):
    ctx = prune(llama, examples, tmp_path, ratio=0.5)
    before, after = load_causal_lm(llama.path), load_causal_lm(ctx.output)
    pairs = read_calibration(examples, PromptEncoder.from_directory(llama.path), Pruning(), ctx).pairs
    squares = torch.zeros(96)

    def add(_, given):
        squares.add_(given[0].flatten(0, -2).square().sum(0))

    before.model.layers[2].mlp.down_proj.register_forward_pre_hook(add)
    for first, then in pairs:
        with torch.no_grad():
            before(torch.tensor([[*first, *then][:-1]]))
    old, new = (model.model.layers[2].mlp.down_proj.weight for model in (before, after))
    scores = old.abs() * squares.sqrt()
    for score, row in zip(scores, new, strict=True):
        assert score[row == 0].max() <= score[row != 0].min() * (1 + 1e-5)


@pytest.mark.parametrize(("pattern", "of"), [("2:4", 4), ("4:8", 8)])
def test_a_pattern_leaves_half_of_each_group(gpt2, examples, tmp_path, pattern, of, caplog):
    with caplog.at_level("INFO"):
        ctx = prune(gpt2, examples, tmp_path, pattern=pattern)
    assert "no smaller and no faster model" in caplog.text
    for module in matrices(load_causal_lm(ctx.output)).values():
        assert ((matrix(module) == 0).unflatten(1, (-1, of)).sum(-1) == of // 2).all()
    assert ctx.metrics["removed_percent"].value == 50
    assert ctx.metrics["megabytes"].value == pytest.approx(ctx.metrics["megabytes_before"].value, rel=0.01)


def test_a_budget_is_kept_to(llama, examples, tmp_path):
    ctx = prune(llama, examples, tmp_path, max_kl=0.05)
    assert 0 < ctx.metrics["mean_kl"].value <= 0.05
    sizes = pl.read_parquet(ctx.notes / "tables" / "quality-by-size.parquet")
    beyond = sizes.filter(pl.col("removed_percent") == ctx.metrics["removed_percent"].value + 1)
    assert beyond["mean_kl"].item() > 0.05
