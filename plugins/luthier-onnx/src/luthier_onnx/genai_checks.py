"""Whether a `genai_config.json` and the graph that it names belong together; onnxruntime-genai does not look.

Told of fewer layers than the graph has, it fails without a reason; told of another vocabulary, it reads logits that
are not there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from luthier import InputError
from luthier_onnx.graphs import read_graph, weight_files

if TYPE_CHECKING:
    import onnx

_KEYS = "past_key_values.%d.key"
_AGAIN = "They are of different models: export the model again."


def check_genai(directory: Path, settings: Mapping[str, Any]) -> None:
    """Refuse a genai model whose graph may not be loaded, or is not the one that its configuration describes.

    Args:
        directory: the model.
        settings: `model` of its configuration.

    Raises:
        InputError: saying what contradicts what.
    """
    try:
        decoder = settings["decoder"]
        said = {name: int(decoder[name]) for name in ("num_hidden_layers", "num_key_value_heads", "head_size")}
        said["vocab_size"] = int(settings["vocab_size"])
        name = str(decoder["filename"])
        keys = str(decoder.get("inputs", {}).get("past_key_names", _KEYS))
        logits = str(decoder.get("outputs", {}).get("logits", "logits"))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(
            f"{directory / 'genai_config.json'} lacks a setting of the model: {error!r}", "Export the model again."
        ) from error
    path = directory / name
    if path.parent != directory:
        raise InputError(f"genai_config.json names the graph {name!r}, which is not beside it", _AGAIN)
    weight_files(path)
    found = _sizes(read_graph(path).graph, keys, logits)
    wrong = [f"{name} is {said[name]}, in the graph {size}" for name, size in found.items() if size != said[name]]
    if wrong:
        raise InputError(f"{directory / 'genai_config.json'} contradicts {path.name}: {'; '.join(wrong)}", _AGAIN)


def _sizes(graph: onnx.GraphProto, keys: str, logits: str) -> dict[str, int]:
    """The sizes that a graph has, as far as it says them: an axis may have no fixed length."""
    axes = {each.name: [axis.dim_value for axis in each.type.tensor_type.shape.dim] for each in graph.input}
    outputs = {each.name: [axis.dim_value for axis in each.type.tensor_type.shape.dim] for each in graph.output}
    found = {"vocab_size": outputs.get(logits, [0])[-1]}
    pattern = re.compile(re.escape(keys).replace("%d", r"(\d+)"))
    layers = {int(match[1]): axes[name] for name in axes if (match := pattern.fullmatch(name))}
    # Layers of other kinds, which carry no keys, are between the others in some models.
    if sorted(layers) == list(range(len(layers))) and 2 * len(layers) == sum(name.startswith("past") for name in axes):
        found["num_hidden_layers"] = len(layers)
    for shape in list(layers.values())[:1]:
        found["num_key_value_heads"] = shape[1]
    found["head_size"] = _head_size(graph)
    return {name: size for name, size in found.items() if size}


def _head_size(graph: onnx.GraphProto) -> int:
    """The width of a head, from the product that follows attention: its input has all heads side by side."""
    for node in graph.node:
        heads = next((each.i for each in node.attribute if each.name == "num_heads"), 0)
        if not heads:
            continue
        product = next((each for each in graph.node if node.output[0] in each.input), node)
        # A quantized matrix has the width as an attribute, any other as its first axis.
        widths = [each.i for each in product.attribute if each.name == "K"]
        widths += [each.dims[0] for each in graph.initializer if each.name in product.input[1:2]]
        return widths[0] // heads if widths else 0
    return 0
