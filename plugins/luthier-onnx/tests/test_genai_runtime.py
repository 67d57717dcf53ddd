from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from luthier import InputError, Model
from luthier.artifacts import hash_file, list_files
from luthier.testing import make_context
from luthier_models import one_by_one
from luthier_models.one_by_one import threads_from_environment
from luthier_models.runtime import TransformersGenerator
from luthier_onnx import genai
from luthier_onnx.runtime import GenaiGenerator
from luthier_onnx.side_by_side import SideBySide

LONG = " ".join(["The cache keeps every answer until it is full."] * 7)
PROMPTS = ["Return the number of items.", LONG, "Öffne die Datei: 開く"]
COMPLETIONS = ["The number of items in the list.", LONG[:300], "négatif"]


@pytest.fixture(scope="module")
def exported(tiny_llama, tmp_path_factory) -> Path:
    ctx = make_context(tmp_path_factory.mktemp("export"))
    genai(Model.at(tiny_llama, "causal-lm"), ctx)
    return ctx.output


@pytest.fixture(scope="module")
def generator(exported) -> GenaiGenerator:
    return GenaiGenerator(exported)


@pytest.fixture(scope="module")
def reference(tiny_llama) -> TransformersGenerator:
    return TransformersGenerator(tiny_llama)


def test_logits_equal_those_of_pytorch(generator, reference):
    for ours, theirs in zip(
        generator.logits(PROMPTS, COMPLETIONS), reference.logits(PROMPTS, COMPLETIONS), strict=True
    ):
        assert ours.dtype == np.float32
        assert ours.shape == theirs.shape
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-3)


def test_logits_do_not_depend_on_the_chunks(generator, monkeypatch):
    whole = list(generator.logits(PROMPTS, COMPLETIONS))
    for size in (1, 7, 4096):
        monkeypatch.setattr(one_by_one, "CHUNK", size)
        for chunked, expected in zip(generator.logits(PROMPTS, COMPLETIONS), whole, strict=True):
            np.testing.assert_allclose(chunked, expected, rtol=1e-4, atol=1e-4)


def test_scores_equal_those_of_pytorch_and_of_the_logits(generator, reference):
    prompts, completions = [*PROMPTS, ""], [*COMPLETIONS, LONG]
    ours, theirs = generator.score(prompts, completions), reference.score(prompts, completions)
    for mine, other, prompt, completion in zip(ours, theirs, prompts, completions, strict=True):
        np.testing.assert_allclose(mine.log_probabilities, other.log_probabilities, atol=1e-3)
        [logits] = generator.logits([prompt], [completion])
        _, targets = generator.encoder.pair(prompt, completion)
        wide = logits.astype(np.float64)
        expected = wide[np.arange(len(targets)), targets] - np.log(np.exp(wide).sum(1))
        np.testing.assert_allclose(mine.log_probabilities, expected, atol=1e-5)


def test_long_text_is_scored_in_windows_that_fill_the_context(generator, reference):
    [ours], [theirs] = (each.score([""], [LONG * 10]) for each in (generator, reference))
    assert len(ours.log_probabilities) > generator.context
    np.testing.assert_allclose(ours.log_probabilities, theirs.log_probabilities, atol=1e-3)
    [ours], [theirs] = (list(each.logits([""], [LONG * 10])) for each in (generator, reference))
    assert len(ours) == generator.context
    np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-3)


def test_a_completion_may_fill_the_context(generator, reference):
    room = generator.context - len(generator.encoder.prompt(LONG))
    assert generator.generate([LONG], max_new_tokens=room) == reference.generate([LONG], max_new_tokens=room)


def test_a_text_without_tokens_to_score_has_an_empty_score(generator):
    assert generator.score([""], [""])[0].log_probabilities == ()
    [logits] = generator.logits([""], [""])
    assert logits.shape == (0, len(generator.encoder.tokenizer))


def test_greedy_completions_equal_those_of_transformers(generator, reference):
    assert generator.generate(PROMPTS, max_new_tokens=24) == reference.generate(PROMPTS, max_new_tokens=24)


def test_a_stream_is_what_generate_gives_also_beside_others(generator):
    expected = generator.generate(PROMPTS, max_new_tokens=24)
    streams = [generator.open(prompt, max_new_tokens=24) for prompt in PROMPTS]
    texts = [""] * len(streams)
    unread, open_streams = set(range(len(streams))), set(range(len(streams)))
    while open_streams:
        for number in sorted(open_streams):
            if number in unread:
                if not streams[number].read():
                    unread.discard(number)
                continue
            token = streams[number].step()
            texts[number] += token.text
            if token.end:
                streams[number].close()
                open_streams.discard(number)
    assert texts == expected


def test_texts_side_by_side_are_what_they_are_one_by_one(exported, generator):
    beside = SideBySide(exported, batch_size=2)
    for ours, theirs in zip(beside.logits(PROMPTS, COMPLETIONS), generator.logits(PROMPTS, COMPLETIONS), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-3)
    assert beside.generate(PROMPTS, max_new_tokens=12) == generator.generate(PROMPTS, max_new_tokens=12)


def test_completions_are_cut_before_the_first_stop(generator):
    [text] = generator.generate(PROMPTS[:1], max_new_tokens=24)
    mark = text[4:6]
    [cut] = generator.generate(PROMPTS[:1], max_new_tokens=24, stop=["never in it", mark])
    assert cut == text[: text.index(mark)]


