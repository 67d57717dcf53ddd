"""The families by name, as `luthier_models.families.design.TRAITS` lists them. Light: planning chooses shapes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from luthier_models.families.gpt import Gpt2, Opt
from luthier_models.families.llama import Llama, head_norms, layer_norms, projection_norms
from luthier_models.families.marian import Marian
from luthier_models.families.modernbert import ModernBert
from luthier_models.families.t5 import T5

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedTokenizerBase

    from luthier_models.families.sizes import Shape


class Family(Protocol):
    """Models of one form of layers."""

    def shape(self, budget: int, vocabulary: int, design: Any) -> Shape:
        """The shape of at most `budget` parameters that keeps to the design.

        Raises:
            InputError: if there is none.
        """

    def configuration(self, shape: Any, design: Any, tokenizer: PreTrainedTokenizerBase) -> PreTrainedConfig:
        """The configuration of a model of a shape that the family gave for this design."""


FAMILIES: dict[str, Family] = {
    "llama": Llama("LlamaConfig"),
    "qwen3": Llama("Qwen3Config", head_norms),
    "smollm3": Llama("SmolLM3Config", options=lambda shape: {"no_rope_layers": [0] * shape.layers}),
    "olmo2": Llama("Olmo2Config", projection_norms),
    "stablelm": Llama("StableLmConfig", layer_norms, lambda _: {"partial_rotary_factor": 1.0}),
    "gpt2": Gpt2(),
    "opt": Opt(),
    "t5": T5(),
    "marian": Marian(),
    "modernbert": ModernBert(),
}
