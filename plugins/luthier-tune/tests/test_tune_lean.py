"""The lean path gives the plain path's losses and gradients, on what it applies to, and says where it does not."""

from __future__ import annotations

import logging
import subprocess
import sys

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)

import luthier_tune
from luthier.artifacts import build_manifest
from luthier.testing import arguments, make_context
from luthier_models.packing import PackedModel, pack
from luthier_tune.lean import LeanModel, lean_or_plain
from luthier_tune.lean.support import obstacle
from luthier_tune.loss import CompletionLoss, summed_loss, target_losses

SIZES = {
    "vocab_size": 128,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "initializer_range": 0.2,
}
FAMILIES = {
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**SIZES, attention_bias=True, mlp_bias=True)),
    "mistral": lambda: MistralForCausalLM(MistralConfig(**SIZES, sliding_window=None)),
    "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**SIZES)),
    "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**SIZES)),
}
SYSTEM = list(range(3, 24))
INSTRUCTION = list(range(40, 60))
PAIRS = [
    ([*SYSTEM, *INSTRUCTION, 70, 71, 72], [80, 2]),
    ([*SYSTEM, *INSTRUCTION, 70, 73], [81, 82, 2]),
    ([*SYSTEM, 90, 91], [84, 85, 2]),
    ([1, 30, 31], [86, 2]),
    # A chosen and a rejected answer to one prompt, and the same example twice.
    ([*SYSTEM, *INSTRUCTION, 70, 71, 72], [87, 88, 89, 2]),
    ([*SYSTEM, *INSTRUCTION, 70, 73], [81, 82, 2]),
    ([5], [6]),
]
"""Documents that share beginnings of several lengths."""


def made(family, dtype=torch.float64):
    torch.manual_seed(0)
    model = FAMILIES[family]().to(dtype).eval()
    for name, parameter in model.named_parameters():
        # As a trained model has them, lest a norm or a bias that is left out goes unseen.
        if name.endswith("bias") or "norm" in name:
            torch.nn.init.normal_(parameter, mean=float("norm" in name), std=0.2)
    return model


def adapted(family, dtype=torch.float64, **options):
    config = {"r": 4, "lora_alpha": 8, "target_modules": "all-linear", "task_type": "CAUSAL_LM"} | options
    model = get_peft_model(made(family, dtype), LoraConfig(**config), autocast_adapter_dtype=False).get_base_model()
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    return model


def loss_and_gradients(packed, row):
    packed.model.zero_grad()
    loss = summed_loss(packed, row)
    loss.backward()
    return loss.detach(), {n: p.grad.clone() for n, p in packed.model.named_parameters() if p.grad is not None}


def assert_agree(model, pairs=PAIRS):
    """The lean path on a row with shared beginnings, and the plain one on a row without."""
    loss, gradients = loss_and_gradients(LeanModel(model), pack(pairs, shared=True))
    plain_loss, plain = loss_and_gradients(PackedModel(model), pack(pairs))
    torch.testing.assert_close(loss / 19, plain_loss / 19, atol=1e-5, rtol=0)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert set(gradients) == set(plain) <= trained
    for name, gradient in gradients.items():
        assert float(plain[name].abs().max()) > 0, name
        difference = float((gradient - plain[name]).abs().max() / plain[name].abs().max())
        assert difference < 1e-5, f"{name}: {difference}"
    return gradients


@pytest.mark.parametrize("family", FAMILIES)
def test_losses_and_gradients_of_adapters_are_those_of_the_plain_path(family):
    gradients = assert_agree(adapted(family))
    assert len(gradients) == 3 * 7 * 2


@pytest.mark.parametrize("family", FAMILIES)
def test_losses_and_gradients_of_all_weights_are_those_of_the_plain_path(family):
    model = made(family)
    assert len(assert_agree(model)) == len(dict(model.named_parameters()))


@pytest.mark.parametrize(
    "options",
    [
        {"target_modules": ["q_proj", "v_proj"]},
        {"target_modules": ["down_proj", "k_proj"], "use_rslora": True},
        {"rank_pattern": {"q_proj": 2, "up_proj": 7}, "alpha_pattern": {"gate_proj": 1, "v_proj": 30}},
        {"layers_to_transform": [2], "target_modules": ["q_proj", "up_proj"]},
    ],
    ids=["some layers", "scaled by the root of the rank", "ranks and scales by layer", "the last block"],
)
def test_ranks_scales_and_targets_may_differ(options):
    assert_agree(adapted("qwen3", **options))


def test_whole_blocks_may_be_trained_over_frozen_ones():
    model = made("llama").requires_grad_(False)
    model.model.layers[2].requires_grad_(True)
    gradients = assert_agree(model)
    assert all(name.startswith("model.layers.2.") for name in gradients)
    assert len(gradients) == 16


def test_adapters_may_be_switched_off_and_merged_in_between():
    model = adapted("llama")
    lean, plain, row = LeanModel(model), PackedModel(model), pack(PAIRS)
    layers = [module for module in model.modules() if hasattr(module, "lora_A")]
    assert layers
    with_adapters = target_losses(lean, row)
    for layer in layers:
        layer.enable_adapters(False)
    without = target_losses(lean, row)
    torch.testing.assert_close(without, target_losses(plain, row))
    assert float((without - with_adapters).abs().max()) > 1e-2
    for layer in layers:
        layer.enable_adapters(True)
        layer.merge()
    torch.testing.assert_close(target_losses(lean, row), with_adapters)


