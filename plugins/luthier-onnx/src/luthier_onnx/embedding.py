"""One int8 matrix for the embedding and the head of a model that ties them.

onnxruntime-genai's builder quantizes the head of an int8 model and keeps the embedding, which is the
same matrix, in float32: 113 of SmolLM2-135M's 271 MB. The head's rows are the embedding's rows, and
ONNX Runtime's GatherBlockQuantized reads the head's blocks as they are, so the float32 copy can go.
"""

from __future__ import annotations

import math
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import onnx_ir as ir

if TYPE_CHECKING:
    from collections.abc import Iterable

_HEAD = "/lm_head/MatMul_Q8"
_EMBEDDING = "/model/embed_tokens/Gather"
# ONNX Runtime infers shapes from the values of small tensors, and only reads them in the graph itself.
_INLINE_BYTES = 64


@dataclass(frozen=True)
class _Tied:
    """The head's product and the embedding's lookup, with the values that they read."""

    head: ir.Node
    embedding: ir.Node
    weight: ir.Value
    table: ir.Value


def share_int8_embedding(directory: Path) -> bool:
    """Let the embedding of the genai model in `directory` read the head's int8 weights.

    The caller knows that the model ties them. Nothing is changed where the graph is not of the form that
    can be shared: head and embedding not found, or of other shapes.

    Returns:
        Whether the graph was changed.
    """
    path = directory / "model.onnx"
    model = ir.load(path)
    tied = _find_tied(model.graph)
    if tied is None:
        return False
    _rewire(model.graph, tied)
    # The weights are read from the old file while the new one is written.
    with tempfile.TemporaryDirectory(dir=directory) as scratch:
        target = Path(scratch) / path.name
        ir.save(model, target, external_data=f"{path.name}.data", size_threshold_bytes=_INLINE_BYTES)
        for name in (f"{path.name}.data", path.name):
            (Path(scratch) / name).replace(directory / name)
    return True


def _find_tied(graph: ir.Graph) -> _Tied | None:
    head = _find(graph, _HEAD, "MatMulNBits")
    embedding = _find(graph, _EMBEDDING, "Gather")
    if head is None or embedding is None:
        return None
    weight, table = head.inputs[1], embedding.inputs[0]
    if weight is None or table is None or table.const_value is None or weight.const_value is None:
        return None
    rows, *blocks = weight.const_value.shape.numpy()
    fits = tuple(table.const_value.shape.numpy()) == (rows, math.prod(blocks))
    return _Tied(head, embedding, weight, table) if fits and len(table.uses()) == 1 else None


def _find(nodes: Iterable[ir.Node], name: str, operator: str) -> ir.Node | None:
    return next((node for node in nodes if node.name == name and node.op_type == operator), None)


def _rewire(graph: ir.Graph, tied: _Tied) -> None:
    # The head has its rows in blocks, (vocabulary, blocks, block); the lookup wants (vocabulary, width).
    shape = ir.Value(
        name=f"{_EMBEDDING}/shape",
        type=ir.TensorType(ir.DataType.INT64),
        shape=ir.Shape([2]),
        const_value=ir.tensor([0, -1], ir.DataType.INT64, name=f"{_EMBEDDING}/shape"),
    )
    graph.register_initializer(shape)
    flat = ir.node("Reshape", [tied.weight, shape], name=f"{_EMBEDDING}/Reshape")
    flat.outputs[0].name = f"{_EMBEDDING}/Reshape/output_0"
    # Scales, and zero points if there are any; without, both operators take 128.
    quantization = tied.head.inputs[2:4]
    gather = ir.node(
        "GatherBlockQuantized",
        [flat.outputs[0], tied.embedding.inputs[1], *quantization],
        {"bits": 8, "block_size": tied.head.attributes["block_size"].as_int(), "gather_axis": 0, "quantize_axis": 1},
        domain="com.microsoft",
        name=f"{_EMBEDDING}BlockQuantized",
    )
    old, new = tied.embedding.outputs[0], gather.outputs[0]
    new.type, new.shape, name = old.type, old.shape, old.name
    graph.insert_before(tied.embedding, [flat, gather])
    ir.convenience.replace_all_uses_with(old, new)
    graph.remove(tied.embedding, safe=True)
    new.name = name
    graph.initializers.pop(str(tied.table.name))
