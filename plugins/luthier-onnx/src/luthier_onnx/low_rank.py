"""LoRA kept apart: its matrices as inputs of the graph, which a runtime fills and exchanges while the model is loaded.

An input has an initializer of rank 0, so that the graph runs without an adapter and then computes what the model did
before it was tuned. The values lie beside the graph in ONNX Runtime's own format for adapters, and any runtime on ONNX
Runtime can activate them (`RunOptions.add_active_adapter`; in onnxruntime-genai `Generator.set_active_adapter`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
import onnxruntime
import torch
from peft import PeftConfig, PeftModel, PeftType
from peft.tuners.lora import Linear as LoraLinear
from peft.tuners.lora import LoraLayer
from peft.utils import AuxiliaryTrainingWrapper
from torch import nn

from luthier import InputError
from luthier_models.loading import load_model
from luthier_onnx.adaptable import AdaptableGraph, input_names
from luthier_onnx.adapters import ADAPTER

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

_REMEDY = "Export it merged: leave out `adapter: apart`."


@dataclass(frozen=True)
class LowRank:
    """What an adapter adds to one linear layer: x @ down @ up.

    Attributes:
        merged: the layer's weight with the adapter in it, (outputs, inputs).
        base: the same without it.
        down: (inputs, rank).
        up: (rank, outputs), times the adapter's scale.
    """

    merged: NDArray[np.float32]
    base: NDArray[np.float32]
    down: NDArray[np.float32]
    up: NDArray[np.float32]


def keep_apart(model: Path, directory: Path) -> None:
    """Take the adapter that is merged into `model` out of the graph that was made of it, and write it beside that.

    Args:
        model: a model as `tune: lora` writes it: merged, with the adapter in `adapter/`.
        directory: `model.onnx` is changed, `adapter.onnx_adapter` is new.

    Raises:
        InputError: if there is no adapter, or one that cannot be kept apart; if the graph does not have the layers
            that it changes.
    """
    layers, others = read_lora(model)
    graph = AdaptableGraph(directory)
    places = graph.find({name: layer.merged for name, layer in layers.items()} | others)
    changed = {place: names for place, names in places.items() if not layers.keys().isdisjoint(names)}
    missing = sorted(layers.keys() - {name for names in changed.values() for name in names})
    if missing or any(graph.is_table(place) for place in changed):
        what = f"its graph does not have {missing[0]} as the model has it" if missing else "it changes the embedding"
        raise InputError(f"the adapter of {model} cannot be kept apart: {what}", _REMEDY)
    for place, names in changed.items():
        bases = {name: layers[name].base if name in layers else others[name] for name in names}
        sizes = {name: len(base) for name, base in bases.items()}
        graph.open_to_adapters(place, np.concatenate(list(bases.values())), sizes)
    graph.save(directory)
    write_adapter(directory / ADAPTER, layers)


def write_adapter(path: Path, layers: dict[str, LowRank]) -> None:
    """Write an adapter's matrices in ONNX Runtime's format, by the names of the graph's inputs."""
    values = {
        name: onnxruntime.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array))
        for layer, low in sorted(layers.items())
        for name, array in zip(input_names(layer), (low.down, low.up), strict=True)
    }
    file = onnxruntime.AdapterFormat()
    file.set_adapter_version(1)
    file.set_model_version(1)
    file.set_parameters(values)
    file.export_adapter(str(path))


def read_lora(model: Path) -> tuple[dict[str, LowRank], dict[str, NDArray[np.float32]]]:
    """The layers of a tuned model that its adapter changed, and the weights of its other linear layers, by name.

    Raises:
        InputError: if there is no adapter, or it is more than products that are added.
    """
    directory = model / "adapter"
    if not (directory / "adapter_config.json").is_file():
        raise InputError(
            f"{model} has no adapter that could be kept apart",
            "Give the model that `tune: lora` gave, before anything that changes its weights.",
        )
    config = PeftConfig.from_pretrained(str(directory))
    if config.peft_type != PeftType.LORA:
        raise InputError(f"the adapter of {model} is no LoRA, but {config.peft_type}", _REMEDY)
    adapted = PeftModel.from_pretrained(load_model(model, "causal-lm", dtype="float32"), str(directory))
    layers, others = {}, {}
    for path, module in adapted.get_base_model().named_modules():
        if isinstance(module, LoraLayer):
            layers[path] = _low_rank(path, module)
        elif isinstance(module, AuxiliaryTrainingWrapper):
            raise InputError(f"the adapter of {model} also replaces {path}, as a whole", _REMEDY)
        elif type(module) is nn.Linear and not path.startswith(tuple(f"{layer}." for layer in layers)):
            others[path] = _array(module.weight)
    return layers, others


@torch.no_grad()
def _low_rank(name: str, module: LoraLayer) -> LowRank:
    adapter = "default"
    if not isinstance(module, LoraLinear) or module.use_dora.get(adapter) or module.lora_bias.get(adapter):
        what = "DoRA, which also rescales weights" if module.use_dora.get(adapter) else "of a form with more than LoRA"
        raise InputError(f"the adapter of {name} is {what}, and cannot be kept apart", _REMEDY)
    weights = [layer.weight for layer in (module.get_base_layer(), module.lora_A[adapter], module.lora_B[adapter])]
    merged, down, up = (cast("Tensor", weight) for weight in weights)
    base = merged - module.get_delta_weight(adapter)
    return LowRank(_array(merged), _array(base), _array(down.T), _array(up.T * module.scaling[adapter]))


def _array(values: Tensor) -> NDArray[np.float32]:
    array: NDArray[np.float32] = values.detach().float().cpu().contiguous().numpy()
    return array
