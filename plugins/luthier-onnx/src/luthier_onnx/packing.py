"""A graph's matrices in floating point, and their exchange for integers.

A product with a matrix becomes a MatMulNBits, a lookup of its rows a GatherBlockQuantized. Where an embedding is tied
to the head, the graph looks the head's matrix up through a Transpose; afterwards both operators read the same integers.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from luthier import InputError
from luthier_onnx.nodes import add_constant, exchange, gather_axis, map_graph
from luthier_onnx.packed import PackedMatrix

if TYPE_CHECKING:
    from numpy.typing import NDArray

GRAPH = "model.onnx"
# ONNX Runtime infers shapes from the values of small tensors, and only reads them in the graph itself.
_INLINE_BYTES = 64
# Inputs are rounded to int8 for the product, block by block: the kernel that is fast on CPUs.
_INT8_INPUTS = 4


@dataclass(frozen=True)
class _Use:
    """Where a matrix is read: the products, (columns, rows), and the lookups of its rows, each with its table."""

    products: tuple[ir.Node, ...]
    lookups: tuple[ir.Node, ...]


class PackableGraph:
    """A graph on disk, with those of its constant matrices that can be packed.

    Args:
        directory: the model, with `model.onnx`.

    Raises:
        InputError: if there is no graph, or none that may be loaded; if it has no such matrix.
    """

    def __init__(self, directory: Path) -> None:
        path = directory / GRAPH
        self._model = map_graph(path)
        self._uses = dict(_packable(self._model.graph))
        if not self._uses:
            raise InputError(
                f"{path} has no matrix in float32 that could be packed",
                "Quantize a model as `export: genai` gives it, once.",
            )

    @property
    def names(self) -> list[str]:
        """The names of the matrices, in the graph's order."""
        return list(self._uses)

    def is_table(self, name: str) -> bool:
        """Whether rows of the matrix are looked up: an embedding, perhaps the head as well."""
        return bool(self._uses[name].lookups)

    def is_head(self, name: str) -> bool:
        """Whether a product with it gives the logits."""
        outputs = {output.name for output in self._model.graph.outputs}
        return any(node.outputs[0].name in outputs for node in self._uses[name].products)

    def rows(self, name: str) -> NDArray[np.float32]:
        """The matrix in the form of torch's weights: (outputs, inputs) of a product, (tokens, width) of a lookup."""
        stored = self._model.graph.initializers[name].const_value
        assert stored is not None
        matrix: NDArray[np.float32] = stored.numpy()
        return np.array(matrix.T if self._uses[name].products else matrix, order="C")

    def find(self, matrices: Mapping[str, NDArray[np.float32]]) -> dict[str, list[str]]:
        """Which of a model's matrices each of the graph's is, by their values: names mean nothing here.

        Args:
            matrices: (outputs, inputs) each, by name.

        Returns:
            For the graph's matrices that consist of nothing else, the names of those of the model: an exporter may
            have put several, one below the other.
        """
        by_first_row = {matrix[0].tobytes(): name for name, matrix in matrices.items()}
        found = {}
        for place in self.names:
            rows = self.rows(place)
            names: list[str] = []
            start = 0
            while start < len(rows):
                name = by_first_row.get(rows[start].tobytes())
                if name is None or not np.array_equal(rows[start : start + len(matrices[name])], matrices[name]):
                    break
                names.append(name)
                start += len(matrices[name])
            if names and start == len(rows):
                found[place] = names
        return found

    def pack(self, name: str, matrix: PackedMatrix) -> None:
        """Exchange one matrix for integers.

        Raises:
            InputError: if it is looked up, and its blocks do not divide its width.
        """
        use = self._uses[name]
        width = matrix.integers.shape[1]
        if use.lookups and width % matrix.block_size:
            raise InputError(
                f"the embedding has {width} columns, which blocks of {matrix.block_size} do not divide",
                "Choose a smaller block_size.",
            )
        del self._uses[name]
        graph = self._model.graph
        blocks = add_constant(graph, f"{name}_Q{matrix.bits}", matrix.blocks)
        given = [blocks, add_constant(graph, f"{name}_scales", matrix.scales)]
        if not matrix.is_symmetric:
            given.append(add_constant(graph, f"{name}_zero_points", matrix.packed_zero_points))
        for product in use.products:
            exchange(graph, product, _product(product, given, matrix))
        for lookup in use.lookups:
            exchange(graph, lookup, *_lookup(graph, lookup, given, matrix))
        graph.initializers.pop(name)

    def save(self, directory: Path) -> None:
        """Write the graph into a directory, with its weights beside it; it may be the one that it was read from."""
        # The weights are read from the old file while the new one is written.
        with tempfile.TemporaryDirectory(dir=directory) as scratch:
            ir.save(
                self._model, Path(scratch) / GRAPH, external_data=f"{GRAPH}.data", size_threshold_bytes=_INLINE_BYTES
            )
            for name in (f"{GRAPH}.data", GRAPH):
                (Path(scratch) / name).replace(directory / name)


