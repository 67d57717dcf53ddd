"""Whether a `genai_config.json` and the graph that it names belong together; onnxruntime-genai does not look.

Told of fewer layers than the graph has, it fails without a reason; told of another vocabulary, it reads logits that
are not there. And it loads any library that the configuration names.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from luthier import InputError
from luthier_onnx.graphs import read_graph, weight_files

if TYPE_CHECKING:
    import onnx

_INPUTS = {
    "input_ids": "input_ids",
    "attention_mask": "attention_mask",
    "position_ids": "position_ids",
    "past_key_names": "past_key_values.%d.key",
    "past_value_names": "past_key_values.%d.value",
}
_OUTPUTS = {
    "logits": "logits",
    "present_key_names": "present.%d.key",
    "present_value_names": "present.%d.value",
}
"""What onnxruntime-genai calls a graph's inputs and outputs where a configuration does not say."""

_COSINES = 7
"""Which input of GroupQueryAttention has the cosines, (positions, half of a head)."""

_CODE = "custom_ops_library"
_AGAIN = "They are of different models: export the model again."


@dataclass(frozen=True)
class GenaiModel:
    """What a genai model's configuration says, and its graph bears out.

    Attributes:
        graph: the file.
        context: the tokens that it can read and write in all.
        vocabulary: the width of the logits.
        head_size: the width of a head's keys and values.
    """

    graph: Path
    context: int
    vocabulary: int
    head_size: int


def check_genai(directory: Path, settings: Mapping[str, Any]) -> GenaiModel:
    """Refuse a genai model whose graph may not be loaded, or is not the one that its configuration describes.

    Args:
        directory: the model.
        settings: its configuration.

    Raises:
        InputError: saying what contradicts what.
    """
    config = directory / "genai_config.json"
    _refuse_code(settings, config)
    try:
        model = settings["model"]
        decoder = model["decoder"]
        said = {name: int(decoder[name]) for name in ("num_hidden_layers", "num_key_value_heads", "head_size")}
        said["vocab_size"], context = int(model["vocab_size"]), int(model["context_length"])
        name = str(decoder["filename"])
        inputs = {**_INPUTS, **decoder.get("inputs", {})}
        outputs = {**_OUTPUTS, **decoder.get("outputs", {})}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{config} lacks a setting of the model: {error!r}", "Export the model again.") from error
    path = directory / name
    if path.parent != directory:
        raise InputError(f"genai_config.json names the graph {name!r}, which is not beside it", _AGAIN)
    weight_files(path)
    graph = read_graph(path).graph
    wrong = _misnamed(graph, inputs, outputs)
    found = _sizes(graph, str(inputs["past_key_names"]), str(outputs["logits"]))
    wrong += [f"{name} is {said[name]}, in the graph {size}" for name, size in found.items() if size != said[name]]
    positions = _positions(graph)
    if positions and context > positions:
        wrong.append(f"context_length is {context}, and the graph has positions for {positions} tokens")
    if wrong:
        raise InputError(f"{config} contradicts {path.name}: {'; '.join(wrong)}", _AGAIN)
    return GenaiModel(path, context, said["vocab_size"], said["head_size"])


def _refuse_code(settings: Any, config: Path) -> None:
    """A library of operators is code that runs when the model is loaded; the exporter writes none."""
    inner = settings.values() if isinstance(settings, dict) else settings if isinstance(settings, list) else ()
    if isinstance(settings, dict) and _CODE in settings:
        raise InputError(
            f"{config} names a library to load, {settings[_CODE]!r} (`{_CODE}`), which could do anything",
            "Take the setting out, if the model runs without it; do not load the model unless you know who wrote it.",
        )
    for each in inner:
        _refuse_code(each, config)


def _misnamed(graph: onnx.GraphProto, inputs: Mapping[str, Any], outputs: Mapping[str, Any]) -> list[str]:
    """What the graph takes or gives under other names than the configuration's."""
    # What has a value of its own need not be given: an adapter.
    optional = {each.name for each in graph.initializer}
    takes = [each.name for each in graph.input if each.name not in optional]
    gives = [each.name for each in graph.output]
    unnamed = [name for name in takes if not any(_numbered(each).fullmatch(name) for each in inputs.values())]
    wrong = [f"the graph takes {unnamed[0]}, which it does not name ({len(unnamed)} such)"] if unnamed else []
    if inputs["input_ids"] not in takes:
        wrong.append(f"the graph has no input {inputs['input_ids']}")
    named = ["logits"]
    named += [f"present_{part}_names" for part in ("key", "value") if _any(inputs[f"past_{part}_names"], takes)]
    wrong += [f"the graph has no output {outputs[name]}" for name in named if not _any(outputs[name], gives)]
    return wrong


def _numbered(name: Any) -> re.Pattern[str]:
    """A name in a configuration, with `%d` for the number of a layer; a group of the pattern is that number."""
    return re.compile(re.escape(str(name)).replace("%d", r"(\d+)"))


def _any(name: Any, names: Iterable[str]) -> bool:
    return any(_numbered(name).fullmatch(each) for each in names)


def _sizes(graph: onnx.GraphProto, keys: str, logits: str) -> dict[str, int]:
    """The sizes that a graph has, as far as it says them: an axis may have no fixed length."""
    axes = {each.name: [axis.dim_value for axis in each.type.tensor_type.shape.dim] for each in graph.input}
    outputs = {each.name: [axis.dim_value for axis in each.type.tensor_type.shape.dim] for each in graph.output}
    found = {"vocab_size": outputs.get(logits, [0])[-1]}
    pattern = _numbered(keys)
    layers = {int(match[1]): axes[name] for name in axes if (match := pattern.fullmatch(name))}
    # Layers of other kinds, which carry no keys, are between the others in some models.
    if sorted(layers) == list(range(len(layers))) and 2 * len(layers) == sum(name.startswith("past") for name in axes):
        found["num_hidden_layers"] = len(layers)
    for shape in list(layers.values())[:1]:
        found["num_key_value_heads"] = shape[1]
    found["head_size"] = _head_size(graph)
    return {name: size for name, size in found.items() if size}


def _positions(graph: onnx.GraphProto) -> int:
    """How many tokens the tables of rotary positions reach that attention reads; 0 where it reads none."""
    tables = {each.name: each.dims[0] for each in graph.initializer if len(each.dims) == 2}
    found = [
        tables[name]
        for node in graph.node
        if node.op_type == "GroupQueryAttention"
        for name in node.input[_COSINES : _COSINES + 1]
        if name in tables
    ]
    return min(found, default=0)


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
