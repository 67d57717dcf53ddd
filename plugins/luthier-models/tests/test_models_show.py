"""`luthier models show`: parts and costs are those of the models themselves."""

from __future__ import annotations

import json

import polars as pl
import pytest
import torch
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)
from typer.testing import CliRunner

import luthier
from luthier import Dataset
from luthier.testing import make_context
from luthier_models import Vocabulary, rnn_lm
from luthier_models.anatomy import costs
from luthier_models.anatomy.machine import Speed, measure_speed
from luthier_models.anatomy.overview import Question, lines, overview
from luthier_models.anatomy.parts import dissect
from luthier_models.anatomy.tensors import read_config, read_tensors
from luthier_models.commands import app
from luthier_models.testing import write_tiny_classifier, write_tiny_model

QUESTION = Question(tokens=1000, context=64, batch_tokens=32)
SPEED = Speed(operations=1e9, bandwidth=1e8)


def written(model, directory):
    model.save_pretrained(directory)
    return directory


def gpt2(directory):
    return written(
        GPT2LMHeadModel(GPT2Config(vocab_size=90, n_embd=24, n_layer=2, n_head=2, n_positions=32)), directory
    )


def t5(directory):
    sizes = {"d_model": 24, "d_ff": 40, "d_kv": 12, "num_layers": 2, "num_decoder_layers": 1, "num_heads": 2}
    return written(T5ForConditionalGeneration(T5Config(vocab_size=90, **sizes)), directory)


def untied(directory):
    return write_tiny_model(directory, tied=False)


def lstm(directory):
    numbers = ["0", "1"]
    rows = {"id": numbers, "group": numbers, "split": ["train"] * 2, "text": ["a bridge", "a river"]}
    directory.mkdir()
    pl.DataFrame(rows).write_parquet(directory / "shard-00000.parquet")
    ctx = make_context(directory / "made")
    sizes = {"layers": 2, "width": 32, "embedding_width": 16, "parameters": "30K"}
    rnn_lm(Dataset.at(directory, "language-modelling"), ctx, tokenizer=Vocabulary(kind="byte"), **sizes)
    return ctx.output


@pytest.mark.parametrize(
    ("make", "kind", "blocks"),
    [
        (write_tiny_model, "causal-lm", {"embedding", "attention", "mlp", "norms"}),
        (untied, "causal-lm", {"embedding", "attention", "mlp", "norms", "output"}),
        (gpt2, "causal-lm", {"embedding", "positions", "attention", "mlp", "norms"}),
        (lstm, "recurrent", {"embedding", "recurrence", "other"}),
        (t5, "encoder-decoder", {"embedding", "positions", *("encoder attention", "encoder mlp", "encoder norms")}),
    ],
)
def test_the_blocks_are_all_parameters(tmp_path, make, kind, blocks):
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

    directory = make(tmp_path / "model")
    load = AutoModelForSeq2SeqLM if kind == "encoder-decoder" else AutoModelForCausalLM
    model = load.from_pretrained(directory)
    found = overview(directory, QUESTION, SPEED)
    assert found["kind"] == kind
    assert found["parameters"] == sum(parameter.numel() for parameter in model.parameters())
    assert blocks <= found["blocks"].keys()
    assert found["tied"] == bool(model.config.tie_word_embeddings)


@pytest.mark.parametrize(("body", "model_type"), [("decoder", "llama"), ("encoder", "modernbert")])
def test_a_classifier_has_a_head_and_writes_nothing(tmp_path, body, model_type):
    from transformers import AutoModel, AutoModelForSequenceClassification

    directory = write_tiny_classifier(tmp_path / "model", body, labels="abc")
    model = AutoModelForSequenceClassification.from_pretrained(directory)
    found = overview(directory, QUESTION, SPEED, "mine")
    assert found["kind"] == "sequence-classifier"
    assert found["parameters"] == sum(parameter.numel() for parameter in model.parameters())
    assert found["blocks"].keys() == {"embedding", "attention", "mlp", "norms", "head"}
    assert "generating" not in found["seconds"]
    text = list(lines(found))
    assert text[0] == f"mine: {model_type}, sequence-classifier, 3 labels"
    assert not any("generating" in line for line in text)
    # What a token is multiplied by is that of the body.
    AutoModel.from_pretrained(directory).save_pretrained(tmp_path / "body")
    anatomy, alone = (dissect(read_config(path), read_tensors(path)) for path in (directory, tmp_path / "body"))
    assert alone.sides == anatomy.sides
    assert alone.parameters + anatomy.blocks["head"] == anatomy.parameters


def test_operations_are_those_that_pytorch_counts(tmp_path):
    from torch.utils.flop_counter import FlopCounterMode

    directory = write_tiny_model(tmp_path / "model")
    model = LlamaForCausalLM.from_pretrained(directory, attn_implementation="eager")
    tokens = 20
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(torch.arange(tokens)[None], use_cache=False)
    [side] = dissect(read_config(directory), read_tensors(directory)).sides
    # PyTorch computes what causal attention masks: every token attends to all.
    assert counter.get_total_flops() == tokens * costs.forward_operations(side, tokens)
    assert costs.training_operations(side, 40, frozen=False) == 3 * costs.forward_operations(side, 20)


