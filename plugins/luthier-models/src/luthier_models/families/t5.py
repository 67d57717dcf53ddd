"""Encoder-decoders in the form of T5 1.1 (Raffel et al., 2019, arXiv:1910.10683): relative positions, gated layers.

Input embedding and output layer are one, as in the first T5: at small sizes two would take most of the budget.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from luthier_models.families.encoder_decoders import EncoderDecoderShape, encoder_decoder_shape

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, T5Config

    from luthier_models.families.design import Design

ASPECT = 32.0
"""Width by layers of a side: depth before width (Tay et al., 2021, Scale Efficiently, arXiv:2109.10686)."""

_BUCKETS = 32


def count_parameters(shape: EncoderDecoderShape) -> dict[str, int]:
    """The parameters by block."""
    # Each side's first layer holds the biases of relative positions for all of its layers.
    attentions = shape.layers + 2 * shape.decoder_layers
    both = shape.layers + shape.decoder_layers
    return {
        "embedding": shape.vocabulary * shape.width,
        "positions": 2 * _BUCKETS * shape.heads,
        "attention": attentions * 4 * shape.width**2,
        "mlp": both * 3 * shape.width * shape.mlp_width,
        "norms": (attentions + both + 2) * shape.width,
    }


class T5:
    """The family of T5Config."""

    def shape(self, budget: int, vocabulary: int, design: Design) -> EncoderDecoderShape:
        """The shape within a budget; see `Family`."""
        return encoder_decoder_shape(budget, vocabulary, design, count_parameters, aspect=ASPECT, expansion=8 / 3)

    def configuration(self, shape: EncoderDecoderShape, design: Design, tokenizer: PreTrainedTokenizerBase) -> T5Config:
        """The configuration of a model of this shape."""
        from transformers import T5Config

        return T5Config(
            vocab_size=shape.vocabulary,
            d_model=shape.width,
            d_kv=shape.width // shape.heads,
            d_ff=shape.mlp_width,
            num_layers=shape.layers,
            num_decoder_layers=shape.decoder_layers,
            num_heads=shape.heads,
            relative_attention_num_buckets=_BUCKETS,
            feed_forward_proj="gated-gelu",
            dropout_rate=design.dropout,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
            decoder_start_token_id=tokenizer.pad_token_id,  # type: ignore[call-arg]  # taken by all configurations
        )
