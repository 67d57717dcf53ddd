"""Which architectures llama.cpp computes as transformers does, and with what settings. Light: planning asks it too.

Sources: llama.cpp's graphs (`src/models/*.cpp`) for what each takes for granted, and `llama_model_rope_type` for how
each lays out rotary positions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from luthier import InputError

if TYPE_CHECKING:
    from gguf import MODEL_ARCH
    from transformers import PreTrainedConfig

_GATED: Mapping[str, tuple[object, ...]] = {"hidden_act": ("silu",)}
_ROPE_TYPES = ("default", "linear")


@dataclass(frozen=True)
class Family:
    """How llama.cpp has the models of one `model_type`.

    Attributes:
        name: its name there, as a member of `gguf.MODEL_ARCH`.
        rotates_pairs: whether rotary positions turn neighbouring dimensions; transformers always turns a dimension
            of a head's first half with one of its second half.
        own_head: whether it wants a head in the file even if that is the embedding.
        norm: `rms` or `layer`.
        partly_rotary: whether it can leave dimensions of a head without positions.
        settings: what it takes for granted: the values that a configuration may have.
    """

    name: str
    rotates_pairs: bool = False
    own_head: bool = False
    norm: str = "rms"
    partly_rotary: bool = False
    settings: Mapping[str, tuple[object, ...]] = field(default_factory=dict)

    @property
    def arch(self) -> MODEL_ARCH:
        """What the library gguf knows of it."""
        from gguf import MODEL_ARCH

        return MODEL_ARCH[self.name]


FAMILIES: Mapping[str, Family] = {
    "llama": Family("LLAMA", rotates_pairs=True, settings=_GATED),
    "mistral": Family("LLAMA", rotates_pairs=True, settings={**_GATED, "sliding_window": (None,)}),
    "qwen2": Family("QWEN2", settings={**_GATED, "use_sliding_window": (False,)}),
    "qwen3": Family("QWEN3", settings={**_GATED, "use_sliding_window": (False,), "attention_bias": (False,)}),
    "smollm3": Family(
        "SMOLLM3",
        rotates_pairs=True,
        settings={**_GATED, "use_sliding_window": (False,), "attention_bias": (False,), "mlp_bias": (False,)},
    ),
    "olmo2": Family("OLMO2", own_head=True, settings={**_GATED, "attention_bias": (False,)}),
    "stablelm": Family(
        "STABLELM",
        own_head=True,
        norm="layer",
        partly_rotary=True,
        settings={**_GATED, "qk_layernorm": (False,)},
    ),
    "gpt2": Family(
        "GPT2",
        norm="layer",
        settings={
            "activation_function": ("gelu_new", "gelu_pytorch_tanh"),
            "scale_attn_weights": (True,),
            "scale_attn_by_inverse_layer_idx": (False,),
            "add_cross_attention": (False,),
        },
    ),
}
"""By transformers' `model_type`."""


def check_type(model_type: str) -> None:
    """Refuse an architecture that is not among these.

    Raises:
        InputError: naming those that are, and other exporters.
    """
    if model_type not in FAMILIES:
        raise InputError(
            f"the exporter gguf does not know the architecture {model_type}",
            f"It exports {', '.join(FAMILIES)}. `export: dynamo`, `export: genai` and `export: optimum` know others.",
        )


def family_of(config: PreTrainedConfig) -> Family:
    """The family of a model.

    Raises:
        InputError: if llama.cpp has none, or would compute something else than transformers; naming what works.
    """
    check_type(config.model_type)
    family = FAMILIES[config.model_type]
    for name, allowed in family.settings.items():
        value = getattr(config, name, allowed[0])
        if value not in allowed:
            only = " or ".join(map(repr, allowed))
            raise _refused(config, f"{name} {value!r}, only {only}")
    _check_positions(config, family)
    return family


def _check_positions(config: PreTrainedConfig, family: Family) -> None:
    rope: dict[str, Any] | None = getattr(config, "rope_parameters", None)
    if rope is None:
        return
    kind = rope.get("rope_type", "default")
    # Of the families here, llama's graph alone reads a factor for each frequency.
    known = (*_ROPE_TYPES, "llama3") if family.name == "LLAMA" else _ROPE_TYPES
    if kind not in known:
        raise _refused(config, f"rotary positions scaled as {kind!r}, only as {', '.join(known)}")
    if not family.partly_rotary and rope.get("partial_rotary_factor", 1.0) != 1.0:
        raise _refused(config, "rotary positions in a part of each head")
    if family.name == "SMOLLM3":
        # 1 is a layer with positions.
        expected = [int((layer + 1) % 4 != 0) for layer in range(config.num_hidden_layers)]
        if list(config.no_rope_layers) != expected:
            raise _refused(config, "layers without positions other than every fourth")


def _refused(config: PreTrainedConfig, what: str) -> InputError:
    return InputError(
        f"llama.cpp's {config.model_type} has no {what}",
        "Leave out the export: the runtime `transformers` runs the model as it is. Or try `export: genai`.",
    )
