"""One module of PyTorch to one ONNX graph with named axes, by torch's exporter on `torch.export`."""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir
import torch
from torch import nn

if TYPE_CHECKING:
    from torch import Tensor

Axes = tuple[int | str, ...]
"""The axes of a value: a length, or the name of one that is free."""

_RECURRENT = {"GRU": 4, "LSTM": 4}
"""Operators that may be told how long each text is, and which input tells them."""

_COUNTED = re.compile(r"val_\d+")
_TALKATIVE = ("torch.onnx", "onnxscript", "onnx_ir")

# ONNX Runtime infers shapes from the values of small tensors, and only reads them in the graph itself.
_INLINE_BYTES = 1024


class Unexportable(Exception):
    """A model that torch's exporter, or what carries its states here, does not know; the message says why."""


@dataclass(frozen=True)
class Traceable:
    """A module and what its graph is to be.

    Attributes:
        module: called with the examples, in order; gives a tuple of tensors.
        inputs: the inputs by name, with their axes.
        examples: an example of each; no free axis has the length 0 or 1 in it.
        outputs: the outputs by name, with their axes.
        lengths: whether the recurrent operators are told the length of each text, by an input `lengths`.
    """

    module: nn.Module
    inputs: Mapping[str, Axes]
    examples: Sequence[Tensor]
    outputs: Mapping[str, Axes]
    lengths: bool = False


def write_graph(traceable: Traceable, path: Path) -> None:
    """Trace a module and write its graph, with the weights beside it in `NAME.onnx.data`.

    Raises:
        Unexportable: if torch cannot trace or convert it, or an axis that is to be free is not.
    """
    model = _trace(traceable)
    _name_axes(model.graph, traceable)
    _forget_tracing(model)
    _fold_transposed(model.graph)
    if traceable.lengths:
        _tell_lengths(model.graph)
    _number(model.graph)
    ir.save(model, path, external_data=f"{path.name}.data", size_threshold_bytes=_INLINE_BYTES)


def _trace(traceable: Traceable) -> ir.Model:
    free = tuple(
        {axis: torch.export.Dim.AUTO for axis, size in enumerate(axes) if isinstance(size, str)}
        for axes in traceable.inputs.values()
    )
    with warnings.catch_warnings():
        # The tracer's, about code that is not ours.
        warnings.simplefilter("ignore")
        program = _quietly(
            lambda: torch.onnx.export(
                traceable.module.eval(),
                tuple(traceable.examples),
                dynamo=True,
                dynamic_shapes=(free,),
                input_names=list(traceable.inputs),
                output_names=list(traceable.outputs),
                verbose=False,
            )
        )
    model: ir.Model = program.model
    return model


def _quietly(export: Callable[[], Any]) -> Any:
    levels = {name: logging.getLogger(name).level for name in _TALKATIVE}
    for name in levels:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        return export()
    except torch.onnx.OnnxExporterError as error:
        # Its message is a report of the tracer's; the reason is at the end of the chain of causes.
        reason: BaseException = error
        while reason.__cause__ is not None:
            reason = reason.__cause__
        first = next(iter(str(reason).strip().splitlines()), "no message")
        raise Unexportable(f"torch's exporter fails: {type(reason).__name__}: {first}") from error
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


def _name_axes(graph: ir.Graph, traceable: Traceable) -> None:
    fixed = [
        f"{name} of {value.name}"
        for value in graph.inputs
        for name, size in zip(traceable.inputs[str(value.name)], value.shape or (), strict=False)
        if isinstance(name, str) and isinstance(size, int)
    ]
    if fixed:
        raise Unexportable(f"torch's exporter fixes the length of {', '.join(fixed)}")
    for value, axes in zip(graph.inputs, traceable.inputs.values(), strict=True):
        value.shape = ir.Shape(axes)
    # Of what a recurrent layer gives, the exporter takes the example's length for that of all.
    for value, axes in zip(graph.outputs, traceable.outputs.values(), strict=True):
        value.shape = ir.Shape(axes)


def _fold_transposed(graph: ir.Graph) -> None:
    """Keep matrices as products read them, which the exporter does with small ones only.

    One that is also read as it is, an embedding that is tied to the output layer, stays one: ONNX Runtime turns it
    when it loads the graph.
    """
    for node in list(graph):
        matrix = node.inputs[0] if node.op_type == "Transpose" else None
        if matrix is None or matrix.const_value is None or not matrix.is_initializer() or len(matrix.uses()) > 1:
            continue
        turned = node.outputs[0]
        order = node.attributes["perm"].as_ints()
        values = np.ascontiguousarray(matrix.const_value.numpy().transpose(order))
        kept = ir.Value(name=turned.name, type=turned.type, const_value=ir.tensor(values, name=turned.name))
        kept.shape = ir.Shape(values.shape)
        ir.convenience.replace_all_uses_with(turned, kept)
        graph.remove(node, safe=True)
        graph.initializers.pop(str(matrix.name))
        graph.register_initializer(kept)


def _forget_tracing(model: ir.Model) -> None:
    """Take out where the code that was traced lies, and shapes that may hold for the examples only."""
    model.metadata_props.clear()
    graph = model.graph
    graph.metadata_props.clear()
    kept = {*graph.inputs, *graph.outputs}
    for node in graph.all_nodes():
        node.metadata_props.clear()
        node.doc_string = None
        for value in node.outputs:
            value.metadata_props.clear()
            if value not in kept:
                value.shape = None
    for value in (*graph.inputs, *graph.initializers.values()):
        value.metadata_props.clear()


def _tell_lengths(graph: ir.Graph) -> None:
    lengths = ir.Value(name="lengths", type=ir.TensorType(ir.DataType.INT32), shape=ir.Shape(["batch"]))
    graph.inputs.append(lengths)
    for node in graph.all_nodes():
        if node.op_type in _RECURRENT:
            node.replace_input_with(_RECURRENT[node.op_type], lengths)


def _number(graph: ir.Graph) -> None:
    """Number nodes and values by their places: the exporter goes on counting from model to model in one process."""
    for place, node in enumerate(graph.all_nodes()):
        node.name = f"{node.op_type}_{place}"
        for number, value in enumerate(node.outputs):
            if _COUNTED.fullmatch(value.name or ""):
                value.name = f"{node.name}_output_{number}"
    counted = [value for name, value in graph.initializers.items() if _COUNTED.fullmatch(name)]
    for place, value in enumerate(counted):
        graph.initializers.pop(str(value.name))
        value.name = f"constant_{place}"
        graph.register_initializer(value)
