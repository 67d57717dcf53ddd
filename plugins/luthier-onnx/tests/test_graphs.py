"""Which files an ONNX model is made of, and which are not loaded."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from luthier import InputError
from luthier_onnx.graphs import check_graphs, companion_files, graph_files, weight_files

WEIGHT = np.arange(4096, dtype=np.float32).reshape(64, 64)


def write_graph(directory: Path, name: str = "model.onnx", *, data: str | None = None) -> Path:
    """A product with a matrix, which lies in the graph, or beside it in `data`."""
    directory.mkdir(exist_ok=True)
    value = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["batch", 64])
    result = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["batch", 64])
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    graph = helper.make_graph([node], "g", [value], [result], [numpy_helper.from_array(WEIGHT, "w")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])
    options = {"save_as_external_data": True, "location": data, "size_threshold": 0} if data else {}
    onnx.save(model, directory / name, **options)
    return directory / name


def point_to(graph: Path, value: str, key: str = "location") -> None:
    """Let the graph's weights lie elsewhere, as only a forger would."""
    model = onnx.load(graph, load_external_data=False)
    [entry] = [each for each in model.graph.initializer[0].external_data if each.key == key]
    entry.value = value
    graph.write_bytes(model.SerializeToString())


def hidden(tensor: onnx.TensorProto, place: str) -> onnx.ModelProto:
    """A graph with a tensor in a place that is no initializer."""
    if place == "sparse":
        indices = numpy_helper.from_array(np.zeros(1, np.int64), "indices")
        sparse = helper.make_sparse_tensor(tensor, indices, [64])
        constant = helper.make_node("Constant", [], ["y"], sparse_value=sparse)
    else:
        constant = helper.make_node("Constant", [], ["y"], value=tensor)
    opsets = [helper.make_opsetid("", 20)]
    result = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [64])
    if place != "function":
        return helper.make_model(helper.make_graph([constant], "g", [], [result]), opset_imports=opsets)
    function = helper.make_function("own", "Weights", [], ["y"], [constant], opsets)
    call = helper.make_node("Weights", [], ["y"], domain="own")
    graph = helper.make_graph([call], "g", [], [result])
    return helper.make_model(graph, opset_imports=[*opsets, helper.make_opsetid("own", 1)], functions=[function])


def test_a_directory_is_its_graphs_their_weights_and_companions(tmp_path):
    directory = tmp_path / "model"
    decoder = write_graph(directory, "decoder.onnx", data="decoder.onnx.data")
    encoder = write_graph(directory, "encoder.onnx")
    (directory / "config.json").write_text("{}")
    (directory / "extra").mkdir()
    (directory / "extra" / "notes.txt").write_text("kept")
    assert graph_files(directory) == check_graphs(directory) == [decoder, encoder]
    assert weight_files(decoder) == [directory / "decoder.onnx.data"]
    assert weight_files(encoder) == []
    assert companion_files(directory) == [directory / "config.json", directory / "extra" / "notes.txt"]


def test_weights_outside_of_the_directory_are_refused(tmp_path):
    graph = write_graph(tmp_path / "model", data="weights.bin")
    secret = tmp_path / "secret.bin"
    secret.write_bytes(bytes(4 * WEIGHT.size))
    for location in ("../secret.bin", str(secret), "sub/../../secret.bin", "../model/weights.bin", ""):
        point_to(graph, location)
        with pytest.raises(InputError, match="not a file of its own directory") as caught:
            check_graphs(graph.parent)
        assert str(graph) in str(caught.value)


@pytest.mark.parametrize("place", ["node", "function", "sparse"])
def test_weights_outside_of_the_directory_are_found_wherever_a_graph_names_them(tmp_path, place):
    tensor = numpy_helper.from_array(np.ones(1, np.float32), "w")
    onnx.external_data_helper.set_external_data(tensor, "../secret.bin")
    tensor.ClearField("raw_data")
    (tmp_path / "model.onnx").write_bytes(hidden(tensor, place).SerializeToString())
    with pytest.raises(InputError, match="not a file of its own directory"):
        check_graphs(tmp_path)


