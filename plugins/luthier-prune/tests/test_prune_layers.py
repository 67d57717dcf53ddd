"""Whole layers go by their influence; what is left is the model without them, in every family."""

from __future__ import annotations

import json
from itertools import pairwise

import polars as pl
import pytest
import torch

from luthier.testing import make_context
from luthier_models.batching import batched
from luthier_models.loading import load_causal_lm
from luthier_models.prompts import PromptEncoder
from luthier_models.runtime import TransformersGenerator
from luthier_prune import layers
from luthier_prune.calibration import read_calibration
from luthier_prune.depth import block_influence
from luthier_prune.layouts import layout_of
from luthier_prune.options import Pruning

IDS = torch.tensor([[5, 40, 33, 100, 7, 60, 61, 62, 12]])


def prune(model, data, directory, **settings):
    ctx = make_context(directory, seed=1)
    layers(model, data, ctx, pruning=Pruning(**settings))
    return ctx


def hidden_states(model):
    """What enters each layer, and what leaves the last, before the final norm."""
    states = []
    blocks = layout_of(model).blocks(model)
    hooks = [block.register_forward_pre_hook(lambda _, given: states.append(given[0])) for block in blocks]
    hooks.append(
        blocks[-1].register_forward_hook(lambda _, __, out: states.append(out[0] if type(out) is tuple else out))
    )
    with torch.no_grad():
        model(IDS)
    for hook in hooks:
        hook.remove()
    return states


def test_influence_is_one_minus_the_cosine_of_what_enters_and_what_leaves(family):
    model = load_causal_lm(family.path)
    states = hidden_states(model)
    expected = [1 - float(torch.nn.functional.cosine_similarity(a, b, dim=-1).mean()) for a, b in pairwise(states)]
    packed = batched(model)
    ids = IDS[0].tolist()
    # The last token predicts nothing, so that it is not in a row.
    rows = [row for _, row in packed.rows([(ids, [0])], 512)]
    assert block_influence(packed, rows, layout_of(model).blocks(model)) == pytest.approx(expected, abs=1e-5)


def test_the_layers_of_least_influence_go_and_the_others_are_as_they_were(family, examples, tmp_path):
    ctx = prune(family, examples, tmp_path, ratio=0.5, curve=0)
    table = pl.read_parquet(ctx.notes / "tables" / "layers.parquet")
    gone = set(table.sort("influence")["layer"][:2])
    assert set(table.filter("removed")["layer"]) == gone
    before, after = load_causal_lm(family.path), load_causal_lm(ctx.output)
    assert after.config.num_hidden_layers == 2
    old, new = (layout_of(model).blocks(model) for model in (before, after))
    for kept, place in zip(sorted(set(range(4)) - gone), range(2), strict=True):
        for name, tensor in old[kept].state_dict().items():
            assert new[place].state_dict()[name].equal(tensor)
    # As if the others were passed by, which no renumbering may change.
    for number in gone:
        old[number].forward = lambda hidden_states, *_, **__: hidden_states
    with torch.no_grad():
        expected = before(IDS, use_cache=False).logits
        assert torch.allclose(after(IDS).logits, expected, atol=1e-5)
    metrics = {name: metric.value for name, metric in ctx.metrics.items()}
    assert metrics["parameters"] == sum(each.numel() for each in after.parameters())
    assert metrics["parameters_before"] == sum(each.numel() for each in before.parameters())
    assert metrics["megabytes"] < metrics["megabytes_before"]
    assert metrics["removed_layers"] == 2
    assert TransformersGenerator(ctx.output).generate(["Which table?"], max_new_tokens=4)


def test_the_damage_is_that_of_the_written_model(llama, examples, tmp_path):
    ctx = prune(llama, examples, tmp_path, ratio=0.25, curve=0)
    encoder = PromptEncoder.from_directory(llama.path)
    held_out = read_calibration(examples, encoder, Pruning(), make_context(tmp_path / "again", seed=1)).held_out
    models = [load_causal_lm(path) for path in (llama.path, ctx.output)]
    divergences, losses = [], ([], [])
    for given, targets in held_out:
        ids = torch.tensor([[*given, *targets]])
        with torch.no_grad():
            chances = [m(ids).logits[0, len(given) - 1 : -1].log_softmax(1) for m in models]
        divergences.append((chances[0].exp() * (chances[0] - chances[1])).sum(1))
        for each, found in zip(chances, losses, strict=True):
            found.append(-each[torch.arange(len(targets)), torch.tensor(targets)])
    assert ctx.metrics["mean_kl"].value == pytest.approx(float(torch.cat(divergences).mean()), rel=1e-4)
    for name, found in zip(("perplexity_before", "perplexity"), losses, strict=True):
        assert ctx.metrics[name].value == pytest.approx(float(torch.cat(found).mean().exp()), rel=1e-4)


def test_a_number_of_parameters_is_kept_to(llama, examples, tmp_path):
    whole = sum(each.numel() for each in load_causal_lm(llama.path).parameters())
    ctx = prune(llama, examples, tmp_path, parameters=str(whole - 1), curve=0)
    assert ctx.metrics["removed_layers"].value == 1
    assert ctx.metrics["parameters"].value < whole


def test_a_budget_of_quality_is_kept_to_and_used_up(llama, examples, tmp_path):
    found = {}
    for removed in (1, 2, 3):
        found[removed] = prune(llama, examples, tmp_path / str(removed), ratio=removed / 4, curve=0)
    damage = {removed: ctx.metrics["mean_kl"].value for removed, ctx in found.items()}
    assert damage[1] < damage[2]
    between = prune(llama, examples, tmp_path / "budget", max_kl=(damage[1] + damage[2]) / 2)
    assert between.metrics["removed_layers"].value == 1
    assert between.metrics["mean_kl"].value == pytest.approx(damage[1], rel=1e-5)
    sizes = pl.read_parquet(between.notes / "tables" / "quality-by-size.parquet")
    assert {0, 1, 2} <= set(sizes["removed_layers"])


def test_the_curve_has_the_way_to_the_target(llama, examples, tmp_path):
    ctx = prune(llama, examples, tmp_path, ratio=0.75, curve=5)
    sizes = pl.read_parquet(ctx.notes / "tables" / "quality-by-size.parquet")
    assert sizes["removed_layers"].to_list() == [0, 1, 2, 3]
    assert sizes["parameters"].is_sorted(descending=True)
    assert sizes["mean_kl"][0] == 0


def test_settings_of_generation_and_the_template_are_kept(llama, examples, tmp_path):
    ctx = prune(llama, examples, tmp_path, ratio=0.25, curve=0)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json"):
        assert (ctx.output / name).read_bytes() == (llama.path / name).read_bytes()
    config = json.loads((ctx.output / "config.json").read_text())
    assert config["num_hidden_layers"] == 3
    assert config["tie_word_embeddings"] is True