def pack_exactly(directory: Path, matrices: Mapping[str, PackedMatrix]) -> None:
    """Put integers into the graph in `directory`, which an exporter wrote from the values that they stand for.

    Matrices are found by their values, whatever the exporter calls them; it may have put several, of the same bits
    and blocks, one below the other.

    Raises:
        InputError: if one is not in the graph: the exporter changes the weights of this architecture.
    """
    graph = PackableGraph(directory)
    missing = set(matrices)
    for place, names in graph.find({name: matrix.values for name, matrix in matrices.items()}).items():
        whole = _one_below_the_other([matrices[name] for name in names])
        if whole is not None:
            graph.pack(place, whole)
            missing -= set(names)
    if missing:
        some = ", ".join(sorted(missing)[:3])
        raise InputError(
            f"{len(missing)} quantized matrices are not in the exported graph as they are in the model ({some}, …)",
            "Quantize after the export, which takes any graph: `export: genai`, then `quantize: int4` or `int8`.",
        )
    graph.save(directory)


def _one_below_the_other(matrices: list[PackedMatrix]) -> PackedMatrix | None:
    if not matrices or len({(each.bits, each.block_size) for each in matrices}) > 1:
        return None
    whole = matrices[0]
    for matrix in matrices[1:]:
        whole = whole.below(matrix)
    return whole


def _packable(graph: ir.Graph) -> Iterator[tuple[str, _Use]]:
    """The matrices in float32 that are read by products, or by lookups, and by nothing else."""
    for name, value in graph.initializers.items():
        stored = value.const_value
        if stored is None or stored.dtype != ir.DataType.FLOAT or len(stored.shape) != 2 or value.is_graph_output():
            continue
        products, lookups, others = [], [], 0
        for node, index in value.uses():
            turned = node.op_type == "Transpose" and not node.outputs[0].is_graph_output()
            through = [use for use, _ in node.outputs[0].uses()] if turned else []
            if node.op_type == "MatMul" and index == 1:
                products.append(node)
            elif node.op_type == "Gather" and index == 0 and gather_axis(node) == 0:
                lookups.append(node)
            elif turned and through and all(use.op_type == "Gather" and gather_axis(use) == 0 for use in through):
                lookups += through
            else:
                others += 1
        # Looked up as it stands, or turned beside a product: never both ways of storing it at once.
        stands = [node for node in lookups if node.inputs[0] is value]
        if (products or lookups) and not others and not (products and stands) and (products or stands):
            yield str(name), _Use(tuple(products), tuple(lookups))


def _product(node: ir.Node, given: list[ir.Value], matrix: PackedMatrix) -> ir.Node:
    rows, columns = matrix.integers.shape
    attributes = {
        "K": columns,
        "N": rows,
        "accuracy_level": _INT8_INPUTS,
        "bits": matrix.bits,
        "block_size": matrix.block_size,
    }
    inputs = [node.inputs[0], *given]
    return ir.node("MatMulNBits", inputs, attributes, domain="com.microsoft", name=f"{node.name}_Q{matrix.bits}")


def _lookup(graph: ir.Graph, node: ir.Node, given: list[ir.Value], matrix: PackedMatrix) -> tuple[ir.Node, ir.Node]:
    # A product has its rows in blocks, (rows, blocks, bytes); a lookup wants (rows, bytes).
    name = f"{node.name}/flat_shape"
    shape = graph.initializers.get(name) or add_constant(graph, name, np.array([0, -1], np.int64))
    flat = ir.node("Reshape", [given[0], shape], name=f"{node.name}/Reshape")
    flat.outputs[0].name = f"{node.name}/Reshape/output_0"
    attributes = {"bits": matrix.bits, "block_size": matrix.block_size, "gather_axis": 0, "quantize_axis": 1}
    gather = ir.node(
        "GatherBlockQuantized",
        [flat.outputs[0], node.inputs[1], *given[1:]],
        attributes,
        domain="com.microsoft",
        name=f"{node.name}BlockQuantized",
    )
    return flat, gather
