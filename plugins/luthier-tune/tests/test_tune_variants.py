"""The variants of `lora`: what is merged is what the kept adapter gives on the model as it was."""

from __future__ import annotations

import json
import re

import pytest
import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

import luthier_tune
from luthier import InputError, Model
from luthier.artifacts import build_manifest
from luthier.testing import arguments, make_context
from luthier_models.loading import load_causal_lm
from luthier_models.testing import write_tiny_model
from luthier_tune.adapters import AdapterSettings, inject

CONFIG = {"rank": 4, "learning_rate": 5e-3, "valid_examples": 4, "warmup_steps": 0, "max_steps": 4}


def tuned(directory, model, data, **config):
    ctx = make_context(directory, seed=3)
    luthier_tune.lora(model, data, ctx, **arguments(luthier_tune.lora, **(CONFIG | config)))
    return ctx


def configuration(ctx):
    return json.loads((ctx.output / "adapter" / "adapter_config.json").read_text())


def tensors(ctx):
    return load_file(ctx.output / "adapter" / "adapter_model.safetensors")


@pytest.mark.parametrize(
    "variant",
    [
        {"rslora": True},
        {"dora": True},
        {"init": "pissa"},
        {"ranks": {"q_proj": 2, "down_proj": 8}},
        {"init": "pissa", "rslora": True, "ranks": {"q_proj": 2}},
        {"init": "pissa", "dora": True, "ranks": {"q_proj": 2}, "targets": ["q_proj", "up_proj"]},
    ],
    ids="+".join,
)
def test_the_kept_adapter_on_the_model_as_it_was_is_the_merged_model(tmp_path, tiny, examples, variant):
    ctx = tuned(tmp_path, tiny, examples, **variant)
    assert ctx.metrics["valid_loss"].value < ctx.metrics["valid_loss_before"].value
    ids = torch.tensor([[1, 30, 40, 50, 60]])
    with torch.no_grad():
        merged = AutoModelForCausalLM.from_pretrained(ctx.output)(ids).logits
        base = AutoModelForCausalLM.from_pretrained(tiny.path)
        before = base(ids).logits
        adapted = PeftModel.from_pretrained(base, ctx.output / "adapter")(ids).logits
    torch.testing.assert_close(merged, adapted, atol=1e-4, rtol=1e-4)
    assert float((merged - before).abs().max()) > 0.05


def test_pissa_starts_as_the_model_is_and_with_its_largest_singular_values(tmp_path, tiny, examples):
    ctx = tuned(tmp_path / "pissa", tiny, examples, init="pissa")
    plain = tuned(tmp_path / "plain", tiny, examples)
    start = plain.metrics["valid_loss_before"].value
    assert ctx.metrics["valid_loss_before"].value == pytest.approx(start, abs=1e-5)
    base = load_causal_lm(tiny.path)
    weight = base.model.layers[0].mlp.up_proj.weight.detach().clone()
    layer = inject(base, AdapterSettings(rank=4, init="pissa"), 0).base_model.model.model.layers[0].mlp.up_proj
    left = layer.get_base_layer().weight
    values = torch.linalg.svdvals(weight)
    torch.testing.assert_close(torch.linalg.svdvals(left)[:4], values[4:8], atol=1e-2, rtol=1e-2)


def test_a_killed_step_of_pissa_and_loraplus_goes_on_to_the_same_bytes(tmp_path, tiny, examples):
    options = {"init": "pissa", "loraplus_ratio": 8.0, "checkpoint_minutes": 0.0}
    whole = tuned(tmp_path / "whole", tiny, examples, **options)
    ctx = make_context(tmp_path / "killed", seed=3)

    def emit(event):
        if event["type"] == "progress" and event["done"] == 3:
            raise KeyboardInterrupt

    ctx._emit = emit
    with pytest.raises(KeyboardInterrupt):
        luthier_tune.lora(tiny, examples, ctx, **arguments(luthier_tune.lora, **(CONFIG | options)))
    resumed = tuned(tmp_path / "killed", tiny, examples, **options)
    assert resumed.events[0]["done"] > 1
    hashes = [build_manifest(each.output, "model", "causal-lm").hash for each in (whole, resumed)]
    assert hashes[0] == hashes[1]


