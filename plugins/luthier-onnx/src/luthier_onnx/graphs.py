"""The graphs of an ONNX model directory: which files they are, and whether they may be loaded.

A model directory of any form has its graphs at its top, as `*.onnx`. A graph's weights lie in it, or beside it as
external data: always so from 2 GB on, which is more than a protobuf message holds. Everything else in the
directory (tokenizer, configurations, the interface) says how the graphs are used, not what they compute: who writes
a model of the same graphs in another precision copies it as it is.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from luthier import InputError

_AGAIN = "Fetch it again from where the model came, or export the model again."


def graph_files(directory: Path) -> list[Path]:
    """The graphs of a model directory, by name.

    Raises:
        InputError: if there is none.
    """
    found = sorted(directory.glob("*.onnx"))
    if not found:
        raise InputError(f"{directory} has no ONNX graph (*.onnx)", "Give a directory that an exporter wrote.")
    return found


def companion_files(directory: Path) -> list[Path]:
    """What a model directory has besides its graphs and their weights, by name.

    Raises:
        InputError: as `weight_files`.
    """
    graphs = graph_files(directory)
    taken = {*graphs, *(path for graph in graphs for path in weight_files(graph))}
    return sorted(path for path in directory.rglob("*") if path.is_file() and path not in taken)


def copy_companions(source: Path, target: Path) -> None:
    """Copy what lies beside a model's graphs: tokenizer, template, settings.

    Raises:
        InputError: as `weight_files`.
    """
    for path in companion_files(source):
        place = target / path.relative_to(source)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, place)


def refused_remedy(error: Exception) -> str:
    """What to do where ONNX Runtime refuses a graph that is whole, by what it says."""
    if "Could not find an implementation" in str(error):
        return (
            "ONNX Runtime's CPU provider has no kernel for it on this machine: export the model in float32, quantize "
            "it in another way, or upgrade onnxruntime."
        )
    return "Export the model again, with the installed version."


def weight_files(graph: Path) -> list[Path]:
    """The files beside a graph that hold its weights, by name; none where it holds them itself.

    Raises:
        InputError: if the file is no whole ONNX graph; if its external data is absolute, outside of the graph's
            directory or behind a link; or if that is missing, too short, or at a place that is none.
    """
    ends: dict[str, int] = {}
    for tensor in _external_tensors(read_graph(graph)):
        described = {entry.key: entry.value for entry in tensor.external_data}
        location = described.get("location", "")
        # Without a length the tensor goes on to the file's end.
        offset, length = (described.get(key, "0") for key in ("offset", "length"))
        if not (offset.isdecimal() and length.isdecimal()):
            raise InputError(
                f"{graph} says that the weight {tensor.name} lies at {offset!r} and takes {length!r} bytes", _AGAIN
            )
        ends[location] = max(ends.get(location, 0), int(offset) + int(length))
    return sorted(_checked(graph, location, end) for location, end in ends.items())


def check_graphs(directory: Path) -> list[Path]:
    """The graphs of a model directory, once it is known that they may be loaded; see `weight_files`.

    Raises:
        InputError: as `graph_files` and `weight_files`.
    """
    graphs = graph_files(directory)
    for graph in graphs:
        weight_files(graph)
    return graphs


def read_graph(graph: Path) -> onnx.ModelProto:
    """A graph without the weights beside it.

    Raises:
        InputError: if there is no such file, or it is no whole ONNX graph.
    """
    if not graph.is_file():
        raise InputError(f"there is no {graph}", "Give a directory that an exporter wrote.")
    try:
        model = onnx.load(graph, load_external_data=False)
    except DecodeError as error:
        raise InputError(f"{graph} is no ONNX graph, or not a whole one: {error}", _AGAIN) from error
    # What a message is cut off after may be a message too, and so may be other files.
    if not model.ir_version or not model.opset_import or not model.graph.node or not model.graph.output:
        raise InputError(f"{graph} is no ONNX graph, or not a whole one", _AGAIN)
    return model


def _external_tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    functions = (tensor for function in model.functions for tensor in _constants(function.node))
    for tensor in (*_tensors(model.graph), *functions):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            yield tensor


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    yield from _constants(graph.node)


def _constants(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.TensorProto]:
    """Those in the attributes of nodes, and in the graphs that these hold."""
    for node in nodes:
        for attribute in node.attribute:
            sparse = (attribute.sparse_tensor, *attribute.sparse_tensors)
            yield from (attribute.t, *attribute.tensors)
            yield from (tensor for each in sparse for tensor in (each.values, each.indices))
            for inner in (attribute.g, *attribute.graphs):
                yield from _tensors(inner)


def _checked(graph: Path, location: str, end: int) -> Path:
    directory = graph.parent
    path = directory / location
    inside = directory.resolve()
    # A link is followed by `resolve`; one to another file of the directory is refused too: nobody writes such.
    if not location or Path(location).is_absolute() or path.resolve() != inside / location:
        raise InputError(
            f"{graph} keeps weights in {location!r}, which is not a file of its own directory",
            "Do not load it unless you know who wrote it. Where its weights were linked (a hub's cache does so), copy "
            "the directory with its links followed: cp -rL.",
        )
    if not path.is_file():
        raise InputError(f"{graph} lacks its weights: there is no {path}", _AGAIN)
    if path.stat().st_size < end:
        raise InputError(
            f"{path} is cut off: it has {path.stat().st_size:,} bytes, and the graph's weights go up to {end:,}", _AGAIN
        )
    return path
