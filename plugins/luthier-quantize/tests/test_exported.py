"""`dynamic-int8`, `static-int8` and `float16` on graphs that carry their states."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx.numpy_helper import to_array

import luthier
from luthier import Dataset, InputError, LuthierError, Model, OnnxModel, PluginError
from luthier.artifacts import hash_file, list_files
from luthier.testing import make_context
from luthier_onnx.generator import GraphGenerator
from luthier_quantize import dynamic_int8, float16, static_int8

PROMPTS = ["Return the number of items.", "Öffne die Datei: 開く", "Write " * 16, "a"]
COMPLETIONS = ["The number of items in the list.", "négatif", "it to a file. " * 3, "b"]
ENCODER_DECODERS = ("t5", "marian", "rnn-seq2seq")
SLOW = ("lstm", "rnn-seq2seq", "t5", "marian", "llama", "gpt2")


@pytest.fixture(scope="session")
def pairs(data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    import polars as pl

    directory = tmp_path_factory.mktemp("pairs")
    [rows] = data.frames()
    rows.select("id", "group", "split", prompt="text", completion=pl.col("text").reverse()).write_parquet(
        directory / "shard-00000.parquet"
    )
    return Dataset.at(directory, "prompt-completion")


@pytest.fixture(scope="session")
def gru(tmp_path_factory: pytest.TempPathFactory) -> OnnxModel:
    """The one that is exported fastest; its embedding is tied to the head."""
    return export_family("gru", tmp_path_factory.mktemp("gru"))


def export_family(family: str, room: Path) -> OnnxModel:
    from luthier_models.testing import write_tiny_decoder, write_tiny_encoder_decoder
    from luthier_onnx import dynamo

    write = write_tiny_encoder_decoder if family in ENCODER_DECODERS else write_tiny_decoder
    ctx = make_context(room / "export")
    dynamo(Model.at(write(room / "model", family), ""), ctx)
    return OnnxModel.at(ctx.output, "encoder-decoder" if family in ENCODER_DECODERS else "decoder", "0" * 64)


@pytest.fixture(scope="session", params=["gru", *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)])
def exported(request: pytest.FixtureRequest, gru: OnnxModel, tmp_path_factory: pytest.TempPathFactory) -> OnnxModel:
    return gru if request.param == "gru" else export_family(request.param, tmp_path_factory.mktemp("exported"))


@pytest.fixture(scope="session")
def made(data: Dataset, pairs: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Quantizes an exported model, once: the directory, and the metrics."""
    done: dict[tuple[Path, str], tuple[Path, dict[str, float]]] = {}

    def quantized(component: Any, onnx_model: OnnxModel) -> tuple[Path, dict[str, float]]:
        key = (onnx_model.path, component.__name__)
        if key not in done:
            ctx = make_context(tmp_path_factory.mktemp("quantized"))
            if component is static_int8:
                examples = pairs if onnx_model.form == "encoder-decoder" else data
                component(onnx_model, examples, ctx, calibration_tokens=1024)
            else:
                component(onnx_model, ctx)
            done[key] = ctx.output, {name: metric.value for name, metric in ctx.metrics.items()}
        return done[key]

    return quantized


def graphs(directory: Path) -> Iterator[onnx.GraphProto]:
    """All graphs, those of loops too."""
    for path in sorted(directory.glob("*.onnx")):
        found = [onnx.load(path).graph]
        while found:
            graph = found.pop()
            yield graph
            found += [part.g for node in graph.node for part in node.attribute if part.HasField("g")]


def constants(directory: Path) -> Iterator[tuple[str, np.ndarray]]:
    for graph in graphs(directory):
        yield from ((each.name, to_array(each)) for each in graph.initializer)


def multiplied(directory: Path) -> Iterator[np.ndarray]:
    """The matrices of signed bytes that are not looked up alone."""
    for graph in graphs(directory):
        readers: dict[str, set[str]] = {}
        for node in graph.node:
            for name in node.input:
                readers.setdefault(name, set()).add(node.op_type)
        for each in graph.initializer:
            if each.data_type == onnx.TensorProto.INT8 and len(each.dims) == 2 and readers[each.name] - {"Gather"}:
                yield to_array(each)


def size(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.glob("*.onnx.data"))


INTEGERS = (dynamic_int8, static_int8)


