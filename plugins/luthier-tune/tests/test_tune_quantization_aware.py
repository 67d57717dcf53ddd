"""LoRA against integers: what is trained is what `quantize: int4` makes, and it keeps more than rounding afterwards."""

from __future__ import annotations

import logging

import pytest
import torch

import luthier_tune
from luthier import InputError, Model
from luthier.artifacts import build_manifest
from luthier.testing import arguments, make_context
from luthier_models.batching import batched
from luthier_models.grids import METHODS, quantize
from luthier_models.loading import load_causal_lm
from luthier_models.prompts import PromptEncoder
from luthier_models.testing import write_tiny_encoder_decoder
from luthier_tune.adapters import AdapterSettings, inject
from luthier_tune.examples import encode_split
from luthier_tune.loss import CompletionLoss
from luthier_tune.options import Quantization

CONFIG = {"rank": 4, "learning_rate": 5e-3, "valid_examples": 4, "warmup_steps": 0, "max_steps": 30, "keep": "last"}
INTEGERS = {"quantization": {"block_size": 64}}


def tuned(ctx, model, data, **config):
    luthier_tune.lora(model, data, ctx, **arguments(luthier_tune.lora, **(CONFIG | config)))
    return ctx


def loss_in_integers(directory, data, method="rtn", block_size=64):
    """The validation loss of a model whose products are rounded, as `quantize: int4` rounds them."""
    model = load_causal_lm(directory, dtype="float32")
    with torch.no_grad():
        for name, module in model.named_modules():
            if isinstance(module, torch.nn.Linear) and name != "lm_head":
                module.weight.copy_(quantize(module.weight, METHODS[method], 4, block_size).values())
    pairs = encode_split(data, "valid", PromptEncoder.from_directory(directory), 512, limit=4, seed=3).pairs
    loss = CompletionLoss(batched(model))
    losses = [each for _, batch in loss.batches(pairs) for each in loss.losses(batch)]
    return float(torch.cat(list(losses)).mean())


@pytest.mark.parametrize("method", ["rtn", "k-quant"])
def test_the_loss_is_that_of_the_integers_of_what_is_written(tmp_path, tiny, examples, method):
    integers = {"method": method, "block_size": 32}
    ctx = tuned(make_context(tmp_path, seed=3), tiny, examples, quantization=integers, max_steps=5)
    written = loss_in_integers(ctx.output, examples, method, 32)
    assert ctx.metrics["valid_loss"].value == pytest.approx(written, rel=1e-4)
    assert ctx.metrics["valid_loss_before"].value == pytest.approx(
        loss_in_integers(tiny.path, examples, method, 32), rel=1e-4
    )


def test_integers_that_were_trained_with_lose_less_than_those_of_plain_adapters(tmp_path, tiny, examples):
    aware, plain = (
        tuned(make_context(tmp_path / name, seed=3), tiny, examples, **options).output
        for name, options in (("aware", INTEGERS), ("plain", {}))
    )
    assert loss_in_integers(aware, examples) < 0.95 * loss_in_integers(plain, examples)


def test_gradients_pass_through_the_rounding(tiny):
    settings = AdapterSettings(rank=4, quantization=Quantization(block_size=32))
    layer = inject(load_causal_lm(tiny.path), settings, 0).base_model.model.model.layers[0].mlp.up_proj
    a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    with torch.no_grad():
        b.normal_(generator=torch.Generator().manual_seed(1))
    x = torch.randn(7, 64, generator=torch.Generator().manual_seed(2)).requires_grad_()
    merged = layer.get_base_layer().weight + 2.0 * b @ a
    rounded = quantize(merged.detach(), METHODS["rtn"], 4, 32).values()
    through = merged + (rounded - merged).detach()
    given = torch.randn(7, 128, generator=torch.Generator().manual_seed(3))
    expected = torch.autograd.grad((x @ through.T * given).sum(), [x, a, b])
    got = torch.autograd.grad((layer(x) * given).sum(), [x, a, b])
    for mine, theirs in zip(got, expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4)
    assert all(float(each.abs().max()) > 0 for each in got)


def test_a_killed_step_goes_on_to_the_same_bytes(tmp_path, tiny, examples):
    options = INTEGERS | {"max_steps": 4, "checkpoint_minutes": 0.0}
    whole = tuned(make_context(tmp_path / "whole", seed=3), tiny, examples, **options)
    ctx = make_context(tmp_path / "killed", seed=3)

    def emit(event):
        if event["type"] == "progress" and event["done"] == 3:
            raise KeyboardInterrupt

    ctx._emit = emit
    with pytest.raises(KeyboardInterrupt):
        tuned(ctx, tiny, examples, **options)
    resumed = tuned(make_context(tmp_path / "killed", seed=3), tiny, examples, **options)
    assert resumed.events[0]["done"] > 1
    hashes = [build_manifest(each.output, "model", "causal-lm").hash for each in (whole, resumed)]
    assert hashes[0] == hashes[1]


def test_the_log_says_that_the_lean_path_is_not_taken(tmp_path, tiny, examples, caplog):
    with caplog.at_level(logging.INFO):
        tuned(make_context(tmp_path, seed=3), tiny, examples, **INTEGERS, max_steps=1)
    assert "the plain path, not the lean one: an adapter is a QuantizedLinear" in caplog.text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dropout": 0.1}, "`dropout` does not go with `quantization`"),
        ({"dora": True}, "`dora` does not go with"),
        ({"targets": ["q_proj"]}, "rounds all layers, and `targets` names some"),
    ],
)
def test_what_does_not_go_with_integers_is_refused_while_planning(tmp_path, options, message):
    import luthier

    recipe = tmp_path / "recipe.yaml"
    lines = [f"    {name}: {str(value).lower()}" for name, value in options.items()]
    recipe.write_text("\n".join(["luthier: 1", "steps:", "  - tune: lora", "    quantization: {}", *lines]) + "\n")
    with pytest.raises(luthier.LuthierError, match=message):
        luthier.plan(recipe)


def test_an_encoder_decoder_is_refused(tmp_path, examples):
    model = Model.at(write_tiny_encoder_decoder(tmp_path / "model"), "seq2seq-lm", "2" * 64)
    with pytest.raises(InputError, match="`quantization` is for decoders"):
        tuned(make_context(tmp_path), model, examples, **INTEGERS)
