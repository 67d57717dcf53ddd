"""The tokenizer in the file."""

from __future__ import annotations

import json

import pytest
from gguf import GGUFReader, TokenType
from tokenizers import Regex, normalizers, pre_tokenizers

from luthier import InputError, Model
from luthier.testing import make_context
from luthier_gguf import gguf
from luthier_gguf.vocabulary import splitter
from luthier_models.testing import CHATML, tiny_tokenizer

QWEN = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
LLAMA = QWEN.replace(r"\p{N}|", r"\p{N}{1,3}|", 1)
BYTES = pre_tokenizers.ByteLevel(add_prefix_space=False)
NO_REGEX = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)


def record(split=BYTES, normalizer=None, **model):
    backend = tiny_tokenizer().backend_tokenizer
    backend.pre_tokenizer = split
    if normalizer is not None:
        backend.normalizer = normalizer
    found = json.loads(backend.to_str())
    found["model"] |= model
    return found


def by_pattern(pattern):
    return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated"), NO_REGEX])


@pytest.mark.parametrize(
    ("found", "name"),
    [
        (record(), "gpt-2"),
        (record(pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), BYTES])), "smollm"),
        (record(by_pattern(QWEN), normalizers.NFC()), "qwen2"),
        (record(by_pattern(LLAMA)), "dbrx"),
        (record(by_pattern(LLAMA), ignore_merges=True), "llama-bpe"),
    ],
    ids=lambda each: each if isinstance(each, str) else "",
)
def test_what_splits_texts_is_known_by_what_it_does(found, name):
    assert splitter(found) == name


@pytest.mark.parametrize(
    ("found", "what"),
    [
        (record(pre_tokenizers.Whitespace()), "Whitespace"),
        (record(pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=False), BYTES])), "Digits"),
        (record(by_pattern(r"\p{L}+")), "Split"),
        (record(pre_tokenizers.ByteLevel(add_prefix_space=True)), "ByteLevel"),
        (record(normalizer=normalizers.Lowercase()), "Lowercase"),
        (record(type="Unigram"), "kind Unigram"),
        (record(merges=[]), "BPE without merges"),
    ],
    ids=lambda each: each if isinstance(each, str) else "",
)
def test_another_tokenizer_is_refused(found, what):
    with pytest.raises(InputError, match=what):
        splitter(found)


def test_the_file_has_tokens_merges_special_tokens_and_the_template(tiny, tmp_path):
    ctx = make_context(tmp_path)
    gguf(Model.at(tiny("llama"), "causal-lm"), ctx, precision="f32")
    fields = GGUFReader(ctx.output / "model.gguf").fields
    tokenizer = tiny_tokenizer()
    tokens, types = (fields[f"tokenizer.ggml.{name}"].contents() for name in ("tokens", "token_type"))
    assert tokens[: len(tokenizer)] == tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
    assert types[:3] == [TokenType.CONTROL] * 3
    assert set(types[3 : len(tokenizer)]) == {TokenType.NORMAL}
    assert len(tokens) == 384
    assert set(types[len(tokenizer) :]) == {TokenType.UNUSED}
    merges = json.loads(tokenizer.backend_tokenizer.to_str())["model"]["merges"]
    assert fields["tokenizer.ggml.merges"].contents() == [" ".join(pair) for pair in merges]
    expected = {
        "model": "gpt2",
        "pre": "gpt-2",
        "bos_token_id": 1,
        "eos_token_id": 2,
        "padding_token_id": 0,
        "add_bos_token": False,
        "add_eos_token": False,
    }
    assert {name: fields[f"tokenizer.ggml.{name}"].contents() for name in expected} == expected
    assert fields["tokenizer.chat_template"].contents() == CHATML


def test_a_turn_that_ends_otherwise_than_a_text_is_told(tiny, tmp_path):
    directory = tiny("llama")
    config = json.loads((directory / "tokenizer_config.json").read_text())
    (directory / "tokenizer_config.json").write_text(json.dumps({**config, "eos_token": "<|pad|>"}))
    ctx = make_context(tmp_path)
    gguf(Model.at(directory, "causal-lm"), ctx, precision="f32")
    fields = GGUFReader(ctx.output / "model.gguf").fields
    assert fields["tokenizer.ggml.eos_token_id"].contents() == 0
    assert fields["tokenizer.ggml.eot_token_id"].contents() == 2
    assert json.loads((ctx.output / "generation_config.json").read_text())["eos_token_id"] == [0, 2]
