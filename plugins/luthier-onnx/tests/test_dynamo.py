"""Models of every form, exported by torch's own exporter: their graphs, and the numbers and texts that they give."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest

from luthier import InputError, PluginError, completed
from luthier.artifacts import hash_file, list_files
from luthier.testing import make_context
from luthier_models.runtime import TransformersGenerator
from luthier_onnx import readers
from luthier_onnx.generator import GraphGenerator
from luthier_onnx.verification import verify

PROMPTS = ["Return the number of items.", "Öffne die Datei: 開く", "Write " * 16, "a"]
COMPLETIONS = ["The number of items in the list.", "négatif", "it to a file. " * 3, ""]


def graph(directory: Path, name: str = "model.onnx") -> onnx.GraphProto:
    return onnx.load(directory / name, load_external_data=False).graph


def axes(value: onnx.ValueInfoProto) -> list[int | str]:
    return [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]


def test_every_export_was_compared_with_pytorch(exported_family):
    assert exported_family.metrics["export_logit_error"] < 1e-4
    assert exported_family.metrics["export_mean_kl"] < 1e-6
    assert exported_family.metrics["export_greedy_agreement"] == 1
    assert exported_family.metrics["megabytes"] > 0


@pytest.mark.parametrize(("batch", "chunk"), [(1, 256), (4, 256), (3, 9)])
def test_logits_scores_and_texts_are_those_of_pytorch_however_they_are_read(exported_family, monkeypatch, batch, chunk):
    monkeypatch.setattr(readers, "CHUNK_TOKENS", chunk)
    ours, theirs = GraphGenerator(exported_family.onnx, batch_size=batch), TransformersGenerator(exported_family.model)
    for mine, other in zip(ours.logits(PROMPTS, COMPLETIONS), theirs.logits(PROMPTS, COMPLETIONS), strict=True):
        assert mine.dtype == np.float32
        np.testing.assert_allclose(mine, other, rtol=1e-3, atol=1e-4)
    for mine, other in zip(ours.score(PROMPTS, COMPLETIONS), theirs.score(PROMPTS, COMPLETIONS), strict=True):
        np.testing.assert_allclose(mine.log_probabilities, other.log_probabilities, atol=1e-4)
    assert ours.generate(PROMPTS, max_new_tokens=12) == theirs.generate(PROMPTS, max_new_tokens=12)
    for prompt, expected in zip(PROMPTS, ours.generate(PROMPTS, max_new_tokens=12), strict=True):
        assert "".join(token.text for token in completed(ours.open(prompt, max_new_tokens=12))) == expected


def test_no_axis_of_the_examples_is_left_in_the_graphs(exported_family):
    names = [path.name for path in exported_family.onnx.glob("*.onnx")]
    for name in names:
        found = graph(exported_family.onnx, name)
        assert {axes(each)[0 if "states." not in each.name else 1] for each in found.input} == {"batch"}
        assert all(isinstance(axis, str) for each in found.input if each.name == "input_ids" for axis in axes(each))
        # The time axis of what recurrent layers give is the example's, where the exporter writes one.
        computed = {name for node in found.node for name in node.output}
        assert not [each.name for each in found.value_info if axes(each) and each.name in computed]


def test_weights_lie_beside_the_graph_and_nothing_says_where_it_was_made(exported_family):
    for path in exported_family.onnx.glob("*.onnx"):
        assert path.with_name(f"{path.name}.data").stat().st_size > path.stat().st_size / 4
        content = path.read_bytes()
        assert b"site-packages" not in content
        assert b"/luthier_onnx/" not in content


def test_an_encoders_keys_are_computed_once(exported_family):
    if not (exported_family.onnx / "encoder.onnx").exists():
        pytest.skip("a decoder alone")
    given = {each.name for each in graph(exported_family.onnx, "encoder.onnx").output}
    taken = {each.name for each in graph(exported_family.onnx, "decoder.onnx").input}
    assert given < taken
    interface = json.loads((exported_family.onnx / "interface.json").read_text())
    again = {each.name for each in graph(exported_family.onnx, "decoder.onnx").output}
    assert set(interface["states"]) < taken
    assert {*interface["states"].values(), "logits"} == again


def test_the_same_model_gives_the_same_bytes_wherever_it_lies(recurrent, export, tmp_path):
    copy = shutil.copytree(recurrent.model, tmp_path / "elsewhere")
    again = export(copy)
    first = {path.relative_to(recurrent.onnx): hash_file(path) for path in list_files(recurrent.onnx)}
    assert first == {path.relative_to(again): hash_file(path) for path in list_files(again)}


def damaged(recurrent, directory: Path, factor: float):
    """An export whose weights are not the model's any more."""
    ctx = make_context(directory)
    shutil.copytree(recurrent.onnx, ctx.output, dirs_exist_ok=True)
    data = ctx.output / "model.onnx.data"
    weights = np.frombuffer(data.read_bytes(), np.float32)
    data.write_bytes((weights * np.float32(factor)).tobytes())
    return ctx


