"""GRU and LSTM layers as products and a loop: the same numbers but for 8 bits, of every text up to its length."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from luthier_quantize.recurrences import unroll_recurrences

GATES = {"GRU": 3, "LSTM": 4}


def layer(
    cell: str, width: int, given: int, rng: np.random.Generator, *, masked: bool, **attributes
) -> onnx.ModelProto:
    """A graph of one layer whose states are outputs of the graph."""
    gates = GATES[cell]
    weights = {"W": (1, gates * width, given), "R": (1, gates * width, width), "B": (1, 2 * gates * width)}
    states = ["h", "c"][: 2 if cell == "LSTM" else 1]
    node = helper.make_node(
        cell,
        ["X", *weights, "lengths" if masked else "", *states],
        ["Y", *(f"{name}_after" for name in states)],
        "layer",
        hidden_size=width,
        **({"linear_before_reset": 1} if cell == "GRU" else {}),
        **attributes,
    )

    def value(name: str, shape: list, kind: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, kind, shape)

    state = [1, "batch", width]
    graph = helper.make_graph(
        [node],
        cell,
        [value("X", ["tokens", "batch", given]), *(value(name, state) for name in states)]
        + ([value("lengths", ["batch"], TensorProto.INT32)] if masked else []),
        [value("Y", ["tokens", 1, "batch", width]), *(value(f"{name}_after", state) for name in states)],
        [
            onnx.numpy_helper.from_array(rng.normal(0, 0.5, shape).astype(np.float32), name)
            for name, shape in weights.items()
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def run(model: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_outputs()]
    return dict(zip(names, session.run(names, feeds), strict=True))


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from(["GRU", "LSTM"]),
    st.integers(1, 6),
    st.integers(1, 4),
    st.integers(1, 9),
    st.booleans(),
    st.integers(0, 2**32 - 1),
)
def test_a_layer_gives_the_same_in_8_bits(cell, tokens, texts, width, masked, seed):
    rng = np.random.default_rng(seed)
    model = layer(cell, width, 3, rng, masked=masked)
    feeds = {"X": rng.normal(size=(tokens, texts, 3)).astype(np.float32)}
    feeds |= {
        name: rng.uniform(-0.9, 0.9, (1, texts, width)).astype(np.float32)
        for name in ("h", "c")[: 1 + (cell == "LSTM")]
    }
    if masked:
        feeds["lengths"] = rng.integers(1, tokens + 1, texts).astype(np.int32)
    unrolled = ir.serde.deserialize_model(model)
    assert unroll_recurrences(unrolled.graph) == 1
    expected, found = run(model, feeds), run(ir.serde.serialize_model(unrolled), feeds)
    assert list(found) == list(expected)
    for name, values in expected.items():
        # 7 bits of a weight are off by 1/128 of its row's largest, 8 of a state by 1/255; sums of nine.
        np.testing.assert_allclose(found[name], values, atol=0.06)
    if masked:
        ended = np.arange(tokens)[:, None] >= feeds["lengths"]
        assert not found["Y"][:, 0][ended].any()


@pytest.mark.parametrize(("cell", "attributes"), [("GRU", {"clip": 1.0}), ("LSTM", {"input_forget": 1})])
def test_a_layer_of_another_kind_stays_as_it_is(cell, attributes):
    model = ir.serde.deserialize_model(layer(cell, 4, 3, np.random.default_rng(0), masked=False, **attributes))
    assert unroll_recurrences(model.graph) == 0
    assert [node.op_type for node in model.graph] == [cell]
