"""A graph in ONNX Runtime whose inputs and outputs stay bound: what it carries from step to step is never copied."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime as ort

from luthier import InputError
from luthier_onnx.graphs import refused_remedy, weight_files

if TYPE_CHECKING:
    from numpy.typing import NDArray

_DTYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(bool)": np.bool_,
}


Listener = Callable[[str, Mapping[str, Any]], None]
"""Is told before a graph runs: the name of its file, and the values of its inputs."""


class Graph:
    """A graph that is loaded for the CPU.

    Args:
        path: the `.onnx` file.
        threads: for its operators; what ONNX Runtime finds good if None.

    Raises:
        InputError: if the file or its weights may not be loaded, or ONNX Runtime refuses it.

    Attributes:
        listener: if there is one, it is told of every run.
    """

    def __init__(self, path: Path, *, threads: int | None = None) -> None:
        self.path = path
        options = ort.SessionOptions()
        if threads:
            options.intra_op_num_threads = threads
        self.session: Any = _load(path, options)
        self.listener: Listener | None = None
        self.inputs: dict[str, Any] = {each.name: each for each in self.session.get_inputs()}
        self.outputs: dict[str, Any] = {each.name: each for each in self.session.get_outputs()}

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
        """Run it once: arrays in, all outputs as ONNX Runtime's values out."""
        return Course(self, {}).step(feeds)

    def zeros(self, name: str, batch: int) -> Any:
        """A value of zeros for an input: axes without a fixed length have none, but the one that is called `batch`."""
        declared = self.inputs[name]
        shape = [size if isinstance(size, int) else batch if size in _BATCH_AXES else 0 for size in declared.shape]
        return ort.OrtValue.ortvalue_from_numpy(np.zeros(shape, _DTYPES[declared.type]))


def fold_constants(path: Path, target: Path) -> None:
    """Write a graph with what depends on no input computed, as ONNX Runtime does when it loads it.

    Weights lie beside the result, in `NAME.data`.

    Raises:
        InputError: as `Graph`.
    """
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(target)
    options.add_session_config_entry("session.optimized_model_external_initializers_file_name", f"{target.name}.data")
    _load(path, options)


def _load(path: Path, options: Any) -> Any:
    weight_files(path)
    try:
        return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        # onnxruntime's exceptions share no base class of their own.
        raise InputError(
            f"{path} cannot be loaded by onnxruntime {ort.__version__}: {error}", refused_remedy(error)
        ) from error


# optimum's exports call it so too.
_BATCH_AXES = ("batch", "batch_size")


class Course:
    """A batch of texts on its way through a graph.

    Args:
        graph: the graph.
        fixed: values of inputs that stay as they are.
    """

    def __init__(self, graph: Graph, fixed: Mapping[str, Any]) -> None:
        self._graph = graph
        # A bound value does not own what was made from an array: who binds it holds it.
        self._fixed = dict(fixed)
        self._binding = graph.session.io_binding()
        for name, value in self._fixed.items():
            self._binding.bind_ortvalue_input(name, value)

    def step(self, feeds: Mapping[str, NDArray[Any]], carried: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Run the graph.

        Args:
            feeds: arrays for inputs; those that the graph does not have are left out.
            carried: values for inputs, as an earlier step gave them.

        Returns:
            All outputs, in ONNX Runtime's memory.
        """
        # Held until the graph has run, as fixed values are.
        values = {
            name: ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array, _DTYPES[self._graph.inputs[name].type]))
            for name, array in feeds.items()
            if name in self._graph.inputs
        } | dict(carried or {})
        for name, value in values.items():
            self._binding.bind_ortvalue_input(name, value)
        if self._graph.listener is not None:
            self._graph.listener(self._graph.path.name, self._fixed | values)
        # Outputs grow from step to step, so that each gets memory of its own.
        self._binding.clear_binding_outputs()
        for name in self._graph.outputs:
            self._binding.bind_output(name)
        self._graph.session.run_with_iobinding(self._binding)
        return dict(zip(self._graph.outputs, self._binding.get_outputs(), strict=True))
