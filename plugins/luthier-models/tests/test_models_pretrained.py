"""Pretrained models: normalised, or refused with the remedy."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from gguf import GGUFWriter
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer

import luthier_models
from luthier import InputError
from luthier.artifacts import build_manifest
from luthier.core_stages import STAGES
from luthier.registering import read_component
from luthier.testing import make_context
from luthier_models.gguf_tokenizer import load_gguf_tokenizer, split_digits
from luthier_models.loading import resolve_device

FILES = {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}


def edit(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def truncate(directory):
    path = directory / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])


def pickle_only(directory):
    (directory / "model.safetensors").rename(directory / "pytorch_model.bin")


def no_tokenizer(directory):
    for path in directory.glob("tokenizer*"):
        path.unlink()


def missing_weights(directory):
    from safetensors.torch import load_file, save_file

    tensors = load_file(directory / "model.safetensors")
    tensors.pop("model.layers.1.mlp.down_proj.weight")
    save_file(tensors, directory / "model.safetensors", {"format": "pt"})


def missing_shard(directory):
    record = {"weight_map": {"model.norm.weight": "model-00002-of-00002.safetensors"}}
    (directory / "model.safetensors.index.json").write_text(json.dumps(record))


def more_tokens(directory):
    record = json.loads((directory / "tokenizer.json").read_text())
    vocabulary = record["model"]["vocab"]
    vocabulary["zz"] = 10_000
    (directory / "tokenizer.json").write_text(json.dumps(record))


def encoder_only(directory):
    edit(directory / "config.json", model_type="bert", architectures=["BertForMaskedLM"])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (no_tokenizer, "has no tokenizer"),
        (pickle_only, "only as pytorch_model.bin, a format that can run code"),
        (truncate, "damaged or was not copied whole"),
        (more_tokens, "token 'zz' has the number 10000, and the embedding has"),
        (missing_weights, "lacks 1 of the model's weights"),
        (missing_shard, "lacks model-00002-of-00002.safetensors"),
        (lambda d: (d / "model.safetensors").unlink(), "holds no weights"),
        (lambda d: (d / "config.json").unlink(), "no config.json"),
        (lambda d: (d / "config.json").write_text("{"), "no valid JSON"),
        (lambda d: (d / "config.json").write_text("{}"), "does not say which architecture"),
        (lambda d: (d / "config.json").write_text("[]"), "holds no JSON object"),
        (lambda d: edit(d / "config.json", model_type=["llama"]), "does not say which architecture"),
        (lambda d: edit(d / "config.json", architectures="LlamaForCausalLM"), 'under `architectures`, but "LlamaFor'),
        (lambda d: (d / "tokenizer_config.json").write_text("{"), "no valid JSON"),
        (lambda d: (d / "model.safetensors.index.json").write_text("{"), "no valid JSON"),
        (lambda d: (d / "model.safetensors.index.json").write_text("{}"), "names no weights"),
        (lambda d: (d / "tokenizer.json").write_text("{}"), "tokenizer cannot be read"),
        (lambda d: edit(d / "config.json", auto_map={"AutoConfig": "code.Config"}), "asks to run Python code"),
        (lambda d: edit(d / "config.json", quantization_config={"quant_method": "gptq"}), "quantized already"),
        (lambda d: edit(d / "config.json", architectures=["LlamaModel"]), "no causal language model but LlamaModel"),
        (encoder_only, "no causal language model but BertForMaskedLM"),
    ],
)
def test_what_cannot_be_used_is_explained(tmp_path, tiny, spoil, message):
    shutil.copytree(tiny, tmp_path / "model")
    spoil(tmp_path / "model")
    with pytest.raises(InputError, match=message) as caught:
        luthier_models.pretrained(make_context(tmp_path / "run"), model=str(tmp_path / "model"))
    assert caught.value.remedy


def test_neither_directory_nor_gguf(tmp_path):
    (tmp_path / "model.zip").write_bytes(b"PK")
    with pytest.raises(InputError, match="neither a model directory nor a GGUF file"):
        luthier_models.pretrained(make_context(tmp_path / "run"), model=str(tmp_path / "model.zip"))


def write_gguf(path, tokens):
    """A file with a tokenizer, whose merges are of `a`, `b` and `c`, and one matrix."""
    writer = GGUFWriter(path, "llama")
    for name in ("context_length", "embedding_length", "block_count", "feed_forward_length", "head_count"):
        getattr(writer, f"add_{name}")(4)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types([1] * len(tokens))
    writer.add_token_merges(["a b", "ab c"])
    writer.add_tensor("token_embd.weight", np.zeros((len(tokens), 4), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


TOKENS = ["a", "b", "c", "ab", "abc"]
DAMAGE = {
    "cut off in its metadata": lambda whole: whole[: whole.index(b"gpt2")],
    "cut off in a number": lambda whole: whole[:18],
    "cut off in its weights": lambda whole: whole[:-40],
    "no text": lambda whole: whole.replace(b"tokenizer.ggml.model", b"tokenizer.\xff\xff\xff\xff.model"),
    "a length beyond all": lambda whole: whole[:24] + b"\xff" * 8 + whole[32:],
}


@pytest.mark.parametrize("how", DAMAGE)
def test_a_gguf_that_is_damaged_anywhere_is_refused_in_one_line(how, tmp_path):
    path = tmp_path / "model.gguf"
    write_gguf(path, TOKENS)
    assert load_gguf_tokenizer(path).tokenize("abc") == ["abc"]
    path.write_bytes(DAMAGE[how](path.read_bytes()))
    with pytest.raises(InputError, match=r"model\.gguf cannot be read as GGUF: .+"):
        load_gguf_tokenizer(path)


def test_a_gguf_whose_merges_do_not_fit_its_vocabulary_is_refused(tmp_path):
    write_gguf(tmp_path / "model.gguf", ["a", "b", "ab", "abc"])
    with pytest.raises(InputError, match=r"cannot be read as GGUF: .*out of vocabulary"):
        load_gguf_tokenizer(tmp_path / "model.gguf")


def test_a_damaged_gguf(tmp_path):
    (tmp_path / "model.gguf").write_bytes(b"GGUF" + b"\0" * 64)
    with pytest.raises(InputError, match="cannot be read as GGUF"):
        luthier_models.pretrained(make_context(tmp_path / "run"), model=str(tmp_path / "model.gguf"))


def test_a_directory_is_normalised_to_the_same_bytes_each_time(tmp_path, tiny):
    hashes = set()
    for name in "ab":
        ctx = make_context(tmp_path / name)
        luthier_models.pretrained(ctx, model=str(tiny))
        hashes.add(build_manifest(ctx.output, "model", "causal-lm").hash)
        assert {path.name for path in ctx.output.iterdir()} == FILES | {"chat_template.jinja"}
    assert len(hashes) == 1
    ids = torch.tensor([[1, 20, 30, 40]])
    with torch.no_grad():
        both = [AutoModelForCausalLM.from_pretrained(path) for path in (tiny, ctx.output)]
        assert torch.equal(both[0](ids).logits, both[1](ids).logits)


def test_the_dtype_is_that_of_the_written_weights(tmp_path, tiny):
    ctx = make_context(tmp_path)
    luthier_models.pretrained(ctx, model=str(tiny), dtype="bfloat16")
    assert AutoModelForCausalLM.from_pretrained(ctx.output, dtype="auto").dtype == torch.bfloat16


@pytest.mark.slow
def test_gguf_becomes_the_same_model_in_safetensors(gguf, smollm2):
    assert {path.name for path in smollm2.iterdir()} == FILES | {"chat_template.jinja"}
    config = json.loads((smollm2 / "config.json").read_text())
    assert "quantization_config" not in config
    assert config["rope_parameters"]["rope_theta"] == 100000.0
    direct = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    saved = AutoModelForCausalLM.from_pretrained(smollm2)
    assert saved.lm_head.weight.data_ptr() == saved.model.embed_tokens.weight.data_ptr()
    ids = torch.tensor([[1, 4093, 198, 6004, 2, 198, 1, 520]])
    with torch.no_grad():
        assert torch.equal(direct(ids).logits, saved(ids).logits)


@pytest.mark.parametrize(("splitter", "before"), [("smollm", ["ĠĠĠ"]), ("gpt-2", ["ĠĠ", "Ġ"])])
def test_a_tokenizer_of_gguf_parts_digits_as_the_file_says(splitter, before):
    pieces = ["Ġ", "ĠĠ", "ĠĠĠ", *"0123456789"]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[("Ġ", "Ġ"), ("ĠĠ", "Ġ")]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    split_digits(tokenizer, splitter)
    assert tokenizer.encode("   27").tokens == [*before, "2", "7"]


@pytest.mark.slow
def test_smollm2_reads_numbers_as_in_its_pretraining(smollm2):
    tokenizer = AutoTokenizer.from_pretrained(smollm2)
    assert tokenizer.tokenize("    12") == ["ĠĠĠĠ", "1", "2"]


def test_devices(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert resolve_device("cpu").type == "cpu"
    for name, message in [("cuda", "no CUDA device"), ("cuda:1", "no CUDA device"), ("abacus", "is no device")]:
        with pytest.raises(InputError, match=message):
            resolve_device(name)


def test_importing_the_plugin_loads_no_heavy_library():
    heavy = ["torch", "transformers", "polars", "pyarrow", "numpy", "pydantic", "safetensors", "tokenizers"]
    code = f"import luthier_models, sys; print([m for m in {heavy} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_the_contract_is_kept():
    stages = {stage.hook: stage for stage in STAGES}
    found = []
    for hook in ("luthier_architectures", "luthier_runtimes"):
        for function in getattr(luthier_models, hook)():
            component = read_component(
                function, stages[hook], distribution="luthier-models", version="0", plugin="models"
            )
            found.append(component.name)
            assert component.model is not None
    assert {"pretrained", "transformers"} <= set(found)