def test_in_single_precision_losses_agree_to_1e_4_and_rows_come_out_in_order():
    model = adapted("mistral", torch.float32)
    losses = []
    for packed in (LeanModel(model), PackedModel(model)):
        found = [None] * len(PAIRS)
        objective = CompletionLoss(packed)
        for members, batch in objective.batches(PAIRS):
            for member, values in zip(members, objective.losses(batch), strict=True):
                found[member] = values
        losses.append(torch.cat(found))
    torch.testing.assert_close(*losses, atol=1e-4, rtol=0)


def test_shared_beginnings_are_computed_once():
    (_, row), *more = LeanModel(made("llama")).rows(PAIRS, 512)
    assert not more
    # Four continue the instruction and the token after it; endings that are alike are too short to be shared.
    assert len(row.ids) == len(SYSTEM) + (len(INSTRUCTION) + 1) + 3 + 3 + 4 + 4 + 5 + 3 + 1


def test_names_weights_and_state_stay_as_they_were():
    model = adapted("qwen2")
    before = {name: (tensor.data_ptr(), tensor.clone()) for name, tensor in model.state_dict().items()}
    loss_and_gradients(LeanModel(model), pack(PAIRS, shared=True))
    after = model.state_dict()
    assert list(before) == list(after)
    for name, (address, tensor) in before.items():
        assert after[name].data_ptr() == address
        assert torch.equal(after[name], tensor)


def hooked():
    model = made("llama")
    model.model.layers[1].mlp.register_forward_hook(lambda *_: None)
    return model


def checkpointed():
    model = made("llama")
    model.gradient_checkpointing_enable()
    return model


def eager():
    model = made("llama")
    model.set_attn_implementation("eager")
    return model


SMALL_T5 = T5Config(vocab_size=64, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2, decoder_start_token_id=0)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: adapted("llama", lora_dropout=0.1), "adapters have dropout"),
        (lambda: adapted("llama", use_dora=True), "DoRA"),
        (lambda: adapted("llama", modules_to_save=["down_proj"], target_modules=["q_proj"]), "ModulesToSaveWrapper"),
        (lambda: adapted("qwen2", target_modules=["q_proj"], lora_bias=True), "adapters have a bias"),
        (lambda: MistralForCausalLM(MistralConfig(**SIZES, sliding_window=8)), "sliding window"),
        (lambda: LlamaForCausalLM(LlamaConfig(**SIZES, hidden_act="gelu")), "the activation is gelu"),
        (lambda: LlamaForCausalLM(LlamaConfig(**SIZES, attention_dropout=0.1)), "attention has dropout"),
        (lambda: GPT2LMHeadModel(GPT2Config(vocab_size=64, n_embd=16, n_layer=1, n_head=2)), "not GPT2Model"),
        (lambda: T5ForConditionalGeneration(SMALL_T5), "not T5ForConditionalGeneration"),
        (lambda: made("llama", torch.bfloat16), "weights are of bfloat16"),
        (lambda: made("llama").to("meta"), "written for CPUs; meta"),
        (hooked, "a hook observes a layer"),
        (checkpointed, "gradient checkpointing"),
        (eager, "scaled-dot-product form"),
    ],
)
def test_other_models_take_the_plain_path_and_the_log_says_why(make, reason, caplog):
    with caplog.at_level(logging.INFO):
        packed = lean_or_plain(make(), logging.getLogger("luthier.test"))
    assert not isinstance(packed, LeanModel)
    (record,) = [record for record in caplog.records if record.name == "luthier.test"]
    assert "training takes the plain path, not the lean one" in record.getMessage()
    assert reason in record.getMessage()


def test_the_tuner_takes_the_lean_path_and_gives_the_same_bytes_twice(tmp_path, tiny, examples, monkeypatch):
    taken = []
    monkeypatch.setattr("luthier_tune.lean.decoder._attention", spy("luthier_tune.lean.decoder._attention", taken))
    identities = []
    for name in ("a", "b"):
        torch.manual_seed(hash(name) % 1000)
        ctx = make_context(tmp_path / name, seed=3)
        luthier_tune.lora(tiny, examples, ctx, **arguments(luthier_tune.lora, rank=4, max_steps=3, valid_examples=4))
        identities.append(build_manifest(ctx.output, "model", "causal-lm").hash)
    assert taken
    assert identities[0] == identities[1]


def spy(path, calls):
    import importlib

    module, _, name = path.rpartition(".")
    function = getattr(importlib.import_module(module), name)

    def called(*args):
        calls.append(name)
        return function(*args)

    return called


def test_the_tuner_learns_as_on_the_plain_path(tmp_path, tiny, examples, monkeypatch):
    curves = []
    for name, chooser in (("lean", lean_or_plain), ("plain", lambda model, log: PackedModel(model))):
        monkeypatch.setattr("luthier_tune.adapters.lean_or_plain", chooser)
        ctx = make_context(tmp_path / name, seed=3)
        options = {"rank": 4, "learning_rate": 5e-3, "max_steps": 12, "valid_examples": 4}
        luthier_tune.lora(tiny, examples, ctx, **arguments(luthier_tune.lora, **options))
        curves.append({name: metric.value for name, metric in ctx.metrics.items()})
    lean, plain = curves
    assert lean["valid_loss"] < lean["valid_loss_before"] - 0.5
    for name in ("train_loss", "valid_loss", "valid_loss_before"):
        assert lean[name] == pytest.approx(plain[name], abs=1e-3)


def test_a_supported_model_has_no_obstacle():
    assert [obstacle(adapted(family)) for family in FAMILIES] == [None] * len(FAMILIES)


def test_the_package_is_not_loaded_while_planning():
    code = "import luthier_tune, sys; print('luthier_tune.lean' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
