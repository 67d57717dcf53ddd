"""Quantizers on calibration data: what they choose is what is exported, and it is better than without data."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, OPTConfig

from luthier import Dataset, InputError, Model
from luthier.testing import make_context
from luthier_models.grids import k_quant, quantize, symmetric
from luthier_models.loading import load_causal_lm
from luthier_onnx import genai
from luthier_onnx.packed import PACKED_FILE, read_packed
from luthier_quantize import awq, gptq, smooth
from luthier_quantize.fisher import importances, predicted_kl
from luthier_quantize.layerwise import LayerByLayer
from luthier_quantize.options import FourBits
from luthier_quantize.second_order import gptq as by_gptq


@pytest.fixture
def model(tiny):
    found = load_causal_lm(tiny, dtype="float32")
    found.requires_grad_(False)
    return found


@pytest.fixture(scope="module")
def windows() -> torch.Tensor:
    return torch.randint(5, 300, (12, 32), generator=torch.Generator().manual_seed(1))


def correlated(columns: int, seed: int = 0) -> torch.Tensor:
    """Inputs of which a few directions hold most."""
    generator = torch.Generator().manual_seed(seed)
    mixed = torch.randn(2000, 8, generator=generator) @ torch.randn(8, columns, generator=generator)
    return mixed + 0.3 * torch.randn(2000, columns, generator=generator)


def test_gptq_changes_a_product_less_than_rounding_and_equals_it_where_inputs_are_independent():
    weight = torch.randn(48, 80, generator=torch.Generator().manual_seed(2))
    inputs = correlated(80)
    moment = inputs.T @ inputs
    chosen = by_gptq(weight, moment, k_quant, 4, 32)
    plain = quantize(weight, k_quant, 4, 32, moment.diagonal() / moment.diagonal().mean())
    ours, theirs = ((inputs @ (each.values() - weight).T).square().mean() for each in (chosen, plain))
    assert ours < 0.5 * theirs
    independent = by_gptq(weight[:, :64], torch.eye(64), k_quant, 4, 32)
    assert torch.equal(independent.integers, quantize(weight[:, :64], k_quant, 4, 32).integers)


def test_gptq_changes_a_product_less_than_rounding_in_8_bits_too():
    weight = torch.randn(48, 80, generator=torch.Generator().manual_seed(2))
    inputs = correlated(80)
    chosen = by_gptq(weight, inputs.T @ inputs, symmetric, 8, 32)
    plain = quantize(weight, symmetric, 8, 32)
    ours, theirs = ((inputs @ (each.values() - weight).T).square().mean() for each in (chosen, plain))
    assert ours < 0.5 * theirs
    assert (chosen.grid.zero_points == 128).all()


def test_gptq_takes_inputs_that_never_vary():
    weight = torch.randn(8, 32, generator=torch.Generator().manual_seed(3))
    moment = torch.zeros(32, 32)
    moment[0, 0] = 5
    assert torch.isfinite(by_gptq(weight, moment, k_quant, 4, 16).values()).all()
    assert torch.isfinite(by_gptq(weight, torch.zeros(32, 32), k_quant, 4, 16).values()).all()


def test_layers_one_by_one_give_what_the_model_gives(model, windows):
    layers = LayerByLayer(model, windows)
    inputs = []
    hook = model.model.layers[1].mlp.down_proj.register_forward_pre_hook(lambda _module, given: inputs.append(given[0]))
    with torch.no_grad():
        expected = model.model(windows).last_hidden_state
    hook.remove()
    rows = inputs[0].flatten(0, 1)
    for number in range(len(layers)):
        names = [group.name.split(".", 3)[3] for group in layers.groups()]
        assert names == ["self_attn.q_proj+k_proj+v_proj", "self_attn.o_proj", "mlp.gate_proj+up_proj", "mlp.down_proj"]
        if number == 1:
            assert torch.allclose(layers.groups()[-1].second_moment, rows.T @ rows / len(rows), rtol=1e-4, atol=1e-5)
        layers.advance()
    assert torch.allclose(torch.cat(list(layers.final_states())), expected, rtol=1e-4, atol=1e-4)


def test_a_model_whose_layers_depend_on_more_than_their_inputs_is_refused(model, windows):
    layer = model.model.layers[1]
    calls = []
    layer.register_forward_hook(lambda _module, _given, output: calls.append(1) or output + len(calls))
    with pytest.raises(InputError, match="cannot be run one by one") as caught:
        LayerByLayer(model, windows)
    assert "quantize: int8" in caught.value.remedy


def test_a_model_without_layers_is_sent_to_what_quantizes_it(windows):
    config = OPTConfig(hidden_size=16, num_hidden_layers=1, ffn_dim=16, num_attention_heads=1, word_embed_proj_dim=16)
    with pytest.raises(InputError, match="the layers of OPTForCausalLM cannot be run one by one") as caught:
        LayerByLayer(AutoModelForCausalLM.from_config(config), windows)
    assert "export: dynamo" in caught.value.remedy


@pytest.mark.slow
@pytest.mark.parametrize("name", ["model.layers.0.self_attn.v_proj", "model.layers.1.mlp.down_proj", "lm_head"])
def test_the_kl_of_a_small_error_is_predicted(model, name):
    windows = torch.randint(5, 300, (48, 32), generator=torch.Generator().manual_seed(4))
    module = model.get_submodule(name)
    if name == "lm_head":  # apart from the embedding that it is tied to
        module.weight = torch.nn.Parameter(module.weight.clone(), requires_grad=False)
    found = importances(model, windows, {name: module}, seed=0)[name]
    inputs = []
    hook = module.register_forward_pre_hook(lambda _module, given: inputs.append(given[0]))
    with torch.no_grad():
        before = model(windows).logits.log_softmax(-1)
        hook.remove()
        rows = inputs[0].flatten(0, 1) * found.tokens.flatten().sqrt()[:, None]
        error = 0.01 * torch.randn(module.weight.shape, generator=torch.Generator().manual_seed(5))
        module.weight += error
        after = model(windows).logits.log_softmax(-1)
    measured = (before.exp() * (before - after)).sum(-1).mean().item()
    assert predicted_kl(error, rows.T @ rows / len(rows), found.rows) == pytest.approx(measured, rel=0.25)


@pytest.mark.parametrize(("quantizer", "head"), [(gptq, "int8"), (gptq, "int4"), (awq, "int8")])
def test_an_export_has_the_integers_that_were_chosen(tiny, data, tmp_path, quantizer, head):
    ctx, exported = make_context(tmp_path / "quantized"), make_context(tmp_path / "export")
    quantizer(Model.at(tiny, "causal-lm"), data, ctx, integers=FourBits(calibration_tokens=2048, head=head))
    packed = read_packed(ctx.output)
    weights = dict(load_causal_lm(ctx.output).named_parameters())
    matrices = {name for name, weight in weights.items() if weight.ndim == 2}
    assert set(packed) == matrices
    assert {each.bits for name, each in packed.items() if "layers" in name} == {4}
    assert packed["model.embed_tokens.weight"].bits == {"int8": 8, "int4": 4}[head]
    for name, each in packed.items():
        assert np.array_equal(each.values, weights[name].detach().numpy())
    # The exporter refuses integers that it does not find, so an export has them all.
    genai(Model.at(ctx.output, "causal-lm"), exported)
    assert exported.metrics["megabytes"].value == pytest.approx(ctx.metrics["megabytes"].value, abs=0.3)
    assert 0.2 < ctx.metrics["top1_agreement"].value <= 1


def test_gptq_is_nearer_to_the_model_than_rounding(tiny, data, tmp_path, model):
    from luthier_models.prompts import PromptEncoder
    from luthier_quantize.calibration import diverged, read_windows

    ctx = make_context(tmp_path)
    gptq(Model.at(tiny, "causal-lm"), data, ctx, integers=FourBits(calibration_tokens=2048))
    windows = read_windows(data, "valid", PromptEncoder.from_directory(tiny), tokens=512, seed=ctx.seed)
    plain = load_causal_lm(tiny, dtype="float32")
    with torch.no_grad():
        for name, module in plain.named_modules():
            if isinstance(module, torch.nn.Linear) and name != "lm_head":
                module.weight.copy_(quantize(module.weight, k_quant, 4, 32).values())
    assert ctx.metrics["mean_kl"].value < 0.8 * diverged(plain, model, windows).mean_kl


@pytest.mark.parametrize("quantizer", [gptq, awq, smooth])
def test_weights_that_integers_were_chosen_for_are_not_rounded_again(tiny, data, tmp_path, quantizer):
    packed = shutil.copytree(tiny, tmp_path / "packed")
    (packed / PACKED_FILE).touch()
    with pytest.raises(InputError, match="they would be rounded twice"):
        quantizer(Model.at(packed, "causal-lm"), data, make_context(tmp_path / "context"))


def test_too_little_data_is_refused(tiny, data, tmp_path):
    few = tmp_path / "few"
    few.mkdir()
    data.frame().head(3).write_parquet(few / "shard-00000.parquet")
    with pytest.raises(InputError, match="too few for 2 windows") as caught:
        gptq(Model.at(tiny, "causal-lm"), Dataset.at(few, "language-modelling"), make_context(tmp_path / "context"))
    assert "needs none" in caught.value.remedy
