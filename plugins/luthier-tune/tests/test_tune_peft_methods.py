"""`ia3` and `soft-prompt`: what is written is what peft gives on the model as it was."""

from __future__ import annotations

import json

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

import luthier_tune
from luthier import InputError, Model, OnnxModel
from luthier.artifacts import build_manifest
from luthier.components import ConfigurationError
from luthier.core_stages import STAGES
from luthier.registering import read_component
from luthier.testing import arguments, make_context
from luthier_models import transformers
from luthier_models.packing import PackedModel, pack
from luthier_models.prompts import PromptEncoder, load_tokenizer
from luthier_models.testing import write_tiny_model
from luthier_tune.lean import LeanModel
from luthier_tune.loss import summed_loss
from luthier_tune.prompt_tuning import add_soft_tokens, prompted_student

CONFIG = {"valid_examples": 4, "warmup_steps": 0, "max_epochs": 4}
METHODS = {"ia3": luthier_tune.ia3, "soft-prompt": luthier_tune.soft_prompt}


def tuned(directory, method, model, data, **config):
    ctx = make_context(directory, seed=3)
    METHODS[method](model, data, ctx, **arguments(METHODS[method], **(CONFIG | config)))
    return ctx


def logits(model, ids):
    with torch.no_grad():
        return model(torch.tensor([ids])).logits[0]


def test_factors_are_multiplied_into_the_weights(tmp_path, tiny, examples):
    ctx = tuned(tmp_path, "ia3", tiny, examples, learning_rate=0.05)
    assert ctx.metrics["valid_loss"].value < ctx.metrics["valid_loss_before"].value - 0.1
    ids = [1, 30, 40, 50, 60]
    merged = logits(AutoModelForCausalLM.from_pretrained(ctx.output), ids)
    base = AutoModelForCausalLM.from_pretrained(tiny.path)
    torch.testing.assert_close(
        merged, logits(PeftModel.from_pretrained(base, ctx.output / "adapter"), ids), atol=1e-4, rtol=1e-4
    )
    config = json.loads((ctx.output / "adapter" / "adapter_config.json").read_text())
    assert (config["target_modules"], config["feedforward_modules"]) == (
        ["down_proj", "k_proj", "v_proj"],
        ["down_proj"],
    )


def test_no_example_is_longer_than_the_context(tmp_path, tiny, examples, caplog):
    tuned(tmp_path, "soft-prompt", tiny, examples, max_length=4000, max_epochs=None, max_steps=1)
    assert "max_length is 4000, and the model has positions for 512 tokens only" in caplog.text


def test_factors_of_named_layers_only(tmp_path, tiny, examples):
    ctx = tuned(tmp_path, "ia3", tiny, examples, targets=["layers.1.mlp.down_proj"], max_epochs=1)
    before = dict(AutoModelForCausalLM.from_pretrained(tiny.path).named_parameters())
    after = dict(AutoModelForCausalLM.from_pretrained(ctx.output).named_parameters())
    changed = [name for name in before if not torch.equal(before[name], after[name])]
    assert changed == ["model.layers.1.mlp.down_proj.weight"]


@pytest.mark.parametrize("tied", [True, False])
def test_a_soft_prompt_is_what_peft_puts_in_front(tmp_path, examples, tied):
    model = Model.at(write_tiny_model(tmp_path / "model", tied=tied), "causal-lm", "1" * 64)
    ctx = tuned(tmp_path / "tuned", "soft-prompt", model, examples, tokens=5)
    assert ctx.metrics["valid_loss"].value < ctx.metrics["valid_loss_before"].value - 0.2
    before, after = PromptEncoder.from_directory(model.path), PromptEncoder.from_directory(ctx.output)
    ids = before.prompt("Summarize in one line: the table")
    size = len(before.tokenizer)
    assert after.prompt("Summarize in one line: the table") == [*range(size, size + 5), *ids]
    assert after.completion("The table.") == before.completion("The table.")
    result = AutoModelForCausalLM.from_pretrained(ctx.output)
    got = logits(result, after.prompt("Summarize in one line: the table"))[-1]
    base = AutoModelForCausalLM.from_pretrained(model.path)
    expected = logits(PeftModel.from_pretrained(base, ctx.output / "adapter"), ids)[-1]
    torch.testing.assert_close(got[: len(expected)], expected, atol=1e-4, rtol=1e-4)
    # No weight but the new rows is another one.
    weights = dict(base.named_parameters())
    for name, weight in result.named_parameters():
        assert torch.equal(weight[: len(weights[name])], weights[name])


