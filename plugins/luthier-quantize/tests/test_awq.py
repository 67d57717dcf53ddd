"""AWQ: scales that change nothing in floating point, and a smaller loss where some inputs are large."""

from __future__ import annotations

import itertools

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoConfig

from luthier import Model
from luthier.testing import make_context
from luthier_models.grids import quantize, rtn
from luthier_models.loading import load_causal_lm
from luthier_models.prompts import PromptEncoder
from luthier_quantize import awq
from luthier_quantize.activation_aware import clipping
from luthier_quantize.calibration import diverged, read_windows
from luthier_quantize.folding import find_fold
from luthier_quantize.layerwise import LayerByLayer
from luthier_quantize.options import FourBits


def loaded(directory):
    model = load_causal_lm(directory, dtype="float32")
    model.requires_grad_(requires_grad=False)
    return model


WINDOWS = torch.randint(5, 300, (4, 24), generator=torch.Generator().manual_seed(1))


def folds_of(model):
    """Each group of products with the name of what its scales fold into, layer by layer."""
    names = {id(module): name for name, module in model.named_modules()}
    layers = LayerByLayer(model, WINDOWS)
    for _ in range(len(layers)):
        for group in layers.groups():
            fold = find_fold(layers, group, 0)
            yield group, fold, None if fold is None else names[id(fold.producer)].rpartition(".")[2]
        layers.advance()


def test_scales_fold_into_what_the_inputs_come_from(uneven):
    found = {group.name.rpartition(".")[2]: producer for group, _, producer in folds_of(loaded(uneven))}
    assert found == {
        "q_proj+k_proj+v_proj": "input_layernorm",
        "o_proj": "v_proj",
        "gate_proj+up_proj": "post_attention_layernorm",
        "down_proj": "up_proj",
    }


def test_the_model_in_floating_point_is_what_it_was(uneven):
    model = loaded(uneven)
    expected = model(WINDOWS).logits
    generator = torch.Generator().manual_seed(2)
    before = {name: weight.clone() for name, weight in model.named_parameters()}
    for group, fold, _ in list(folds_of(model)):
        # Where heads share their values, so do the columns that read them.
        assert fold.outputs == (32 if "o_proj" in group.name else group.second_moment.shape[0])
        fold.apply(group.weights, torch.empty(fold.outputs).uniform_(0.1, 10, generator=generator))
    changed = [name for name, weight in model.named_parameters() if not torch.equal(weight, before[name])]
    assert len(changed) == 2 * 9
    torch.testing.assert_close(model(WINDOWS).logits, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


def test_what_does_not_fold_is_found_out():
    # Phi has a norm with a bias before attention and MLP alike, and an MLP without a gate.
    config = AutoConfig.for_model(
        "phi",
        vocab_size=320,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=1,
        num_attention_heads=4,
        max_position_embeddings=64,
    )
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()
    model.requires_grad_(requires_grad=False)
    found = {group.name.rpartition(".")[2]: producer for group, _, producer in folds_of(model)}
    assert found["q_proj+k_proj+v_proj+fc1"] == "input_layernorm"
    assert found["dense"] == "v_proj"
    assert found["fc2"] is None


def test_awq_loses_less_than_rounding_to_nearest(uneven, data, tmp_path):
    ctx = make_context(tmp_path)
    awq(Model.at(uneven, "causal-lm"), data, ctx, integers=FourBits(calibration_tokens=2048))
    windows = read_windows(data, "valid", PromptEncoder.from_directory(uneven), tokens=512, seed=ctx.seed)
    plain = loaded(uneven)
    for name, module in plain.named_modules():
        if isinstance(module, torch.nn.Linear) and name != "lm_head":
            module.weight.copy_(quantize(module.weight, rtn, 4, 32).values())
    assert ctx.metrics["mean_kl"].value < 0.7 * diverged(plain, loaded(uneven), windows).mean_kl


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 70), st.sampled_from([16, 32]), st.integers(0, 99))
def test_clipping_never_changes_a_block_s_outputs_more_than_its_whole_range(columns, block_size, seed):
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(6, columns, generator=generator)
    inputs = torch.randn(40, columns, generator=generator) * torch.rand(columns, generator=generator).mul(3).exp()
    find = clipping(inputs.T @ inputs / len(inputs), block_size)
    ours, theirs = (quantize(weight, each, 4, block_size).values() - weight for each in (find, rtn))
    for start, end in itertools.pairwise([*range(0, columns, block_size), columns]):
        block = slice(start, end)
        mine, other = ((inputs[:, block] @ error[:, block].T).square().mean(0) for error in (ours, theirs))
        assert (mine <= other * (1 + 1e-4) + 1e-9).all()