def test_the_scale_does_not_depend_on_the_rank_of_a_layer(tmp_path, tiny, examples):
    ctx = tuned(tmp_path, tiny, examples, ranks={"q_proj": 2, "layers.0.self_attn.q_proj": 6})
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors(ctx).items() if "q_proj.lora_A" in name}
    assert {name.split(".self_attn")[0][-1]: shape for name, shape in shapes.items()} == {"0": (6, 64), "1": (2, 64)}
    base = AutoModelForCausalLM.from_pretrained(tiny.path)
    adapted = PeftModel.from_pretrained(base, ctx.output / "adapter")
    scales = {m.scaling["default"] for m in adapted.modules() if isinstance(m, LoraLayer)}
    assert scales == {2.0}


def test_rslora_scales_by_the_root_of_the_rank(tiny):
    settings = AdapterSettings(rank=4, rslora=True, ranks={"q_proj": 16})
    adapted = inject(load_causal_lm(tiny.path), settings, 0)
    layer = adapted.base_model.model.model.layers[0]
    assert layer.self_attn.q_proj.scaling["default"] == 2.0
    assert layer.mlp.up_proj.scaling["default"] == 4.0


def test_loraplus_lets_the_second_matrices_learn_faster(tmp_path, tiny, examples):
    # The first step of Adam is as long as the learning rate, whatever the gradient.
    moved = {}
    for ratio in (1.0, 8.0):
        ctx = tuned(tmp_path / str(ratio), tiny, examples, loraplus_ratio=ratio, max_steps=1)
        moved[ratio] = float(max(t.abs().max() for name, t in tensors(ctx).items() if "lora_B" in name))
    assert moved[1.0] == pytest.approx(5e-3, rel=1e-3)
    assert moved[8.0] == pytest.approx(8 * 5e-3, rel=1e-3)


def test_dora_keeps_its_magnitudes(tmp_path, tiny, examples):
    ctx = tuned(tmp_path, tiny, examples, dora=True)
    assert configuration(ctx)["use_dora"] is True
    assert any("lora_magnitude_vector" in name for name in tensors(ctx))


@pytest.mark.parametrize(
    ("options", "message", "remedy"),
    [
        ({"targets": ["q_proj", "k_porj"]}, "`targets` names 'k_porj'.*did you mean 'k_proj'", "There are: .*up_proj"),
        ({"ranks": {"q_porj": 8}}, "`ranks` names 'q_porj'.*did you mean 'q_proj'", "There are"),
        ({"targets": ["q_proj"], "ranks": {"v_proj": 8}}, "`ranks` names 'v_proj'", "There are: q_proj"),
        ({"init": "pissa", "rank": 65}, "singular values of .* has (32|64)", "Lower `rank`"),
        ({"init": "pissa", "ranks": {"v_proj": 33}}, "starts with the 33 largest.*v_proj, which has 32", "`ranks`"),
    ],
)
def test_what_cannot_be_adapted_is_explained(tmp_path, tiny, examples, options, message, remedy):
    with pytest.raises(InputError, match=message) as caught:
        tuned(tmp_path, tiny, examples, **options)
    assert caught.value.remedy
    assert re.search(remedy, caught.value.remedy)


def test_an_output_layer_is_adapted_only_where_it_is_not_the_embedding(tmp_path, tiny, examples):
    with pytest.raises(InputError, match="'lm_head'"):
        tuned(tmp_path / "tied", tiny, examples, targets=["lm_head"])
    untied = Model.at(write_tiny_model(tmp_path / "model", tied=False), "causal-lm", "1" * 64)
    ctx = tuned(tmp_path / "untied", untied, examples, targets=["lm_head"])
    assert ctx.metrics["valid_loss"].value < ctx.metrics["valid_loss_before"].value