@pytest.mark.parametrize(
    ("component", "kind", "times"), [*((each, np.int8, 3) for each in INTEGERS), (float16, np.float16, 1.9)]
)
def test_every_matrix_is_small_and_the_result_is_close(made, exported, component, kind, times):
    directory, metrics = made(component, exported)
    arrays = [array for _, array in constants(directory) if array.ndim > 1 and array.size > 64]
    # The few rows of T5's relative positions are a matrix too; the one row of Marian's is a bias.
    assert {array.dtype for array in arrays if min(array.shape) > 1} == {np.dtype(kind)}
    assert size(directory) < size(exported.path) / times
    assert 0 < metrics["mean_kl"] < (1e-5 if component is float16 else 0.05)
    assert metrics["top1_agreement"] > 0.75
    assert metrics["megabytes"] == pytest.approx(sum(each.stat().st_size for each in list_files(directory)) / 1e6)


@pytest.mark.parametrize("component", INTEGERS)
def test_no_sum_of_two_products_can_saturate_16_bits(made, exported, component):
    """On x86 without VNNI, two products of an unsigned and a signed byte are added in 16 bits, without an error."""
    weights = list(multiplied(made(component, exported)[0]))
    assert weights
    assert all(worst_sum(array) <= np.iinfo(np.int16).max for array in weights)


def test_what_onnxruntime_does_by_default_would_saturate(gru, tmp_path):
    """So the test above can fail."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    target = tmp_path / "model.onnx"
    quantize_dynamic(gru.path / "model.onnx", target, per_channel=True, weight_type=QuantType.QInt8)
    assert max(map(worst_sum, multiplied(tmp_path))) > np.iinfo(np.int16).max


def worst_sum(weight: np.ndarray) -> int:
    """The most that 255 times a weight and 255 times its neighbour, of one output, add up to; along either axis."""
    wide = np.abs(weight.astype(np.int64))
    return int(255 * max((wide[1:] + wide[:-1]).max(), (wide[:, 1:] + wide[:, :-1]).max()))


def test_an_embedding_that_is_tied_to_the_head_is_kept_once(made, gru):
    vocabulary = GraphGenerator(gru.path)._reader.vocabulary
    for component in INTEGERS:
        large = [
            array for _, array in constants(made(component, gru)[0]) if array.ndim == 2 and vocabulary in array.shape
        ]
        assert [array.shape[0] for array in large] == [vocabulary]


def test_texts_in_a_padded_batch_are_read_as_if_alone(made, exported):
    """The ranges of `static-int8` are fixed: a text's numbers do not depend on what is beside it."""
    directory, _ = made(static_int8, exported)
    alone, together = GraphGenerator(directory, batch_size=1), GraphGenerator(directory, batch_size=4)
    for one, other in zip(alone.logits(PROMPTS, COMPLETIONS), together.logits(PROMPTS, COMPLETIONS), strict=True):
        spread = one.std()
        # A sum in another order can move a value over the edge between two integers.
        assert np.abs(one - other).mean() < 0.02 * spread


def test_what_attention_multiplies_is_not_rounded(made, exported):
    for path in made(static_int8, exported)[0].glob("*.onnx"):
        graph = onnx.load(path, load_external_data=False).graph
        makers = {name: node for node in graph.node for name in node.output}
        constant = {each.name for each in graph.initializer}
        for node in (node for node in graph.node if node.op_type in ("MatMul", "Gemm")):
            kinds = [makers[name].op_type if name in makers else "" for name in node.input[:2]]
            if "DequantizeLinear" in kinds:
                assert kinds == ["DequantizeLinear"] * 2
                weights = makers[node.input[1]].input[0]
                assert weights in constant or makers[weights].input[0] in constant


@pytest.mark.slow
def test_the_bytes_are_always_the_same_and_only_graphs_change(made, gru, data, tmp_path):
    first = {path.name: hash_file(path) for path in list_files(made(static_int8, gru)[0])}
    ctx = make_context(tmp_path)
    static_int8(gru, data, ctx, calibration_tokens=1024)
    assert first == {path.name: hash_file(path) for path in list_files(ctx.output)}
    before = {path.name: hash_file(path) for path in list_files(gru.path)}
    assert {name for name in before if before[name] != first[name]} == {"model.onnx", "model.onnx.data"}


