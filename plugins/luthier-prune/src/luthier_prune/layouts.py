"""Where models of each family have their layers, channels and heads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from luthier import InputError

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel

    from luthier import Known


@dataclass(frozen=True)
class Layout:
    """The names of a family's modules.

    Attributes:
        layers: the list of layers, in the whole model.
        channels_in: the matrices of a layer whose outputs are the MLP's channels.
        channels_out: the matrix that reads the channels.
        width_key: what the configuration calls their number.
        attention: the module of a layer whose heads can be removed; empty where a head's width follows from their
            number, or transformers would not read another.
        inputs_first: matrices are (inputs, outputs), as GPT-2's are, and not (outputs, inputs).
    """

    layers: str
    channels_in: tuple[str, ...]
    channels_out: str
    width_key: str
    attention: str = ""
    inputs_first: bool = False

    def blocks(self, model: PreTrainedModel) -> list[nn.Module]:
        """The layers of a model."""
        return list(model.get_submodule(self.layers).children())


_GATED = ("mlp.gate_proj", "mlp.up_proj")
_LLAMA = Layout("model.layers", _GATED, "mlp.down_proj", "intermediate_size", "self_attn")

LAYOUTS: Mapping[str, Layout] = {
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "qwen2": _LLAMA,
    "qwen3": _LLAMA,
    "smollm3": _LLAMA,
    "olmo2": _LLAMA,
    "stablelm": Layout("model.layers", _GATED, "mlp.down_proj", "intermediate_size"),
    "gpt2": Layout("transformer.h", ("mlp.c_fc",), "mlp.c_proj", "n_inner", inputs_first=True),
    "opt": Layout("model.decoder.layers", ("fc1",), "fc2", "ffn_dim"),
}
"""By transformers' `model_type`."""


def check_family(_configuration: Mapping[str, Any], *, model: Known, **_others: Known) -> None:
    """Refuse a family that is not known here, where it is known what the model will be.

    Raises:
        InputError: naming those that are.
    """
    family = model.traits.get("model_type")
    if family is not None:
        _layout(family)


def layout_of(model: PreTrainedModel) -> Layout:
    """The layout of a model.

    Raises:
        InputError: if its family is not known here, with those that are.
    """
    config: Any = model.config
    layout = _layout(config.model_type)
    if getattr(config, "scale_attn_by_inverse_layer_idx", False):
        raise InputError(
            "this GPT-2 scales the attention of a layer by its number, so layers cannot move",
            "Use a model without `scale_attn_by_inverse_layer_idx`.",
        )
    return layout


def _layout(family: str) -> Layout:
    layout = LAYOUTS.get(family)
    if layout is None:
        raise InputError(
            f"the layers of a {family} model cannot be pruned",
            f"Models of these families can be: {', '.join(LAYOUTS)}. The vocabulary of any decoder can "
            "(`prune: vocabulary`).",
        )
    return layout
