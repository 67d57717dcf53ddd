"""Decoders in Llama's form: rotary positions, root-mean-square norms, gated layers; Qwen3's norms of heads on top.

Small decoders gain from depth more than from width (Liu et al., 2024, MobileLLM, arXiv:2402.14905): the
shapes here are about `ASPECT` times as wide as they are deep, as SmolLM2's are.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from luthier import InputError
from luthier_models.families.sizes import MAX_LAYERS, MAX_WIDTH, WIDTH_STEP, octaves, shape_within, usual_heads

if TYPE_CHECKING:
    from transformers import LlamaConfig, PreTrainedTokenizerBase, Qwen3Config

    from luthier_models.families.design import Design

ASPECT = 24.0
"""Width by layers."""

ROPE_BASE = 10_000.0


@dataclass(frozen=True, kw_only=True)
class DecoderShape:
    """The sizes of a Llama-like decoder; all but `vocabulary` count units of a layer.

    Attributes:
        tied: whether the embedding is also the output layer.
        head_norms: whether queries and keys are normalised in each head, as in Qwen3.
    """

    vocabulary: int
    layers: int
    width: int
    heads: int
    key_value_heads: int
    mlp_width: int
    tied: bool = True
    head_norms: bool = False

    @property
    def head_width(self) -> int:
        """The width of one head."""
        return self.width // self.heads

    def blocks(self) -> dict[str, int]:
        """The parameters by block."""
        shared = self.key_value_heads * self.head_width
        norms = 2 * self.width + (2 * self.head_width if self.head_norms else 0)
        return {
            "embedding": self.vocabulary * self.width,
            "attention": self.layers * 2 * self.width * (self.width + shared),
            "mlp": self.layers * 3 * self.width * self.mlp_width,
            "norms": self.layers * norms + self.width,
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
        config: the class of the configuration.
        head_norms: see `DecoderShape`.
    """

    config: type[LlamaConfig | Qwen3Config]
    head_norms: bool = False

    def shape(self, budget: int, vocabulary: int, design: Design) -> DecoderShape:
        """The shape within a budget that keeps to the design.

        Raises:
            InputError: if there is none.
        """
        shapes = list(decoder_shapes(vocabulary, design, head_norms=self.head_norms))
        if not shapes:
            raise InputError(
                f"no shape has the width {design.width} with {design.heads} heads, {design.key_value_heads} of them "
                "for keys and values",
                "Let the width be a multiple of the heads, an even width of each head, and the heads a multiple of "
                "those for keys and values.",
            )
        return shape_within(budget, shapes, lambda shape: octaves(shape.width / shape.layers, ASPECT))

    def configuration(
        self, shape: DecoderShape, design: Design, tokenizer: PreTrainedTokenizerBase
    ) -> LlamaConfig | Qwen3Config:
        """The configuration of a model of this shape."""
        return self.config(
            vocab_size=shape.vocabulary,
            hidden_size=shape.width,
            intermediate_size=shape.mlp_width,
            num_hidden_layers=shape.layers,
            num_attention_heads=shape.heads,
            num_key_value_heads=shape.key_value_heads,
            head_dim=shape.head_width,
            max_position_embeddings=design.max_length,
            tie_word_embeddings=shape.tied,
            rope_parameters={"rope_type": "default", "rope_theta": design.rope_base or ROPE_BASE},
            attention_dropout=design.dropout,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )


def decoder_shapes(vocabulary: int, design: Design, *, head_norms: bool = False) -> Iterator[DecoderShape]:
    """Every shape that keeps to the design."""
    widths = [design.width] if design.width else range(WIDTH_STEP, MAX_WIDTH + 1, WIDTH_STEP)
    depths = [design.layers] if design.layers else range(1, MAX_LAYERS + 1)
    for width in widths:
        heads = design.heads or usual_heads(width)
        shared = design.key_value_heads or _key_value_heads(heads)
        # Rotary embeddings turn pairs.
        if width % heads or (width // heads) % 2 or heads % shared:
            continue
        mlp_width = design.mlp_width or WIDTH_STEP * max(1, round(8 * width / 3 / WIDTH_STEP))
        for layers in depths:
            yield DecoderShape(
                vocabulary=vocabulary,
                layers=layers,
                width=width,
                heads=heads,
                key_value_heads=shared,
                mlp_width=mlp_width,
                tied=design.tied,
                head_norms=head_norms,
            )


def _key_value_heads(heads: int) -> int:
    """A third or half of many heads share their keys and values."""
    if heads < 6:
        return heads
    return heads // 3 if heads % 3 == 0 else heads // 2 if heads % 2 == 0 else heads
