"""llama.cpp runs what was exported, and computes what PyTorch does."""

from __future__ import annotations

import gc
import json
import shutil

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast
from typer.testing import CliRunner

from luthier import InputError, Model, OnnxModel, completed
from luthier.cli import app
from luthier.testing import make_context
from luthier_gguf import gguf, library, llama_cpp
from luthier_models.runtime import TransformersGenerator

pytest.importorskip("llama_cpp", reason=library.INSTALL)

from luthier_gguf.llama import LlamaModel
from luthier_gguf.runtime import LlamaCppGenerator

LONG = " ".join(["The cache keeps every answer until it is full."] * 2)
PROMPTS = ["Return the number of items.", LONG, "Öffne die Datei: 開く"]
COMPLETIONS = ["The number of items in the list.", LONG[:60], "négatif"]


@pytest.fixture(scope="module")
def source(tiny):
    return tiny("llama", max_position_embeddings=256)


@pytest.fixture(scope="module")
def exported(source, tmp_path_factory):
    ctx = make_context(tmp_path_factory.mktemp("export"))
    gguf(Model.at(source, "causal-lm"), ctx, precision="f32")
    return ctx.output


@pytest.fixture(scope="module")
def generator(exported):
    return LlamaCppGenerator(exported, threads=1)


@pytest.fixture(scope="module")
def reference(source):
    return TransformersGenerator(source, dtype="float32", batch_size=1)


def test_logits_are_those_of_pytorch_where_the_cache_is_exact(exported, reference):
    generator = LlamaCppGenerator(exported, threads=1, cache="f32")
    found = list(generator.logits(PROMPTS, COMPLETIONS))
    for ours, theirs in zip(found, reference.logits(PROMPTS, COMPLETIONS), strict=True):
        assert ours.dtype == np.float32
        assert ours.shape == theirs.shape
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


def test_a_cache_in_float16_costs_little(generator, reference):
    for ours, theirs in zip(
        generator.logits(PROMPTS, COMPLETIONS), reference.logits(PROMPTS, COMPLETIONS), strict=True
    ):
        np.testing.assert_allclose(ours, theirs, atol=0.02 * theirs.std())


def test_scores_are_those_of_the_logits_and_greedy_texts_those_of_transformers(generator, reference):
    scores = generator.score([*PROMPTS, ""], [*COMPLETIONS, LONG])
    theirs = reference.score([*PROMPTS, ""], [*COMPLETIONS, LONG])
    for mine, other in zip(scores, theirs, strict=True):
        np.testing.assert_allclose(mine.log_probabilities, other.log_probabilities, atol=0.05)
    assert generator.generate(PROMPTS, max_new_tokens=16) == reference.generate(PROMPTS, max_new_tokens=16)


def test_streams_go_on_side_by_side_in_memory_of_their_own(generator):
    alone = [list(completed(generator.open(prompt, max_new_tokens=6))) for prompt in PROMPTS[:2]]
    streams = [generator.open(prompt, max_new_tokens=6) for prompt in PROMPTS[:2]]
    for stream in streams:
        while stream.read():
            pass
    turns = [[stream.step() for stream in streams] for _ in range(min(map(len, alone)))]
    for stream in streams:
        stream.close()
    for number, expected in enumerate(alone):
        assert [turn[number].id for turn in turns] == [token.id for token in expected[: len(turns)]]
    assert generator.generate(PROMPTS[:1], max_new_tokens=6) == ["".join(token.text for token in alone[0])]


def test_a_session_knows_when_another_text_has_begun(generator):
    first = generator._start(8)
    first.read(np.array([3, 4], np.int32), 1)
    second = generator._start(8)
    second.read(np.array([3, 4, 5], np.int32), 2)
    assert second.logits().shape == (2, 384)
    with pytest.raises(RuntimeError, match="another text"):
        first.logits()
    generator._start(5000).read(np.array([3], np.int32), 1)  # in a larger room
    with pytest.raises(RuntimeError, match="another text"):
        second.logits()


def test_models_come_and_go(exported):
    for _ in range(3):
        model = LlamaModel(exported / "model.gguf", threads=1)
        model.session(4).read(np.array([3], np.int32), 1)
        del model
        gc.collect()


def test_the_tokenizer_in_the_file_stands_in_for_one_beside_it(exported, generator, tmp_path):
    shutil.copy(exported / "model.gguf", tmp_path / "alone.gguf")
    alone = LlamaCppGenerator(tmp_path / "alone.gguf", threads=1)
    for prompt in PROMPTS:
        assert alone.encoder.prompt(prompt) == generator.encoder.prompt(prompt)
    assert alone.encoder.end_tokens == generator.encoder.end_tokens