@pytest.mark.parametrize("component", [dynamic_int8, float16])
def test_what_is_quantized_is_not_quantized_again(made, gru, tmp_path, component):
    for before, kind in ((dynamic_int8, "INT8"), (float16, "FLOAT16")):
        directory, _ = made(before, gru)
        with pytest.raises(InputError, match=f"has matrices in {kind}, where one in float32 is wanted"):
            component(OnnxModel.at(directory, "decoder"), make_context(tmp_path / before.__name__))


def test_too_little_calibration_data_is_refused_before_the_work(gru, data, tmp_path):
    directory = tmp_path / "short"
    directory.mkdir()
    [rows] = data.frames()
    rows.head(3).write_parquet(directory / "shard-00000.parquet")
    ctx = make_context(tmp_path / "work")
    with pytest.raises(InputError, match=r"'train' has \d+ tokens .*: 512 are the least") as caught:
        static_int8(gru, Dataset.at(directory, "language-modelling"), ctx)
    assert "dynamic-int8" in caught.value.remedy
    assert list(ctx.output.iterdir()) == []


def spoil(directory: Path, how: str) -> str:
    """Damage a model; what is said of it."""
    graph = directory / "model.onnx"
    if how == "cut off":
        graph.write_bytes(graph.read_bytes()[:-40])
        return "no ONNX graph, or not a whole one"
    if how == "foreign":
        graph.write_text("no graph at all")
        return "no ONNX graph, or not a whole one"
    (directory / "model.onnx.data").write_bytes(b"short")
    return "is cut off"


@pytest.mark.parametrize("component", [dynamic_int8, float16])
@pytest.mark.parametrize("how", ["cut off", "foreign", "weights cut off"])
def test_a_damaged_graph_is_refused(gru, tmp_path, component, how):
    copy = shutil.copytree(gru.path, tmp_path / "copy")
    said = spoil(copy, how)
    with pytest.raises(InputError, match=said):
        component(OnnxModel.at(copy, "decoder"), make_context(tmp_path / "work"))


def test_a_weight_that_float16_cannot_hold_is_refused(gru, tmp_path):
    copy = shutil.copytree(gru.path, tmp_path / "copy")
    path = copy / "model.onnx.data"
    path.write_bytes((np.frombuffer(path.read_bytes(), np.float32) * np.float32(1e8)).tobytes())
    with pytest.raises(InputError, match="which float16 cannot hold: its largest is 65504"):
        float16(OnnxModel.at(copy, "decoder"), make_context(tmp_path / "work"))


def test_a_broken_result_is_refused_and_nothing_is_kept(gru, tmp_path):
    from luthier_onnx.verification import verify_quantized

    ctx = make_context(tmp_path)
    shutil.copytree(gru.path, ctx.output, dirs_exist_ok=True)
    data = ctx.output / "model.onnx.data"
    data.write_bytes((np.frombuffer(data.read_bytes(), np.float32) * np.float32(60)).tobytes())
    with pytest.raises(PluginError, match="is broken by its quantization: mean KL"):
        verify_quantized(gru.path, ctx, "decoder")
    assert list(ctx.output.iterdir()) == []


@pytest.mark.parametrize(
    ("architecture", "quantizer", "said"),
    [
        ("architecture: rnn-lm", "export: dynamo\n  - quantize: int8", "decoder"),
        ("architecture: rnn-seq2seq", "export: dynamo\n  - quantize: static-int8", "reads pairs of prompts"),
        ("architecture: rnn-lm", "quantize: gptq", "`export: dynamo`, then `dynamic-int8`"),
        ("architecture: fresh\n    family: opt", "quantize: mixed\n    max_kl: 1", "layers of OPTForCausalLM cannot"),
        ("architecture: rnn-lm", "quantize: smooth", "layers of RnnForCausalLM cannot be run one by one"),
    ],
)
def test_a_plan_refuses_what_does_not_go_together(luthier_project, architecture, quantizer, said):
    luthier_project.recipe(
        "luthier: 1\nname: forms\nsteps:\n  - source: docstrings\n    packages: [luthier]\n"
        f"  - format: language-modelling\n  - {architecture}\n  - {quantizer}\n"
    )
    with pytest.raises(LuthierError, match=said):
        luthier.plan(luthier_project.path / "recipe.yaml")
