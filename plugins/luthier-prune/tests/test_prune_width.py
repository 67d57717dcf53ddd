"""Channels and heads go by what they add; the narrow model computes what the wide one does without them."""

from __future__ import annotations

import polars as pl
import pytest
import torch

from luthier import InputError, Model
from luthier.testing import make_context
from luthier_models.loading import load_causal_lm
from luthier_models.runtime import TransformersGenerator
from luthier_prune import width
from luthier_prune.channels import Width
from luthier_prune.layouts import LAYOUTS, layout_of
from luthier_prune.matrices import matrix
from luthier_prune.options import Pruning

from .conftest import write_family

IDS = torch.tensor([[5, 40, 33, 100, 7, 60, 61, 62, 12]])


def prune(model, data, directory, *, parts=("mlp",), multiple_of=8, **settings):
    ctx = make_context(directory, seed=1)
    width(model, data, ctx, parts=list(parts), multiple_of=multiple_of, pruning=Pruning(**{"curve": 0, **settings}))
    return ctx


def added_by(model, name):
    """What enters the matrices of a name in each layer, for the tokens of IDS: (layers, tokens, inputs)."""
    caught = []
    hooks = [
        block.get_submodule(name).register_forward_pre_hook(lambda _, given: caught.append(given[0].flatten(0, -2)))
        for block in layout_of(model).blocks(model)
    ]
    with torch.no_grad():
        model(IDS)
    for hook in hooks:
        hook.remove()
    return caught


def ranked(model, **options):
    from luthier_models.batching import batched

    cut = Width(model, multiple_of=8, **options)
    packed = batched(model)
    cut.rank(packed, [row for _, row in packed.rows([(IDS[0].tolist(), [0])], 512)])
    return cut


def test_a_channel_is_worth_what_it_adds_to_the_hidden_states(family):
    model = load_causal_lm(family.path)
    scores = ranked(model, parts=["mlp"])._scores["channels"]
    name = layout_of(model).channels_out
    entered = added_by(model, name)
    for block, inputs, score in zip(layout_of(model).blocks(model), entered, scores, strict=True):
        columns = matrix(block.get_submodule(name)).detach()
        # The vector that channel 3 adds at each token.
        added = inputs[:, 3:4] * columns[:, 3]
        assert float(score[3]) == pytest.approx(float(added.square().sum(1).mean().sqrt()), rel=1e-4)


def test_a_group_of_heads_is_worth_what_it_adds(llama):
    model = load_causal_lm(llama.path)
    scores = ranked(model, parts=["heads"])._scores["groups"]
    for block, inputs, score in zip(model.model.layers, added_by(model, "self_attn.o_proj"), scores, strict=True):
        # Two of four heads of width 16 share their keys and values.
        added = inputs[:, 32:] @ block.self_attn.o_proj.weight.detach()[:, 32:].T
        assert float(score[1]) == pytest.approx(float(added.square().sum(1).mean().sqrt()), rel=1e-4)


def test_without_channels_the_model_computes_what_it_did_with_them_at_zero(family, examples, tmp_path):
    ctx = prune(family, examples, tmp_path, ratio=0.5)
    before, after = load_causal_lm(family.path), load_causal_lm(ctx.output)
    layout = layout_of(before)
    assert getattr(after.config, layout.width_key) == 48
    for old, new in zip(layout.blocks(before), layout.blocks(after), strict=True):
        out, narrow = (matrix(block.get_submodule(layout.channels_out)) for block in (old, new))
        assert narrow.shape == (64, 48)
        stays = [any(column.equal(kept) for kept in narrow.T) for column in out.T]
        assert sum(stays) == 48
        with torch.no_grad():
            out[:, ~torch.tensor(stays)] = 0
    with torch.no_grad():
        assert torch.allclose(after(IDS).logits, before(IDS).logits, atol=1e-4)
    assert ctx.metrics["parameters"].value == sum(each.numel() for each in after.parameters())
    lost = pl.read_parquet(ctx.notes / "tables" / "width.parquet")["lost_channels"]
    assert lost.is_between(0.01, 0.5).all()
    assert TransformersGenerator(ctx.output).generate(["Which table?"], max_new_tokens=4)


@pytest.mark.parametrize("name", [name for name, layout in LAYOUTS.items() if layout.attention])
def test_heads_go_with_the_keys_and_values_that_they_share(name, examples, tmp_path):
    model = Model.at(write_family(tmp_path / "model", name), "causal-lm")
    ctx = prune(model, examples, tmp_path / "pruned", parts=["heads"], ratio=0.5)
    before, after = load_causal_lm(model.path), load_causal_lm(ctx.output)
    assert (after.config.num_attention_heads, after.config.num_key_value_heads, after.config.head_dim) == (2, 1, 16)
    assert ctx.metrics["parameters"].value == sum(each.numel() for each in after.parameters())
    for old, new in zip(before.model.layers, after.model.layers, strict=True):
        wide, narrow = old.self_attn.o_proj.weight, new.self_attn.o_proj.weight
        group = next(g for g in (0, 1) if wide[:, 32 * g : 32 * (g + 1)].equal(narrow))
        with torch.no_grad():
            wide[:, 32 * (1 - group) : 32 * (2 - group)] = 0
    if name != "olmo2":  # which normalises over all heads, so that others change too
        with torch.no_grad():
            assert torch.allclose(after(IDS).logits, before(IDS).logits, atol=1e-4)


def test_both_parts_go_in_one_step(llama, examples, tmp_path):
    ctx = prune(llama, examples, tmp_path, parts=["mlp", "heads"], ratio=0.5, curve=2)
    config = load_causal_lm(ctx.output).config
    assert (config.intermediate_size, config.num_attention_heads, config.num_key_value_heads) == (48, 2, 1)
    assert len(pl.read_parquet(ctx.notes / "tables" / "quality-by-size.parquet")) == 4


def test_what_stays_is_a_multiple(llama, examples, tmp_path):
    ctx = prune(llama, examples, tmp_path, multiple_of=32, ratio=0.3)
    assert load_causal_lm(ctx.output).config.intermediate_size == 64


def test_heads_whose_width_follows_from_their_number_are_refused(gpt2, examples, tmp_path):
    with pytest.raises(InputError, match="heads of a gpt2 model cannot be removed") as caught:
        prune(gpt2, examples, tmp_path, parts=["heads"], ratio=0.5)
    assert "olmo2" in caught.value.remedy