@pytest.mark.parametrize("tied", [True, False])
def test_a_soft_prompt_takes_the_lean_path_with_the_plain_one_s_loss_and_gradients(tmp_path, tied):
    model = Model.at(write_tiny_model(tmp_path / "model", tied=tied), "causal-lm", "1" * 64)
    tokenizer = load_tokenizer(model.path)
    first = add_soft_tokens(tokenizer, 5)
    student = prompted_student(model, tokenizer, first, [7, 8, 9, 10, 11], make_context(tmp_path / "work"))
    student.packed.model.double()
    prompt = list(range(first, first + 5))
    pairs = [([*prompt, 20, 21, 22], [30, 2]), ([*prompt, 20, 21, 23, 24], [31, 32, 2])]
    found = []
    for packed, shared in ((student.packed, True), (PackedModel(student.packed.model), False)):
        student.packed.model.zero_grad()
        loss = summed_loss(packed, pack(pairs, shared=shared))
        loss.backward()
        found.append((loss.detach(), {name: each.grad.clone() for name, each in student.parameters.items()}))
    assert isinstance(student.packed, LeanModel)
    (lean, gradients), (plain, expected) = found
    assert list(gradients) == ["soft_prompt", *([] if tied else ["soft_prompt_output"])]
    torch.testing.assert_close(lean, plain, rtol=1e-6, atol=0)
    for name, gradient in gradients.items():
        largest = float(expected[name].abs().max())
        assert largest > 0
        # transformers' norms are computed in single precision.
        assert float((gradient - expected[name]).abs().max()) < 1e-5 * largest, name


def test_a_soft_prompt_is_never_the_answer(tmp_path, tiny, examples):
    ctx = tuned(tmp_path, "soft-prompt", tiny, examples, tokens=5, max_epochs=8)
    encoder = PromptEncoder.from_directory(ctx.output)
    ids = encoder.prompt("Summarize in one line: table row file")
    model = AutoModelForCausalLM.from_pretrained(ctx.output)
    found = model.generate(torch.tensor([ids]), max_new_tokens=12, do_sample=False)[0, len(ids) :]
    assert not set(found.tolist()) & set(ids[:5])


def test_a_soft_prompt_is_exported_as_it_is(tmp_path, tiny, examples):
    onnx = pytest.importorskip("luthier_onnx")
    tuned_model = Model.at(tuned(tmp_path / "tuned", "soft-prompt", tiny, examples, tokens=5).output, "causal-lm")
    ctx = make_context(tmp_path / "exported", seed=3)
    onnx.genai(tuned_model, ctx)
    runtimes = [
        onnx.onnxruntime_genai(OnnxModel.at(ctx.output, "genai"), make_context(tmp_path / "a")),
        transformers(tuned_model, make_context(tmp_path / "b")),
        transformers(tiny, make_context(tmp_path / "c")),
    ]
    prompts = ["Summarize in one line: table row file", "Summarize in one line: write the array"]
    exported, whole, before = (list(runtime.generate(prompts, max_new_tokens=8)) for runtime in runtimes)
    assert exported == whole != before


def test_a_soft_prompt_can_start_as_a_text(tmp_path, tiny, examples):
    ctx = tuned(
        tmp_path,
        "soft-prompt",
        tiny,
        examples,
        tokens=6,
        text="the table",
        learning_rate=1e-9,
        max_steps=1,
        max_epochs=None,
    )
    encoder = PromptEncoder.from_directory(tiny.path)
    ids = encoder.tokenizer("the table", add_special_tokens=False)["input_ids"]
    weight = AutoModelForCausalLM.from_pretrained(ctx.output).get_input_embeddings().weight
    expected = [ids[place % len(ids)] for place in range(6)]
    torch.testing.assert_close(weight[-6:], weight[expected], atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_a_killed_step_goes_on_to_the_same_bytes(tmp_path, tiny, examples, method):
    options = {"checkpoint_minutes": 0.0, "max_epochs": 1}
    whole = tuned(tmp_path / "whole", method, tiny, examples, **options)
    ctx = make_context(tmp_path / "killed", seed=3)

    def emit(event):
        if event["type"] == "progress" and event["done"] == 3:
            raise KeyboardInterrupt

    ctx._emit = emit
    with pytest.raises(KeyboardInterrupt):
        METHODS[method](tiny, examples, ctx, **arguments(METHODS[method], **(CONFIG | options)))
    resumed = tuned(tmp_path / "killed", method, tiny, examples, **options)
    assert resumed.events[0]["done"] > 1
    hashes = [build_manifest(each.output, "model", "causal-lm").hash for each in (whole, resumed)]
    assert hashes[0] == hashes[1]


def test_what_cannot_have_a_soft_prompt_is_explained(tmp_path, tiny, examples):
    plain = Model.at(write_tiny_model(tmp_path / "plain", template=None), "causal-lm", "1" * 64)
    with pytest.raises(InputError, match="no chat template"):
        tuned(tmp_path / "a", "soft-prompt", plain, examples)
    once = tuned(tmp_path / "b", "soft-prompt", tiny, examples, max_epochs=1)
    with pytest.raises(InputError, match="a soft prompt already"):
        tuned(tmp_path / "c", "soft-prompt", Model.at(once.output, "causal-lm", "2" * 64), examples)


def test_factors_of_unknown_layers_are_explained(tmp_path, tiny, examples):
    with pytest.raises(InputError, match="did you mean 'k_proj'"):
        tuned(tmp_path, "ia3", tiny, examples, targets=["k_porj"])
    stage = next(stage for stage in STAGES if stage.name == "tune")
    component = read_component(luthier_tune.ia3, stage, distribution="luthier-tune", version="0", plugin="tune")
    with pytest.raises(ConfigurationError, match="names what `targets` does not: up_proj"):
        component.canonical({"targets": ["k_proj"], "feedforward": ["up_proj"]})
