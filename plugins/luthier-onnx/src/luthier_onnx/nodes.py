"""Graphs in onnx_ir, and their parts: constants, and the exchange of one operator for others."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from luthier_onnx.graphs import weight_files

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


def map_graph(path: Path) -> ir.Model:
    """A graph with its weights mapped from the files beside it, once it is known that these may be read.

    A file of weights may have several hard links, as the model of a finished run has in the store. onnx_ir would
    refuse it, for it cannot know of whom they are; where a tensor names no directory, it leaves the judgement to us.

    Raises:
        InputError: as `weight_files`.
    """
    weight_files(path)
    model = ir.load(path)
    for graph in model.graphs():
        for value in graph.initializers.values():
            found = value.const_value
            if isinstance(found, ir.ExternalTensor):
                value.const_value = ir.ExternalTensor(
                    path.parent / found.location,
                    found.offset,
                    found.length,
                    found.dtype,
                    shape=found.shape,
                    name=found.name,
                )
    return model


def constant(name: str, array: ArrayLike) -> ir.Value:
    """A constant that belongs to no graph yet."""
    tensor = ir.tensor(np.asarray(array, order="C"), name=name)
    return ir.Value(name=name, type=ir.TensorType(tensor.dtype), shape=ir.Shape(np.shape(array)), const_value=tensor)


def add_constant(graph: ir.Graph, name: str, array: ArrayLike) -> ir.Value:
    """A constant of a graph."""
    value = constant(name, array)
    graph.register_initializer(value)
    return value


def gather_axis(node: ir.Node) -> int:
    """The axis along which a Gather takes its elements."""
    axis = node.attributes.get("axis")
    return axis.as_int() if axis is not None else 0


def exchange(graph: ir.Graph, old: ir.Node, *new: ir.Node) -> None:
    """Put nodes in the place of one; the last gives what that gave, by its name."""
    before, after = old.outputs[0], new[-1].outputs[0]
    after.type, after.shape, name = before.type, before.shape, before.name
    turned = [value.producer() for value in old.inputs if value is not None]
    graph.insert_before(old, list(new))
    ir.convenience.replace_all_uses_with(before, after, replace_graph_outputs=True)
    graph.remove(old, safe=True)
    after.name = name
    for node in turned:
        if node is not None and node.op_type == "Transpose" and not node.outputs[0].uses():
            graph.remove(node, safe=True)