@pytest.mark.parametrize("value", ["-4", "abc", ""])
@pytest.mark.parametrize("key", ["offset", "length"])
def test_weights_at_a_place_that_is_none_are_refused(tmp_path, key, value):
    graph = write_graph(tmp_path / "model", data="weights.bin")
    point_to(graph, value, key)
    with pytest.raises(InputError, match=f"the weight w .*'{value}'"):
        check_graphs(graph.parent)


@pytest.mark.skipif(os.name == "nt", reason="links need a privilege there")
def test_weights_behind_a_link_are_refused(tmp_path):
    graph = write_graph(tmp_path / "model", data="weights.bin")
    moved = (graph.parent / "weights.bin").rename(tmp_path / "elsewhere.bin")
    (graph.parent / "weights.bin").symlink_to(moved)
    with pytest.raises(InputError, match="not a file of its own directory"):
        weight_files(graph)
    (graph.parent / "weights.bin").unlink()
    moved.rename(graph.parent / "weights.bin")
    linked = tmp_path / "linked"
    linked.symlink_to(graph.parent, target_is_directory=True)
    # The directory itself may be reached by a link: its files are still its own.
    assert weight_files(linked / graph.name) == [linked / "weights.bin"]
    (graph.parent / "sub").symlink_to(tmp_path, target_is_directory=True)
    point_to(graph, "sub/weights.bin")
    with pytest.raises(InputError, match="not a file of its own directory"):
        weight_files(graph)


def test_weights_that_are_missing_or_cut_off_are_refused(tmp_path):
    graph = write_graph(tmp_path / "model", data="weights.bin")
    data = graph.parent / "weights.bin"
    data.write_bytes(data.read_bytes()[:-1])
    with pytest.raises(InputError, match=r"weights\.bin is cut off: it has 16,383 bytes"):
        check_graphs(graph.parent)
    data.unlink()
    with pytest.raises(InputError, match=r"lacks its weights: there is no .*weights\.bin"):
        check_graphs(graph.parent)


@pytest.mark.parametrize("content", [b"", b"GGUF\x03\x00\x00\x00", b"{}", b"\x08\x0a"])
def test_a_file_that_is_no_graph_is_refused(tmp_path, content):
    (tmp_path / "model.onnx").write_bytes(content)
    with pytest.raises(InputError, match=r"model\.onnx is no ONNX graph, or not a whole one"):
        check_graphs(tmp_path)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.floats(0, 1, exclude_max=True))
def test_a_graph_that_is_cut_off_is_refused(tmp_path, part):
    whole = write_graph(tmp_path / "model").read_bytes()
    (tmp_path / "cut").mkdir(exist_ok=True)
    cut = tmp_path / "cut" / "model.onnx"
    # The operator set comes last; a file that lacks only some of its bytes is no message.
    cut.write_bytes(whole[: int(part * len(whole))])
    with pytest.raises(InputError, match="no ONNX graph, or not a whole one"):
        check_graphs(cut.parent)


def test_an_operator_without_a_kernel_is_named(tmp_path):
    from luthier_onnx.binding import Graph

    x, y = (helper.make_tensor_value_info(name, onnx.TensorProto.INT16, [1]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"], name="act")], "g", [x], [y])
    path = tmp_path / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10), path)
    with pytest.raises(InputError, match=r"Could not find an implementation for Relu.*'act'") as caught:
        Graph(path)
    assert "has no kernel for it" in caught.value.remedy


def test_a_directory_without_graphs_is_refused(tmp_path):
    with pytest.raises(InputError, match="has no ONNX graph"):
        graph_files(tmp_path)
    with pytest.raises(InputError, match="there is no"):
        weight_files(tmp_path / "model.onnx")
