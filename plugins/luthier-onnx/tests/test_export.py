from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnxruntime_genai.models import builder

from luthier import InputError, Model, PluginError
from luthier.artifacts import hash_file, list_files
from luthier.testing import make_context
from luthier_models.prompts import PromptEncoder
from luthier_models.runtime import TransformersGenerator
from luthier_onnx import genai
from luthier_onnx.comparison import COMPLETION, Expected, Way, compare, held_out_texts
from luthier_onnx.routes import other_routes
from luthier_onnx.runtime import GenaiGenerator
from luthier_onnx.verification import verify

PROMPTS = ["Return the number of items.", "Open the file and read it."]
COMPLETIONS = ["The number of items in the list.", "Raise an error if the value is not a number."]


def export(model: Path, directory: Path) -> Path:
    ctx = make_context(directory)
    genai(Model.at(model, "causal-lm"), ctx)
    assert ctx.metrics["megabytes"].value > 0
    assert ctx.metrics["export_logit_error"].value < 1e-4
    assert list(ctx.checkpoint.iterdir()) == []
    return ctx.output


def mean_kl(reference: Path, exported: Path) -> float:
    ours = np.concatenate(list(GenaiGenerator(exported).logits(PROMPTS, COMPLETIONS))).astype(np.float64)
    theirs = np.concatenate(list(TransformersGenerator(reference).logits(PROMPTS, COMPLETIONS))).astype(np.float64)
    log_p = theirs - np.log(np.exp(theirs).sum(1, keepdims=True))
    log_q = ours - np.log(np.exp(ours).sum(1, keepdims=True))
    return float((np.exp(log_p) * (log_p - log_q)).sum(1).mean())


def hashes(directory: Path) -> dict[str, str]:
    return {path.name: hash_file(path) for path in list_files(directory)}


def test_an_export_gives_the_same_numbers(tiny_llama, untied_llama, tmp_path):
    for model in (tiny_llama, untied_llama):
        assert abs(mean_kl(model, export(model, tmp_path / model.parent.name))) < 1e-8


def test_the_same_model_gives_the_same_bytes_wherever_it_lies(tiny_llama, tmp_path):
    copy = shutil.copytree(tiny_llama, tmp_path / "elsewhere")
    first = hashes(export(tiny_llama, tmp_path / "a"))
    assert {"model.onnx", "model.onnx.data", "genai_config.json", "tokenizer.json"} <= set(first)
    assert first == hashes(export(copy, tmp_path / "b"))


def test_the_builder_prints_nothing(tiny_llama, tmp_path, capfd):
    export(tiny_llama, tmp_path)
    assert capfd.readouterr().out == ""


def test_genai_itself_stops_at_the_end_of_a_turn(tiny_llama, tmp_path):
    model = shutil.copytree(tiny_llama, tmp_path / "model")
    config = json.loads((model / "config.json").read_text())
    ending = config["eos_token_id"]
    for name in ("config.json", "generation_config.json"):
        record = json.loads((model / name).read_text()) | {"eos_token_id": 0}
        (model / name).write_text(json.dumps(record))
    exported = export(model, tmp_path / "export")
    assert json.loads((exported / "genai_config.json").read_text())["model"]["eos_token_id"] == sorted({0, ending})


def test_an_unknown_architecture_names_those_that_work(tiny_llama, tmp_path):
    model = shutil.copytree(tiny_llama, tmp_path / "model")
    # A recurrent model, as the architecture `rnn-lm` makes it.
    config = json.loads((model / "config.json").read_text()) | {"architectures": ["RnnForCausalLM"]}
    (model / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="cannot export the architecture RnnForCausalLM") as caught:
        export(model, tmp_path / "export")
    assert "the runtime `transformers`" in caught.value.remedy
    assert "`export: dynamo`, which knows it" in caught.value.remedy
    assert "LlamaForCausalLM" in caught.value.remedy
    assert "Qwen3ForCausalLM" in caught.value.remedy


def test_what_not_even_transformers_knows_is_sent_to_no_route():
    said = other_routes({"model_type": "zorbo", "architectures": ["ZorboForCausalLM"]}, "optimum")
    assert said == "Check `architectures` in its config.json: transformers knows no such model."


