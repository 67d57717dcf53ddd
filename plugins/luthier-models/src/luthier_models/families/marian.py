"""Encoder-decoders in Marian's form (Junczys-Dowmunt et al., 2018, arXiv:1804.00344): the first transformer's.

Sinusoidal positions, norms after each layer, plain layers of four times the width.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from luthier_models.families.encoder_decoders import EncoderDecoderShape, encoder_decoder_shape

if TYPE_CHECKING:
    from transformers import MarianConfig, PreTrainedTokenizerBase

    from luthier_models.families.design import Design

ASPECT = 85.0
"""Width by layers of a side, as in the first transformer; deeper ones of norms after each layer are hard to train."""


def count_parameters(shape: EncoderDecoderShape) -> dict[str, int]:
    """The parameters by block; the sinusoids are none."""
    attentions = shape.layers + 2 * shape.decoder_layers
    both = shape.layers + shape.decoder_layers
    return {
        "embedding": shape.vocabulary * shape.width,
        "attention": attentions * 4 * (shape.width**2 + shape.width),
        "mlp": both * (2 * shape.width * shape.mlp_width + shape.width + shape.mlp_width),
        "norms": (attentions + both) * 2 * shape.width,
    }


class Marian:
    """The family of MarianConfig."""

    def shape(self, budget: int, vocabulary: int, design: Design) -> EncoderDecoderShape:
        """The shape within a budget; see `Family`."""
        return encoder_decoder_shape(budget, vocabulary, design, count_parameters, aspect=ASPECT, expansion=4)

    def configuration(
        self, shape: EncoderDecoderShape, design: Design, tokenizer: PreTrainedTokenizerBase
    ) -> MarianConfig:
        """The configuration of a model of this shape.

        Weights start at a standard deviation of the width's root: transformers' 0.02 is for widths of
        thousands, and lets a small model's positions drown its tokens.
        """
        from transformers import MarianConfig

        return MarianConfig(
            vocab_size=shape.vocabulary,
            max_position_embeddings=design.max_length,
            d_model=shape.width,
            encoder_layers=shape.layers,
            decoder_layers=shape.decoder_layers,
            encoder_attention_heads=shape.heads,
            decoder_attention_heads=shape.heads,
            encoder_ffn_dim=shape.mlp_width,
            decoder_ffn_dim=shape.mlp_width,
            activation_function="swish",
            scale_embedding=True,
            init_std=shape.width**-0.5,
            dropout=design.dropout,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
            decoder_start_token_id=tokenizer.pad_token_id,
            forced_eos_token_id=None,
        )
