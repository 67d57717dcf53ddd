"""The adapters of a loaded genai model: which are there, and whether one belongs to its graph."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnxruntime
import onnxruntime_genai as og

from luthier import InputError
from luthier_onnx.graphs import read_graph

ADAPTER = "adapter.onnx_adapter"
"""The file in an export's directory, in ONNX Runtime's format for adapters."""


class Adapters:
    """Adapters for one loaded model; each is read once, when it is first asked for.

    Args:
        model: an `og.Model`.
        graph: the file that it was loaded from.
    """

    def __init__(self, model: Any, graph: Path) -> None:
        self._graph = graph
        self._known: set[str] = set()
        self._adapters = og.Adapters(model)

    def activate(self, generator: Any, path: Path) -> None:
        """Let an `og.Generator` compute with the adapter in a file, from its first token on.

        Raises:
            InputError: if it cannot be read, or is for another model.
        """
        if str(path) not in self._known:
            check_adapter(path, self._graph)
            self._adapters.load(str(path), str(path))
            self._known.add(str(path))
        generator.set_active_adapter(self._adapters, str(path))


def adapter_file(path: Path) -> Path:
    """The adapter of an export's directory, or the file itself.

    Raises:
        InputError: if there is none.
    """
    found = path / ADAPTER if path.is_dir() else path
    if not found.is_file():
        raise InputError(
            f"there is no adapter in {path}",
            f"Name a directory that `export: genai` wrote with `adapter: apart`, or its {ADAPTER}.",
        )
    return found


def check_adapter(path: Path, graph: Path) -> None:
    """Refuse an adapter whose matrices are not inputs of the graph, or of other sizes than those.

    Raises:
        InputError: saying what does not fit.
    """
    inputs = {
        each.name: [axis.dim_value or None for axis in each.type.tensor_type.shape.dim]
        for each in read_graph(graph).graph.input
    }
    try:
        parameters = onnxruntime.AdapterFormat.read_adapter(str(path)).get_parameters()
    except RuntimeError as error:
        raise InputError(f"{path} is no adapter in ONNX Runtime's format: {error}", "Export it again.") from error
    for name, value in parameters.items():
        takes, found = inputs.get(name, []), list(value.shape())
        fits = takes and len(takes) == len(found)
        if not fits or any(size not in (None, given) for size, given in zip(takes, found, strict=True)):
            what = f"takes {takes} there, where None is any rank" if takes else "has no such input"
            raise InputError(
                f"the adapter {path} is for another model: {graph} {what} ({name}, {found})",
                "Use it on the model that it was trained on, exported with `adapter: apart` and the same layers in it.",
            )
