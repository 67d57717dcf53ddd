"""`float16`: the matrices of a graph kept in half precision, and computed with in float32.

onnxruntime's converter lets operators compute in float16, of which the CPU provider has few: on CPUs it puts casts
around the others, is no faster, loses over a hundred times as much of a tiny Llama, and its LSTMs crash onnxruntime
1.32.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from luthier import InputError
from luthier_onnx.nodes import add_constant
from luthier_quantize.exported import check_in_float32, load_graph, rewrite_graphs, save_graph

if TYPE_CHECKING:
    from luthier import Context, OnnxModel

_LARGEST = float(np.finfo(np.float16).max)


def halve(exported: OnnxModel, ctx: Context) -> None:
    """The component `float16`.

    Raises:
        InputError: if a graph may not be loaded, has nothing in float32, or a weight that float16 cannot hold.
        PluginError: if the result does not run, or is broken.
    """
    check_in_float32(exported.path)
    rewrite_graphs(exported, ctx, _rewrite)


def _rewrite(path: Path, target: Path, _scratch: Path) -> None:
    model = load_graph(path)
    graph = model.graph
    for name, value in list(graph.initializers.items()):
        stored = value.const_value
        if stored is None or stored.dtype != ir.DataType.FLOAT or len(stored.shape) < 2:
            continue
        array = stored.numpy()
        if np.abs(array).max(initial=0) > _LARGEST:
            raise InputError(
                f"{path} has a weight of {np.abs(array).max():g} in {name}, which float16 cannot hold: its largest "
                f"is {_LARGEST:g}",
                "Quantize it to int8, whose scales are float32: `quantize: dynamic-int8`.",
            )
        half = add_constant(graph, f"{name}_half", array.astype(np.float16))
        wide = ir.node("Cast", [half], {"to": ir.DataType.FLOAT}, name=f"{name}/Cast")
        wide.outputs[0].name = f"{name}_wide"
        graph.insert_before(graph[0], wide)
        ir.convenience.replace_all_uses_with(value, wide.outputs[0])
        graph.initializers.pop(name)
    save_graph(model, target)
