"""Embeddings of a graph in 8 bits: rows are looked up as integers, each with a scale of its own.

onnxruntime's tools give a whole table one scale, and a head that the table is tied to another copy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from luthier_onnx.nodes import add_constant, exchange, gather_axis
from luthier_quantize.rows import LARGEST, symmetric_rows

if TYPE_CHECKING:
    from numpy.typing import NDArray

_MATRIX = 2


@dataclass(frozen=True)
class Table:
    """An embedding in integers.

    Attributes:
        name: of its matrix, before.
        head: of the matrix, (width, tokens), of a product that is the same one turned; empty if there is none.
    """

    name: str
    head: str


def quantize_lookups(graph: ir.Graph) -> list[Table]:
    """Exchange each constant matrix in float32 that is only looked up, row by row, for integers."""
    tables = []
    for name, value in list(graph.initializers.items()):
        stored = value.const_value
        uses = value.uses()
        if stored is None or stored.dtype != ir.DataType.FLOAT or len(stored.shape) != _MATRIX or not uses:
            continue
        if all(node.op_type == "Gather" and index == 0 and not gather_axis(node) for node, index in uses):
            matrix = stored.numpy()
            tables.append(Table(str(name), _head_of(graph, matrix)))
            integers, scales = symmetric_rows(matrix, LARGEST)
            given = add_constant(graph, f"{name}_quantized", integers), add_constant(graph, f"{name}_scale", scales)
            for node, _ in list(uses):
                _look_up(graph, node, *given)
            graph.initializers.pop(name)
    return tables


def tie(graph: ir.Graph, table: Table) -> None:
    """Let a table's lookups read the integers of the head that it is tied to, as onnxruntime's tools chose them.

    The matrix is kept as a table, which the head reads turned: ONNX Runtime turns it once, when it loads the graph.
    """
    head, scales = graph.initializers[f"{table.head}_quantized"], graph.initializers[f"{table.head}_scale"]
    rows = np.ascontiguousarray(_array(head).T)
    for name, array in ((f"{table.name}_quantized", rows), (f"{table.name}_scale", _array(scales))):
        graph.initializers[name].const_value = ir.tensor(array, name=name)
    turned = ir.node("Transpose", [graph.initializers[f"{table.name}_quantized"]], name=f"{table.head}/Transpose")
    turned.outputs[0].name = f"{table.head}_turned"
    first = min(head.uses(), key=lambda use: list(graph).index(use[0]))[0]
    graph.insert_before(first, turned)
    ir.convenience.replace_all_uses_with(head, turned.outputs[0])
    graph.initializers.pop(str(head.name))


def _head_of(graph: ir.Graph, matrix: NDArray[np.float32]) -> str:
    for name, value in graph.initializers.items():
        stored = value.const_value
        if stored is None or stored.dtype != ir.DataType.FLOAT or tuple(stored.shape) != matrix.shape[::-1]:
            continue
        products = {node.op_type == "MatMul" and index == 1 for node, index in value.uses()}
        if products == {True} and np.array_equal(stored.numpy().T, matrix):
            return str(name)
    return ""


def _look_up(graph: ir.Graph, node: ir.Node, integers: ir.Value, scales: ir.Value) -> None:
    """Look rows up as integers, and multiply each with its scale."""
    last = add_constant(graph, f"{node.name}/last_axis", [-1])
    ids = node.inputs[1]
    row = ir.node("Gather", [integers, ids], {"axis": 0}, name=f"{node.name}/row")
    wide = ir.node("Cast", row.outputs, {"to": ir.DataType.FLOAT}, name=f"{node.name}/Cast")
    scale = ir.node("Gather", [scales, ids], {"axis": 0}, name=f"{node.name}/scale")
    column = ir.node("Unsqueeze", [scale.outputs[0], last], name=f"{node.name}/Unsqueeze")
    product = ir.node("Mul", [wide.outputs[0], column.outputs[0]], name=f"{node.name}/Mul")
    new = (row, wide, scale, column, product)
    for each in new:
        each.outputs[0].name = f"{each.name}_output_0"
    exchange(graph, node, *new)


def _array(value: ir.Value) -> NDArray[np.generic]:
    assert value.const_value is not None
    array: NDArray[np.generic] = value.const_value.numpy()
    return array
