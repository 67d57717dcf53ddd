"""A model's weights as llama.cpp has them: its names, its layout, the precision of each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import gguf
import numpy as np
from gguf import GGMLQuantizationType, LlamaFileType

from luthier import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor
    from transformers import PreTrainedModel

    from luthier_gguf.families import Family

FILE_TYPES = {
    "f32": LlamaFileType.ALL_F32,
    "f16": LlamaFileType.MOSTLY_F16,
    "bf16": LlamaFileType.MOSTLY_BF16,
    "q8_0": LlamaFileType.MOSTLY_Q8_0,
    "q5_1": LlamaFileType.MOSTLY_Q5_1,
    "q5_0": LlamaFileType.MOSTLY_Q5_0,
    "q4_1": LlamaFileType.MOSTLY_Q4_1,
    "q4_0": LlamaFileType.MOSTLY_Q4_0,
}
"""By precision."""

_HEAD, _POSITIONS, _ROPE_FACTORS = "lm_head.weight", "position_embd.weight", "rope_freqs.weight"
_TURNED = (".q_proj.weight", ".k_proj.weight", ".q_proj.bias", ".k_proj.bias")


@dataclass(frozen=True)
class Weights:
    """One tensor of the file.

    Attributes:
        name: llama.cpp's.
        kind: how its numbers are kept.
        source: the tensor of the model.
        heads: of attention, if its rows are to be reordered for rotary positions; else 0.
        transposed: whether the model has it as (inputs, outputs).
    """

    name: str
    kind: GGMLQuantizationType
    source: Tensor
    heads: int = 0
    transposed: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        """As llama.cpp reads it, rows first."""
        shape = tuple(self.source.shape)
        return shape[::-1] if self.transposed else shape

    @property
    def stored_shape(self) -> tuple[int, ...]:
        """The shape of its bytes."""
        return tuple(gguf.quant_shape_to_byte_shape(self.shape, self.kind))

    def stored(self) -> NDArray[Any]:
        """Its bytes, uint8."""
        values = self.source.detach().float().cpu().numpy()
        values = np.ascontiguousarray(values.T if self.transposed else values)
        if self.heads:
            values = rotary_pairs(values, self.heads)
        stored: NDArray[Any] = gguf.quantize(values, self.kind)
        return stored.view(np.uint8).reshape(self.stored_shape)


def rotary_pairs(values: NDArray[np.float32], heads: int) -> NDArray[np.float32]:
    """Put the rows of each head that are turned together, of its first and its second half, side by side.

    Args:
        values: a projection to queries or keys (heads times dimensions, inputs), or its bias.
        heads: as many as the projection has.
    """
    halves = values.reshape(heads, 2, -1, *values.shape[1:])
    return np.ascontiguousarray(halves.swapaxes(1, 2)).reshape(values.shape)


def weights_of(model: PreTrainedModel, family: Family, precision: str) -> Iterator[Weights]:
    """Every tensor of the file, in order.

    Raises:
        InputError: if the model has a weight that llama.cpp has no place for.
    """
    config = model.config
    names = gguf.get_tensor_name_map(family.arch, config.num_hidden_layers)
    tied = bool(config.tie_word_embeddings) and not family.own_head
    for name, tensor in model.state_dict().items():
        if name == _HEAD and tied:
            continue
        given = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if given is None:
            raise InputError(
                f"llama.cpp's {config.model_type} has no place for the weight {name}",
                "Leave out the export, or merge what was added to the model (an adapter) first.",
            )
        heads = 0
        if family.rotates_pairs and name.endswith(_TURNED):
            heads = config.num_attention_heads if ".q_proj." in name else config.num_key_value_heads
        # GPT-2's layers are transposed: its `Conv1D` has (inputs, outputs).
        transposed = family.arch == gguf.MODEL_ARCH.GPT2 and ".c_" in name and tensor.ndim == 2
        shape = tuple(tensor.shape)[:: -1 if transposed else 1]
        yield Weights(given, kind_of(given, shape, precision), tensor, heads, transposed)
    factors = rope_factors(model)
    if factors is not None:
        yield Weights(_ROPE_FACTORS, GGMLQuantizationType.F32, factors)


def kind_of(name: str, shape: tuple[int, ...], precision: str) -> GGMLQuantizationType:
    """How the numbers of a tensor are kept: vectors, which are small and sensitive, always in float32."""
    if len(shape) < 2 or name == _POSITIONS:
        return GGMLQuantizationType.F32
    kind = GGMLQuantizationType[precision.upper()]
    block, _ = gguf.GGML_QUANT_SIZES[kind]
    return kind if shape[-1] % block == 0 else GGMLQuantizationType.F16


def rope_factors(model: PreTrainedModel) -> Tensor | None:
    """What each frequency of the rotary positions is divided by, of a model that scales them one by one (Llama 3)."""
    import torch

    rope = getattr(model.config, "rope_parameters", None) or {}
    if rope.get("rope_type") != "llama3":
        return None
    scaled: Tensor = model.model.rotary_emb.inv_freq.float().cpu()
    places = torch.arange(len(scaled), dtype=torch.float32) / len(scaled)
    plain: Tensor = torch.as_tensor(float(rope["rope_theta"])) ** -places
    return plain / scaled
