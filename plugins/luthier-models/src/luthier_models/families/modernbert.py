"""Encoders in ModernBERT's form (Warner et al., 2024, arXiv:2412.13663): every token sees what is on both sides.

Gated layers without biases, layer norms before them, rotary positions; of three layers, one attends to the whole text
and two to 128 tokens around.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from luthier_models.families.sizes import sizes_of, usual_shape

if TYPE_CHECKING:
    from transformers import ModernBertConfig, PreTrainedTokenizerBase

    from luthier_models.families.design import Design

ASPECT = 35.0
"""Width by layers, as in the smaller ModernBERT."""


@dataclass(frozen=True, kw_only=True)
class EncoderShape:
    """The sizes of such an encoder, without a head."""

    vocabulary: int
    layers: int
    width: int
    heads: int
    mlp_width: int

    @property
    def aspect(self) -> float:
        """The width by layers."""
        return self.width / self.layers

    def blocks(self) -> dict[str, int]:
        """The parameters by block."""
        return {
            "embedding": self.vocabulary * self.width,
            "attention": self.layers * 4 * self.width**2,
            "mlp": self.layers * 3 * self.width * self.mlp_width,
            # The first layer has none before its attention: that of the embedding stands there.
            "norms": (2 * self.layers + 1) * self.width,
        }

    def describe(self) -> str:
        """The sizes in words."""
        return f"{self.layers} layers of width {self.width}, {self.heads} heads, MLP of {self.mlp_width}"


class ModernBert:
    """The family of ModernBertConfig."""

    def shape(self, budget: int, vocabulary: int, design: Design) -> EncoderShape:
        """The shape within a budget that keeps to the design.

        Raises:
            InputError: if there is none.
        """
        shapes = [
            EncoderShape(vocabulary=vocabulary, layers=layers, width=width, heads=heads, mlp_width=mlp_width)
            for layers, width, heads, mlp_width in sizes_of(design, expansion=3 / 2)
            if (width // heads) % 2 == 0  # Rotary embeddings turn pairs.
        ]
        rule = "Let the width be a multiple of the heads, and that of each head even."
        return usual_shape(budget, shapes, design, aspect=ASPECT, rule=rule)

    def configuration(
        self, shape: EncoderShape, design: Design, tokenizer: PreTrainedTokenizerBase
    ) -> ModernBertConfig:
        """The configuration of a model of this shape.

        A head reads the mean of all tokens: the first one alone does not see the whole text in every layer.
        """
        from transformers import ModernBertConfig

        positions = {} if design.rope_base is None else {"rope_theta": design.rope_base}
        return ModernBertConfig(
            vocab_size=shape.vocabulary,
            hidden_size=shape.width,
            intermediate_size=shape.mlp_width,
            num_hidden_layers=shape.layers,
            num_attention_heads=shape.heads,
            max_position_embeddings=design.max_length,
            rope_parameters={
                kind: {"rope_type": "default", **positions} for kind in ("full_attention", "sliding_attention")
            },
            embedding_dropout=design.dropout,
            attention_dropout=design.dropout,
            mlp_dropout=design.dropout,
            classifier_dropout=design.dropout,
            classifier_pooling="mean",
            bos_token_id=tokenizer.bos_token_id,
            cls_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            sep_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
