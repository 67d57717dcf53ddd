"""Recurrent layers of a graph as products in 8 bits: ONNX has no quantized GRU, and none that is calibrated.

A GRU or LSTM becomes the product of all its inputs at once, a MatMul as any other, and a Scan over the tokens with
the rest. What the Scan multiplies, the layer's output of the token before, lies between -1 and 1 whatever the data
(a gate times a hyperbolic tangent, from a first state that is one), so its 8 bits need no calibration.

The equations are those of the ONNX operators GRU (with `linear_before_reset`, as PyTorch computes it) and LSTM.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from luthier_onnx.nodes import add_constant, constant
from luthier_quantize.rows import SAFE, symmetric_rows

if TYPE_CHECKING:
    from numpy.typing import NDArray

_GATES = {"GRU": 3, "LSTM": 4}
_OPSET = 21
# 8 bits without a sign, from -1 to 1.
_STATE_SCALE, _STATE_ZERO = np.float32(1 / 127.5), np.uint8(128)


def unroll_recurrences(graph: ir.Graph) -> int:
    """Exchange each GRU and LSTM whose weights are constant for products and a Scan; how many.

    Those of another kind than torch's exporter writes (backwards, peepholes, clipped) stay as they are.
    """
    nodes = [node for node in graph if node.op_type in _GATES and _is_plain(node)]
    for node in nodes:
        _Unrolled(graph, node).exchange()
    return len(nodes)


def _is_plain(node: ir.Node) -> bool:
    attributes = {name: each.value for name, each in node.attributes.items()}
    states = 2 if node.op_type == "LSTM" else 1
    constant = all(value is not None and value.const_value is not None for value in node.inputs[1:4])
    given = len(node.inputs) > 4 + states and all(value is not None for value in node.inputs[5 : 5 + states])
    return (
        constant
        and given
        and all(value is None for value in node.inputs[5 + states :])
        and attributes.get("direction", "forward") == "forward"
        and not {"activations", "clip"} & set(attributes)
        and not attributes.get("layout", 0)
        and not attributes.get("input_forget", 0)
        and attributes.get("linear_before_reset", 0) == (node.op_type == "GRU")
    )


class _Unrolled:
    """What takes the place of one layer.

    Shapes: inputs (tokens, texts, width of the input), states (texts, width), products (texts, gates x width).
    """

    def __init__(self, graph: ir.Graph, node: ir.Node) -> None:
        self._graph, self._node = graph, node
        self._new: list[ir.Node] = []
        weights, recurrent, bias = (_array(value)[0] for value in node.inputs[1:4])
        self._width = recurrent.shape[1]
        self._weights, self._recurrent = weights, recurrent
        self._bias, self._recurrent_bias = np.split(bias, 2)

    def exchange(self) -> None:
        node = self._node
        given, _, _, _, lengths, *states = node.inputs
        assert given is not None
        product = self._do("MatMul", given, self._keep("W", self._weights.T))
        product = self._do("Add", product, self._keep("B", self._bias))
        first = [self._do("Squeeze", state, self._axis(0)) for state in states if state is not None]
        scanned = [product] if lengths is None else [product, self._mask(given, lengths)]
        results = self._scan(first, scanned)
        *last, outputs = results
        new = [
            self._do("Unsqueeze", outputs, self._axis(1)),
            *(self._do("Unsqueeze", each, self._axis(0)) for each in last),
        ]
        self._graph.insert_before(node, self._new)
        named = [(old.name, value) for old, value in zip(node.outputs, new, strict=False)]
        for old, value in zip(node.outputs, new, strict=False):
            value.type, value.shape = ir.TensorType(ir.DataType.FLOAT), old.shape
            ir.convenience.replace_all_uses_with(old, value, replace_graph_outputs=True)
        weights = node.inputs[1:4]
        self._graph.remove(node, safe=True)
        # The states of a single layer are outputs of the graph, and called so.
        for name, value in named:
            value.name = name or value.name
        for weight in weights:
            # Layers may share a bias of zeros.
            if weight is not None and not weight.uses():
                self._graph.initializers.pop(str(weight.name), None)

    def _mask(self, given: ir.Value, lengths: ir.Value) -> ir.Value:
        """Which tokens each text has: (tokens, texts, 1)."""
        count = self._do("Squeeze", self._do("Shape", given, start=0, end=1))
        zero, one = (self._keep(name, np.array(value)) for name, value in (("zero", 0), ("one", 1)))
        places = self._do("Unsqueeze", self._do("Range", zero, count, one), self._axis(1))
        wide = self._do("Cast", lengths, to=ir.DataType.INT64)
        return self._do("Unsqueeze", self._do("Less", places, wide), self._axis(2))

    def _scan(self, first: Sequence[ir.Value], scanned: Sequence[ir.Value]) -> Sequence[ir.Value]:
        body = _Body(f"{self._node.name}/step", len(first), masked=len(scanned) > 1)
        given = body.product(body.states[0], self._recurrent, self._recurrent_bias)
        after = body.gru(given) if self._node.op_type == "GRU" else body.lstm(given)
        node = ir.node(
            "Scan",
            [*first, *scanned],
            {"body": body.graph(after), "num_scan_inputs": len(scanned)},
            num_outputs=len(first) + 1,
            name=f"{self._node.name}/Scan",
        )
        self._name(node)
        self._new.append(node)
        return node.outputs

    def _keep(self, name: str, array: NDArray[Any]) -> ir.Value:
        return add_constant(self._graph, f"{self._node.name}/{name}", array)

    def _axis(self, axis: int) -> ir.Value:
        name = f"axis_{axis}"
        return self._graph.initializers.get(f"{self._node.name}/{name}") or self._keep(name, np.array([axis]))

    def _do(self, kind: str, *given: ir.Value, **attributes: Any) -> ir.Value:
        node = ir.node(kind, given, attributes, name=f"{self._node.name}/{kind}_{len(self._new)}")
        self._name(node)
        self._new.append(node)
        return node.outputs[0]

    @staticmethod
    def _name(node: ir.Node) -> None:
        for number, output in enumerate(node.outputs):
            output.name = f"{node.name}_output_{number}"


class _Body:
    """One step of a layer for a batch of texts, as the body of a Scan."""

    def __init__(self, name: str, states: int, *, masked: bool) -> None:
        self._prefix = name
        self._nodes: list[ir.Node] = []
        self._constants: list[ir.Value] = []
        self.states = [_input(f"{name}/state_{number}", ir.DataType.FLOAT) for number in range(states)]
        self.given = _input(f"{name}/given", ir.DataType.FLOAT)
        self._mask = _input(f"{name}/mask", ir.DataType.BOOL) if masked else None

    def product(self, state: ir.Value, matrix: NDArray[np.float32], bias: NDArray[np.float32]) -> ir.Value:
        """`state @ matrix.T + bias` in 8 bits: the state from -1 to 1, the matrix with a scale for each row."""
        rows, scales = symmetric_rows(matrix, SAFE)
        zero = self._keep("zero", _STATE_ZERO)
        rounded = self.do("QuantizeLinear", state, self._keep("scale", _STATE_SCALE), zero)
        integers = self.do("MatMulInteger", rounded, self._keep("R_quantized", rows.T), zero)
        wide = self.do("Cast", integers, to=ir.DataType.FLOAT)
        scaled = self.do("Mul", wide, self._keep("R_scale", scales * _STATE_SCALE))
        return self.do("Add", scaled, self._keep("R_bias", bias))

    def gru(self, product: ir.Value) -> list[ir.Value]:
        """The state after a token."""
        [before] = self.states
        given, own = self._parts(self.given, 3), self._parts(product, 3)
        update, reset = (
            self.do("Sigmoid", self.do("Add", mine, theirs)) for mine, theirs in zip(own[:2], given[:2], strict=True)
        )
        new = self.do("Tanh", self.do("Add", given[2], self.do("Mul", reset, own[2])))
        # (1 - update) * new + update * before
        return [self.do("Add", new, self.do("Mul", update, self.do("Sub", before, new)))]

    def lstm(self, product: ir.Value) -> list[ir.Value]:
        """The output and the memory after a token."""
        _, memory = self.states
        start, end, forget, new = self._parts(self.do("Add", self.given, product), 4)
        start, end, forget = (self.do("Sigmoid", gate) for gate in (start, end, forget))
        memory = self.do("Add", self.do("Mul", forget, memory), self.do("Mul", start, self.do("Tanh", new)))
        return [self.do("Mul", end, self.do("Tanh", memory)), memory]

    def graph(self, after: Sequence[ir.Value]) -> ir.Graph:
        """The body, once it is known what the states are after a token; a text that has ended keeps its own."""
        if self._mask is not None:
            output = self.do("Where", self._mask, after[0], self._keep("nothing", np.float32(0)))
            after = [self.do("Where", self._mask, *pair) for pair in zip(after, self.states, strict=True)]
        else:
            output = self.do("Identity", after[0])
        inputs = [*self.states, self.given, *([] if self._mask is None else [self._mask])]
        outputs = [*after, output]
        for value in outputs:
            value.type = ir.TensorType(ir.DataType.FLOAT)
        return ir.Graph(
            inputs,
            outputs,
            nodes=self._nodes,
            initializers=self._constants,
            opset_imports={"": _OPSET},
            name=self._prefix,
        )

    def do(self, kind: str, *given: ir.Value, **attributes: Any) -> ir.Value:
        """Add an operator; its output."""
        node = ir.node(kind, given, attributes, name=f"{self._prefix}/{kind}_{len(self._nodes)}")
        node.outputs[0].name = f"{node.name}_output_0"
        self._nodes.append(node)
        return node.outputs[0]

    def _parts(self, value: ir.Value, number: int) -> list[ir.Value]:
        node = ir.node(
            "Split",
            [value],
            {"axis": -1, "num_outputs": number},
            num_outputs=number,
            name=f"{self._prefix}/Split_{len(self._nodes)}",
        )
        for place, output in enumerate(node.outputs):
            output.name = f"{node.name}_output_{place}"
        self._nodes.append(node)
        return list(node.outputs)

    def _keep(self, name: str, array: NDArray[Any] | np.generic) -> ir.Value:
        known = [each for each in self._constants if each.name == f"{self._prefix}/{name}"]
        if known:
            return known[0]
        value = constant(f"{self._prefix}/{name}", np.asarray(array))
        self._constants.append(value)
        return value


def _input(name: str, dtype: ir.DataType) -> ir.Value:
    return ir.Value(name=name, type=ir.TensorType(dtype))


def _array(value: ir.Value | None) -> NDArray[np.float32]:
    assert value is not None
    assert value.const_value is not None
    array: NDArray[np.float32] = value.const_value.numpy()
    return array