def test_layers_without_positions_are_refused(tiny_llama, tmp_path):
    model = shutil.copytree(tiny_llama, tmp_path / "model")
    # As SmolLM3 has them, each fourth; the builder would give them rotary positions.
    told = {"architectures": ["SmolLM3ForCausalLM"], "no_rope_layers": [1, 0]}
    (model / "config.json").write_text(json.dumps(json.loads((model / "config.json").read_text()) | told))
    with pytest.raises(InputError, match="cannot export layers without positions") as caught:
        export(model, tmp_path / "export")
    assert "`export: dynamo`, which knows it" in caught.value.remedy


@pytest.mark.parametrize("text", [None, "{", "{}"])
def test_a_directory_without_a_usable_configuration_is_refused(tiny_llama, tmp_path, text):
    model = shutil.copytree(tiny_llama, tmp_path / "model")
    (model / "config.json").unlink()
    if text is not None:
        (model / "config.json").write_text(text)
    with pytest.raises(InputError, match=r"config\.json|none named"):
        export(model, tmp_path / "export")


def test_what_the_builder_writes_without_an_error_and_does_not_run_is_refused(tiny_llama, tmp_path):
    # Asymmetric int4 with a shared embedding: the builder is content, and the graph is invalid.
    ctx = make_context(tmp_path)
    where = ("", str(tiny_llama), str(ctx.output), "int4", "cpu", str(ctx.checkpoint))
    wishes = ["hf_token=false", "hf_remote=false", "is_symmetric=false", "shared_embeddings=true"]
    builder.create_model(*where, **builder.parse_extra_options(*where, wishes))
    with pytest.raises(PluginError, match="does not run"):
        verify(tiny_llama, ctx, "genai", longest=1024, lossy=True)
    assert list(ctx.output.iterdir()) == []


def test_a_graph_that_is_wrong_only_for_several_texts_is_refused(tiny_llama, tmp_path):
    ctx = make_context(tmp_path / "work")
    shutil.copytree(export(tiny_llama, tmp_path / "export"), ctx.output, dirs_exist_ok=True)
    # Every text of a batch is read as the first one.
    path = ctx.output / "model.onnx"
    model = onnx.load(path, load_external_data=False)
    for node in model.graph.node:
        node.input[:] = ["first_of_all" if name == "input_ids" else name for name in node.input]
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.zeros(1, np.int64), "row"))
    added = [
        onnx.helper.make_node("Gather", ["input_ids", "row"], ["first"], axis=0),
        onnx.helper.make_node("Shape", ["input_ids"], ["sizes"]),
        onnx.helper.make_node("Expand", ["first", "sizes"], ["first_of_all"]),
    ]
    for node in reversed(added):
        model.graph.node.insert(0, node)
    onnx.save(model, path)
    with pytest.raises(PluginError, match=r"does not compute what the model does in PyTorch: .*\(in a padded batch"):
        verify(tiny_llama, ctx, "genai", longest=1024)
    assert list(ctx.output.iterdir()) == []


def test_positions_that_are_wrong_far_out_show_in_texts_that_go_there(tiny_llama, tmp_path):
    exported = GenaiGenerator(export(tiny_llama, tmp_path / "export"))
    # The same up to 300 tokens; beyond them its positions are four times as dense.
    stretched = shutil.copytree(tiny_llama, tmp_path / "stretched")
    config = json.loads((stretched / "config.json").read_text())
    half = config["head_dim"] // 2
    config["rope_parameters"] |= {
        "rope_type": "longrope",
        "short_factor": [1.0] * half,
        "long_factor": [4.0] * half,
        "factor": 1.0,
        "original_max_position_embeddings": 300,
    }
    (stretched / "config.json").write_text(json.dumps(config))
    reference = TransformersGenerator(stretched, dtype="float32", batch_size=1)
    for longest, right in ((256, True), (400, False)):
        texts = held_out_texts(reference.encoder, longest)
        assert 0.7 * longest < len(reference.encoder.prompt(texts.prompts[-1])) <= 0.75 * longest
        assert (
            compare(Expected.of(reference, texts), [Way("one by one", exported)]).problem(lossy=False) == ""
        ) is right


def test_of_the_longest_text_the_end_is_compared(tiny_llama):
    encoder = PromptEncoder.from_directory(tiny_llama)
    encoder.context = 4000
    texts = held_out_texts(encoder, 3000)
    assert 2700 < len(encoder.prompt(texts.prompts[-1])) <= 3000 - COMPLETION