def test_users_ask_a_file(exported, generator, tmp_path):
    [expected] = generator.generate(PROMPTS[:1], max_new_tokens=6)
    file = shutil.copy(exported / "model.gguf", tmp_path / "alone.gguf")
    arguments = ["generate", str(file), PROMPTS[0], "--max-new-tokens", "6", "--device", "cpu", "--json"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) == [{"prompt": PROMPTS[0], "completion": expected}]


def test_what_is_no_model_is_refused(exported, tmp_path):
    with pytest.raises(InputError, match="no GGUF file"):
        LlamaCppGenerator(tmp_path)
    (tmp_path / "a.gguf").write_bytes(b"nothing")
    with pytest.raises(InputError, match="begins otherwise"):
        LlamaCppGenerator(tmp_path)
    (tmp_path / "b.gguf").write_bytes((exported / "model.gguf").read_bytes()[:20_000])
    with pytest.raises(InputError, match=r"several GGUF files: a\.gguf, b\.gguf"):
        LlamaCppGenerator(tmp_path)
    with pytest.raises(InputError, match=r"llama\.cpp does not load"):
        LlamaModel(tmp_path / "b.gguf")


def test_a_tokenizer_of_another_model_is_refused(exported, tmp_path):
    odd = shutil.copytree(exported, tmp_path / "odd")
    tokenizer = json.loads((odd / "tokenizer.json").read_text())
    tokenizer["added_tokens"] += [
        {**tokenizer["added_tokens"][0], "id": 400 + number, "content": f"<{number}>"} for number in range(40)
    ]
    (odd / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(InputError, match="They are of different models"):
        LlamaCppGenerator(odd)


def test_a_device_that_llama_cpp_was_not_built_for_is_refused(exported, monkeypatch, tmp_path):
    monkeypatch.setattr("luthier_gguf.runtime.offloads", lambda: False)
    ctx = make_context(tmp_path)
    ctx.device = "cuda"
    with pytest.raises(InputError, match="built for the CPU alone"):
        llama_cpp(OnnxModel.at(exported, "gguf"), ctx)


SAMPLE = [
    "def area(r):\n    return 3.14159 * r ** 2  # metres\n\tif r > 10:\n        raise ValueError('too large')\n",
    "In 2026, 1234567 people don't know   what 3 of 14 means; they'll ask.\r\n\r\nNaïve café, Straße, 打开文件 (3) 😀",
]
AWKWARD = [
    "a  1",
    "x   12345\n\n  7 8",
    "I'll  don't\t\tI'D",
    "\r\n \n\t 0",
    "é́ ñ 打开文件。",
    "😀👍🏽 ｱ ½ ² Ⅳ ٣",
    "    return x[1:-1]  # ok\n",
]
LETTERS = "aZé ß'\u2019s\t\n\r  019½٣中文😀\u0301\u200b\u00a0\u3000._-+*/=(){}[]#\"\\<|>"


def splitting(name):
    """A tokenizer that splits texts as the one of that name, trained on a few lines."""
    by_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False)
    patterns = {
        "qwen2": r"\p{N}",
        "dbrx": r"\p{N}{1,3}",
    }
    tokenizer = Tokenizer(models.BPE())
    if name == "gpt-2":
        tokenizer.pre_tokenizer = by_bytes
    elif name == "smollm":
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), by_bytes])
    else:
        pattern = (
            rf"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|{patterns[name]}|"
            r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
        )
        plain = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated"), plain])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=384,
        special_tokens=["<|pad|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(SAMPLE * 3, trainer)
    ends = {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "pad_token": "<|pad|>"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **ends)


@pytest.fixture(scope="module", params=["gpt-2", "smollm", "qwen2", "dbrx"])
def both_tokenizers(request, source, tmp_path_factory):
    room = tmp_path_factory.mktemp("tokenizer")
    directory = shutil.copytree(source, room / "model")
    tokenizer = splitting(request.param)
    tokenizer.save_pretrained(directory)
    ctx = make_context(room)
    gguf(Model.at(directory, "causal-lm"), ctx, precision="q8_0")
    return tokenizer, LlamaModel(ctx.output / "model.gguf", threads=1)


@pytest.mark.parametrize("text", AWKWARD)
def test_llama_cpp_tokenises_awkward_texts_as_transformers_does(text, both_tokenizers):
    tokenizer, model = both_tokenizers
    assert model.tokenize(text) == tokenizer(text, add_special_tokens=False)["input_ids"]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(st.sampled_from(LETTERS), max_size=24))
def test_llama_cpp_tokenises_any_text_as_transformers_does(both_tokenizers, text):
    tokenizer, model = both_tokenizers
    assert model.tokenize(text) == tokenizer(text, add_special_tokens=False)["input_ids"]
