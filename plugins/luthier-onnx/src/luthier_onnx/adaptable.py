"""A graph whose products take what an adapter adds to them, as inputs that may be left empty."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from luthier_onnx.packing import PackableGraph

if TYPE_CHECKING:
    from numpy.typing import NDArray


class AdaptableGraph(PackableGraph):
    """A graph on disk; see `PackableGraph`."""

    def open_to_adapters(self, name: str, rows: NDArray[np.float32], layers: Mapping[str, int]) -> None:
        """Exchange a matrix's values, and let two inputs for each layer in it add a product of low rank to its own.

        Args:
            name: of the matrix, which is read by products alone.
            rows: the new values, (outputs, inputs).
            layers: how many outputs each layer has that is in it, one below the other.
        """
        graph = self._model.graph
        graph.initializers[name].const_value = ir.tensor(np.ascontiguousarray(rows.T), name=name)
        pairs = [_inputs(graph, layer, rows.shape[1], outputs) for layer, outputs in layers.items()]
        for product in self._uses[name].products:
            _add_low_rank(graph, product, pairs)


def input_names(layer: str) -> tuple[str, str]:
    """What a layer's two matrices are called, in the graph and in an adapter's file."""
    return f"{layer}.lora_A", f"{layer}.lora_B"


def _inputs(graph: ir.Graph, layer: str, inputs: int, outputs: int) -> tuple[ir.Value, ir.Value]:
    """The two matrices of a layer's adapter, as inputs that are empty unless a runtime gives them: of rank 0.

    What reads them is a copy: a quantizer that looks for matrices beside products does not take them for such.
    """
    copies = []
    shapes: tuple[tuple[int | str, int | str], ...] = ((inputs, f"{layer}.rank"), (f"{layer}.rank", outputs))
    for name, shape in zip(input_names(layer), shapes, strict=True):
        empty = np.zeros([0 if isinstance(size, str) else size for size in shape], np.float32)
        value = ir.Value(
            name=name,
            type=ir.TensorType(ir.DataType.FLOAT),
            shape=ir.Shape(shape),
            const_value=ir.tensor(empty, name=name),
        )
        graph.inputs.append(value)
        graph.register_initializer(value)
        copy = ir.node("Identity", [value], name=f"{name}/Identity")
        copy.outputs[0].name = f"{name}/copy"
        graph.insert_before(graph[0], copy)
        copies.append(copy.outputs[0])
    return copies[0], copies[1]


def _add_low_rank(graph: ir.Graph, product: ir.Node, pairs: Sequence[tuple[ir.Value, ir.Value]]) -> None:
    """Add to a product what the adapters of its layers, whose outputs lie side by side, make of the same input."""
    given, name = product.inputs[0], product.name
    nodes, parts = [], []
    for number, (down, up) in enumerate(pairs):
        first = ir.node("MatMul", [given, down], name=f"{name}/lora_A.{number}")
        second = ir.node("MatMul", [first.outputs[0], up], name=f"{name}/lora_B.{number}")
        nodes += [first, second]
        parts.append(second.outputs[0])
    if len(parts) > 1:
        nodes.append(ir.node("Concat", parts, {"axis": -1}, name=f"{name}/lora"))
    before = product.outputs[0]
    total = ir.node("Add", [before, nodes[-1].outputs[0]], name=f"{name}/adapted")
    for node in [*nodes, total]:
        node.outputs[0].name = f"{node.name}/output_0"
    after = total.outputs[0]
    after.type, after.shape = before.type, before.shape
    ir.convenience.replace_all_uses_with(before, after, replace_graph_outputs=True)
    # That was of this use as well.
    total.replace_input_with(0, before)
    graph.insert_after(product, [*nodes, total])