def test_an_export_that_computes_something_else_is_refused_with_the_numbers(recurrent, tmp_path):
    ctx = damaged(recurrent, tmp_path / "float32", 1.05)
    with pytest.raises(PluginError, match=r"logits are off by up to 0\.\d+ of their spread \(0\.001 is allowed\)"):
        verify(recurrent.model, ctx, "decoder", longest=1024)
    # No half of it is left.
    assert list(ctx.output.iterdir()) == []
    assert ctx.metrics["export_logit_error"].value > 1e-3
    # Where rounding was wanted, the same is only recorded.
    ctx = damaged(recurrent, tmp_path / "rounded", 1.05)
    verify(recurrent.model, ctx, "decoder", longest=1024, lossy=True)
    assert ctx.metrics["export_logit_error"].value > 1e-3


@pytest.mark.parametrize(("factor", "reason"), [(60.0, "broken by its quantization"), (np.nan, "not finite")])
def test_rounding_that_breaks_a_model_is_refused(recurrent, tmp_path, factor, reason):
    ctx = damaged(recurrent, tmp_path / "broken", factor)
    with pytest.raises(PluginError, match=reason):
        verify(recurrent.model, ctx, "decoder", longest=1024, lossy=True)
    assert list(ctx.output.iterdir()) == []


def test_an_export_that_does_not_load_is_refused(recurrent, tmp_path):
    ctx = damaged(recurrent, tmp_path / "cut", 1.0)
    (ctx.output / "model.onnx.data").write_bytes(b"short")
    with pytest.raises(PluginError, match=r"does not run: .*model\.onnx\.data is cut off"):
        verify(recurrent.model, ctx, "decoder", longest=1024)


def test_a_model_that_carries_something_else_is_refused_and_told_of_the_routes(tmp_path, export):
    from transformers import MambaConfig

    from luthier_models.normalise import save_model
    from luthier_models.testing import tiny_tokenizer
    from luthier_models.untrained import initialised

    tokenizer = tiny_tokenizer(None)
    config = MambaConfig(vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=1, state_size=4)
    save_model(initialised(config, "causal-lm", 0), tokenizer, tmp_path / "model")
    with pytest.raises(InputError, match="dynamo cannot export MambaForCausalLM") as caught:
        export(tmp_path / "model")
    assert caught.value.remedy == "Leave out the export: the runtime `transformers` runs the model as it is."


def changed(directory: Path, target: Path, name: str, **values) -> Path:
    """A copy of a model with other settings in one of its files."""
    copy = shutil.copytree(directory, target)
    record = json.loads((copy / name).read_text()) | values
    (copy / name).write_text(json.dumps(record))
    return copy


def test_a_directory_that_contradicts_itself_is_refused(recurrent, tmp_path):
    other = changed(recurrent.onnx, tmp_path / "vocabulary", "config.json", vocab_size=7)
    with pytest.raises(InputError, match="the vocabulary has 7 tokens; the graph gives 3"):
        GraphGenerator(other)
    other = changed(recurrent.onnx, tmp_path / "states", "interface.json", states={"past_states.7": "logits"})
    with pytest.raises(InputError, match=r"past_states\.7 is missing"):
        GraphGenerator(other)
    other = changed(recurrent.onnx, tmp_path / "newer", "interface.json", version=99)
    with pytest.raises(InputError, match="has version 99"):
        GraphGenerator(other)
    (other / "interface.json").write_text("[")
    with pytest.raises(InputError, match="describes no interface"):
        GraphGenerator(other)
    (other / "interface.json").unlink()
    # Without it the graph has to be optimum's.
    with pytest.raises(InputError, match="no decoder graph that carries states"):
        GraphGenerator(other)


def test_weights_that_were_led_elsewhere_are_not_loaded(recurrent, tmp_path):
    copy = shutil.copytree(recurrent.onnx, tmp_path / "copy")
    (copy / "model.onnx.data").rename(tmp_path / "elsewhere")
    (copy / "model.onnx.data").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="not a file of its own directory"):
        GraphGenerator(copy)


def test_completions_stop_where_they_are_told_to(recurrent):
    generator = GraphGenerator(recurrent.onnx)
    [text] = generator.generate(PROMPTS[:1], max_new_tokens=24)
    assert text
    mark = text[2:4]
    assert generator.generate(PROMPTS[:1], max_new_tokens=24, stop=["never in it", mark]) == [text[: text.index(mark)]]
    assert generator.generate(PROMPTS[:2], max_new_tokens=0) == ["", ""]