def test_generation_ends_at_an_end_token(generator, monkeypatch):
    prompt = generator.encoder.prompt(PROMPTS[0])
    session = generator._start(len(prompt) + 8)
    session.read(np.asarray(prompt, np.int32), 1)
    tokens = [session.write() for _ in range(8)]
    monkeypatch.setattr(generator.encoder, "_end_tokens", {tokens[3]})
    expected = generator.encoder.decode(tokens[: tokens.index(tokens[3])])
    assert generator.generate(PROMPTS[:1], max_new_tokens=8) == [expected]


def test_a_text_longer_than_the_context_is_refused(generator):
    with pytest.raises(InputError, match="context of 512"):
        generator.generate([LONG * 10])
    with pytest.raises(InputError, match="context of 512"):
        generator.score(["a"], [LONG * 10])


def test_running_changes_nothing_on_disk(exported):
    before = {path: hash_file(path) for path in list_files(exported)}
    generator = GenaiGenerator(exported, threads=1)
    generator.generate(PROMPTS[:1], max_new_tokens=2)
    generator.score(PROMPTS[:1], COMPLETIONS[:1])
    assert {path: hash_file(path) for path in list_files(exported)} == before


def test_threads_come_from_the_engine_before_the_environment(monkeypatch):
    monkeypatch.delenv("LUTHIER_THREADS", raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert threads_from_environment() is None
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert threads_from_environment() == 3
    monkeypatch.setenv("LUTHIER_THREADS", "2")
    assert threads_from_environment() == 2
    monkeypatch.setenv("LUTHIER_THREADS", "many")
    assert threads_from_environment() == 3


def test_progress_is_reported(exported, tmp_path):
    ctx = make_context(tmp_path)
    GenaiGenerator(exported, ctx).score(PROMPTS, COMPLETIONS)
    assert [event["done"] for event in ctx.events] == [1, 2, 3]


def test_a_directory_that_is_no_genai_model_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"genai_config\.json"):
        GenaiGenerator(tmp_path)
    (tmp_path / "genai_config.json").write_text("{")
    with pytest.raises(InputError, match="no valid JSON"):
        GenaiGenerator(tmp_path)
    (tmp_path / "genai_config.json").write_text("[]")
    with pytest.raises(InputError, match="no JSON object"):
        GenaiGenerator(tmp_path)


def test_search_settings_of_the_model_do_not_apply(exported, generator, tmp_path):
    odd = shutil.copytree(exported, tmp_path / "odd")
    settings = json.loads((odd / "genai_config.json").read_text())
    settings["search"] |= {"do_sample": True, "temperature": 5.0, "repetition_penalty": 3.0, "num_beams": 1}
    (odd / "genai_config.json").write_text(json.dumps(settings))
    assert GenaiGenerator(odd).generate(PROMPTS, max_new_tokens=12) == generator.generate(PROMPTS, max_new_tokens=12)


@pytest.mark.parametrize(
    ("setting", "value", "reason"),
    [
        ("vocab_size", 7, r"vocab_size is 7, in the graph 3\d\d"),
        ("context_length", 10**6, "context_length is 1000000, and the graph has positions for 512 tokens"),
        ("context_length", None, "lacks a setting"),
        ("context_length", "many", "lacks a setting"),
        ("decoder", [], "lacks a setting"),
        ("decoder.num_hidden_layers", 3, "num_hidden_layers is 3, in the graph 2"),
        ("decoder.num_key_value_heads", 1, "num_key_value_heads is 1, in the graph 2"),
        ("decoder.head_size", 8, "head_size is 8, in the graph 16"),
        ("decoder.filename", "../model.onnx", "which is not beside it"),
        ("decoder.filename", "other.onnx", r"there is no .*other\.onnx"),
        ("decoder.head_size", None, "lacks a setting"),
        ("decoder.inputs.input_ids", "tokens", "has no input tokens"),
        ("decoder.inputs.past_value_names", "p.%d", r"takes past_key_values\.0\.value, .* \(2 such\)"),
        ("decoder.outputs.present_key_names", "p.%d", r"has no output p\.%d"),
        ("decoder.outputs.logits", "scores", "has no output scores"),
        ("decoder.session_options.custom_ops_library", "ops.so", "names a library to load, 'ops.so'"),
    ],
)
def test_a_configuration_that_contradicts_the_graph_is_refused(exported, tmp_path, setting, value, reason):
    odd = shutil.copytree(exported, tmp_path / "odd")
    settings = json.loads((odd / "genai_config.json").read_text())
    place = settings["model"]
    *outer, last = setting.split(".")
    for name in outer:
        place = place[name]
    place[last] = value
    (odd / "genai_config.json").write_text(json.dumps(settings))
    with pytest.raises(InputError, match=reason):
        GenaiGenerator(odd)


def test_a_cut_graph_and_weights_that_were_led_elsewhere_are_not_loaded(exported, tmp_path):
    odd = shutil.copytree(exported, tmp_path / "odd")
    (odd / "model.onnx.data").rename(tmp_path / "elsewhere")
    (odd / "model.onnx.data").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="not a file of its own directory"):
        GenaiGenerator(odd)
    (odd / "model.onnx").write_bytes((odd / "model.onnx").read_bytes()[:1000])
    with pytest.raises(InputError, match="no ONNX graph, or not a whole one"):
        GenaiGenerator(odd)