def test_activations_are_about_those_that_pytorch_keeps(tmp_path):
    directory = tmp_path / "model"
    sizes = {"hidden_size": 64, "intermediate_size": 160, "num_attention_heads": 2, "num_hidden_layers": 4}
    written(LlamaForCausalLM(LlamaConfig(vocab_size=90, **sizes)), directory)
    model = LlamaForCausalLM.from_pretrained(directory)
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor):
        if tensor.untyped_storage().data_ptr() not in weights:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        states = model.model(torch.arange(64)[None], use_cache=False).last_hidden_state
    assert states.requires_grad
    anatomy = dissect(read_config(directory), read_tensors(directory))
    estimated = costs.tuning_memory(anatomy, batch_tokens=64).activations
    assert 0.5 < estimated / sum(kept.values()) < 1.5


def test_adapters_are_those_of_peft(tmp_path):
    from luthier_tune.adapters import AdapterSettings, inject

    directory = write_tiny_model(tmp_path / "model")
    model = LlamaForCausalLM.from_pretrained(directory)
    inject(model, AdapterSettings(rank=4, alpha=8.0), 0)
    adapters = sum(parameter.numel() for name, parameter in model.named_parameters() if "lora_" in name)
    assert costs.adapter_parameters(dissect(read_config(directory), read_tensors(directory)), 4) == adapters


def test_what_is_kept_of_a_text(tmp_path):
    decoder = dissect(read_config(write_tiny_model(tmp_path / "a")), read_tensors(tmp_path / "a"))
    # Two layers, two heads for keys and two for values, of 16, in float32.
    assert costs.cache_bytes(decoder, 100) == 2 * 2 * 2 * 16 * 100 * 4
    directory = lstm(tmp_path / "b")
    recurrent = dissect(read_config(directory), read_tensors(directory))
    assert costs.cache_bytes(recurrent, 100) == costs.cache_bytes(recurrent, 1) == 2 * 2 * 32 * 4


def test_predictions_follow_from_the_measured_speed(tmp_path):
    directory = write_tiny_model(tmp_path / "model")
    slow = overview(directory, QUESTION, SPEED)
    fast = overview(directory, QUESTION, Speed(2 * SPEED.operations, 2 * SPEED.bandwidth))
    forward = slow["operations_per_token"]["model"]["forward"]
    assert slow["seconds"]["scoring"] == pytest.approx(1000 * forward / 1e9)
    assert all(fast["seconds"][key] == pytest.approx(value / 2) for key, value in slow["seconds"].items())
    measured = measure_speed()
    assert measured.operations > 1e8
    assert measured.bandwidth > 1e7


def invoke(*arguments):
    # As `luthier models …` calls it.
    return CliRunner().invoke(app, list(arguments))


def test_the_command_shows_a_directory(tmp_path):
    directory = write_tiny_model(tmp_path / "model")
    shown = invoke("show", str(directory), "--tokens", "5000", "--context", "100")
    assert shown.exit_code == 0
    for part in ("embedding", "LoRA of rank 16", "for 5,000 tokens", "just measured", "generating, one text"):
        assert part in shown.stdout
    record = json.loads(invoke("show", str(directory), "--json").stdout)
    assert record["parameters"] == sum(record["blocks"].values())
    assert record["memory"]["full"]["optimizer"] == 8 * record["parameters"]
    assert record["machine"]["operations"] > 0


def test_the_command_shows_a_step(tmp_path, monkeypatch):
    directory = write_tiny_model(tmp_path / "tiny")
    monkeypatch.setenv("LUTHIER_PLUGINS", "models")
    monkeypatch.chdir(tmp_path)
    recipe = luthier.Recipe("shown").step("architecture", "pretrained", model=str(directory))
    ran = luthier.run(recipe, display=False, home=tmp_path / ".luthier")
    names = ("pretrained", "latest:pretrained", "latest", f"{ran.id}:pretrained")
    sizes = {json.loads(invoke("show", name, "--json").stdout)["parameters"] for name in names}
    assert len(sizes) == 1
    assert luthier.find_model("pretrained").path == ran.model().path


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("nothing", "there is no directory nothing"),
        ("hf:", "hf:"),
        ("empty", "holds no model"),
        ("onnx", "is an exported model"),
        ("weightless", "has no weights as safetensors"),
        ("damaged", "is damaged or no safetensors file"),
        ("file.gguf", "is an exported model"),
    ],
)
def test_what_cannot_be_shown_says_why(tmp_path, monkeypatch, name, says):
    monkeypatch.chdir(tmp_path)
    for each in ("empty", "onnx", "weightless", "damaged"):
        (tmp_path / each).mkdir()
    (tmp_path / "onnx" / "genai_config.json").write_text("{}")
    for each in ("weightless", "damaged"):
        (tmp_path / each / "config.json").write_text("{}")
    (tmp_path / "damaged" / "model.safetensors").write_bytes(b"\xff" * 40)
    (tmp_path / "file.gguf").write_bytes(b"GGUF")
    failed = invoke("show", name)
    assert isinstance(failed.exception, luthier.InputError)
    assert says in str(failed.exception)
    assert failed.exception.remedy
