"""Decoders in Llama's form, with gated layers and shared keys and values; which norms they have, and where, differs.

Llama has root-mean-square norms before each layer and rotary positions. Qwen3 also normalises queries and keys in
each head; OLMo 2 does so before they are split, and has the norms of layers after them, before the residual sum
(Team OLMo, 2024, arXiv:2501.00656); StableLM has layer norms; SmolLM3 can be had without positions, which a causal
decoder learns by itself (Kazemnejad et al., 2023, arXiv:2305.19466).

Small decoders gain from depth more than from width (Liu et al., 2024, MobileLLM, arXiv:2402.14905): the
shapes here are about `ASPECT` times as wide as they are deep, as SmolLM2's are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from luthier_models.families.sizes import sizes_of, usual_shape

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedTokenizerBase

    from luthier_models.families.design import Design

ASPECT = 24.0
"""Width by layers."""

ROPE_BASE = 10_000.0


def rms_norms(shape: DecoderShape) -> int:
    """The parameters of two norms in each layer, and of one at the end."""
    return (2 * shape.layers + 1) * shape.width


def layer_norms(shape: DecoderShape) -> int:
    """The same with biases."""
    return 2 * rms_norms(shape)


def head_norms(shape: DecoderShape) -> int:
    """And norms of queries and keys that all heads share."""
    return rms_norms(shape) + shape.layers * 2 * shape.head_width


def projection_norms(shape: DecoderShape) -> int:
    """And norms of queries and keys across the heads."""
    return rms_norms(shape) + shape.layers * (shape.width + shape.key_value_heads * shape.head_width)


@dataclass(frozen=True, kw_only=True)
class DecoderShape:
    """The sizes of a Llama-like decoder; all but `vocabulary` count units of a layer.

    Attributes:
        tied: whether the embedding is also the output layer.
        norms: the parameters of all norms of such a shape.
    """

    vocabulary: int
    layers: int
    width: int
    heads: int
    key_value_heads: int
    mlp_width: int
    tied: bool = True
    norms: Callable[[DecoderShape], int] = rms_norms

    @property
    def aspect(self) -> float:
        """The width by layers."""
        return self.width / self.layers

    @property
    def head_width(self) -> int:
        """The width of one head."""
        return self.width // self.heads

    def blocks(self) -> dict[str, int]:
        """The parameters by block."""
        shared = self.key_value_heads * self.head_width
        return {
            "embedding": self.vocabulary * self.width,
            "attention": self.layers * 2 * self.width * (self.width + shared),
            "mlp": self.layers * 3 * self.width * self.mlp_width,
            "norms": self.norms(self),
            "output": 0 if self.tied else self.vocabulary * self.width,
        }

    def describe(self) -> str:
        """The sizes in words."""
        return (
            f"{self.layers} layers of width {self.width}, {self.heads} heads ({self.key_value_heads} for keys and "
            f"values), MLP of {self.mlp_width}"
        )


@dataclass(frozen=True)
class Llama:
    """The family of LlamaConfig, or of one that takes the same arguments.

    Attributes:
        config: the class of the configuration, by its name in transformers, which planning does not load.
        norms: see `DecoderShape`.
        options: what else the configuration of a shape has.
    """

    config: str
    norms: Callable[[DecoderShape], int] = rms_norms
    options: Callable[[DecoderShape], Mapping[str, Any]] = lambda _: {}

    def shape(self, budget: int, vocabulary: int, design: Design) -> DecoderShape:
        """The shape within a budget that keeps to the design.

        Raises:
            InputError: if there is none.
        """
        rule = (
            "Let the width be a multiple of the heads, an even width of each head, and the heads a multiple of those "
            "for keys and values."
        )
        return usual_shape(budget, self._shapes(vocabulary, design), design, aspect=ASPECT, rule=rule)

    def configuration(
        self, shape: DecoderShape, design: Design, tokenizer: PreTrainedTokenizerBase
    ) -> PreTrainedConfig:
        """The configuration of a model of this shape."""
        import transformers

        arguments: dict[str, Any] = {
            "vocab_size": shape.vocabulary,
            "hidden_size": shape.width,
            "intermediate_size": shape.mlp_width,
            "num_hidden_layers": shape.layers,
            "num_attention_heads": shape.heads,
            "num_key_value_heads": shape.key_value_heads,
            "head_dim": shape.head_width,
            "max_position_embeddings": design.max_length,
            "tie_word_embeddings": shape.tied,
            "rope_parameters": {"rope_type": "default", "rope_theta": design.rope_base or ROPE_BASE},
            "attention_dropout": design.dropout,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        }
        made: PreTrainedConfig = getattr(transformers, self.config)(**arguments, **self.options(shape))
        return made

    def _shapes(self, vocabulary: int, design: Design) -> Iterator[DecoderShape]:
        for sizes in sizes_of(design, expansion=8 / 3):
            shared = design.key_value_heads or _key_value_heads(sizes.heads)
            # Rotary embeddings turn pairs.
            if (sizes.width // sizes.heads) % 2 == 0 and sizes.heads % shared == 0:
                yield DecoderShape(
                    vocabulary=vocabulary,
                    key_value_heads=shared,
                    tied=design.tied,
                    norms=self.norms,
                    **sizes._asdict(),
                )


def _key_value_heads(heads: int) -> int:
    """A third or half of many heads share their keys and values."""
    if heads < 6:
        return heads
    return heads // 3 if heads % 3 == 0 else heads // 2 if heads % 2 == 0 else heads
