"""Exported graphs on their way through a quantizer: checked before the work, compared with what they were after it."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import onnx
import onnx_ir as ir

from luthier import InputError
from luthier_onnx.graphs import check_graphs, copy_companions, graph_files, read_graph
from luthier_onnx.nodes import map_graph
from luthier_onnx.verification import verify_quantized

if TYPE_CHECKING:
    from luthier import Context, OnnxModel

Rewrite = Callable[[Path, Path, Path], None]
"""One graph in a file to another file of its name, with an empty directory to work in."""

# ONNX Runtime infers shapes from the values of small tensors, and only reads them in the graph itself.
_INLINE_BYTES = 1024
_FLOAT = onnx.TensorProto.FLOAT
_SMALL = (onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16, onnx.TensorProto.INT8, onnx.TensorProto.UINT8)


def check_in_float32(directory: Path) -> None:
    """Refuse a model whose graphs may not be loaded or were made smaller already, before any work.

    Raises:
        InputError: saying which graph has what.
    """
    for path in check_graphs(directory):
        types = {each.data_type for each in read_graph(path).graph.initializer if len(each.dims) > 1}
        small = [onnx.TensorProto.DataType.Name(each) for each in _SMALL if each in types]
        if small or _FLOAT not in types:
            has = f"has matrices in {', '.join(small)}" if small else "has no matrix"
            raise InputError(
                f"{path} {has}, where one in float32 is wanted",
                "Quantize a model as `export: dynamo` gives it, once.",
            )


def rewrite_graphs(exported: OnnxModel, ctx: Context, rewrite: Rewrite) -> None:
    """Write the model to `ctx.output` with each graph rewritten, compare it with what it was, and record the metrics.

    Raises:
        InputError: if a graph may not be loaded, or ONNX Runtime refuses it.
        PluginError: if the result does not run, or is broken.
    """
    graphs = graph_files(exported.path)
    for done, path in enumerate(graphs):
        ctx.progress(done, len(graphs) + 1)
        with tempfile.TemporaryDirectory(dir=ctx.checkpoint) as scratch:
            rewrite(path, ctx.output / path.name, Path(scratch))
    copy_companions(exported.path, ctx.output)
    ctx.progress(len(graphs), len(graphs) + 1)
    ctx.log.info("written; comparing it with what it was")
    verify_quantized(exported.path, ctx, exported.form)


def load_graph(path: Path) -> ir.Model:
    """A graph with its weights in memory: parts of them are read while they are written anew.

    Raises:
        InputError: if it may not be loaded.
    """
    model = map_graph(path)
    ir.external_data.load_to_model(model)
    return model


def save_graph(model: ir.Model, path: Path) -> None:
    """Write a graph, with its weights beside it in `NAME.data`."""
    ir.save(model, path, external_data=f"{path.name}.data", size_threshold_bytes=_INLINE_BYTES)
