"""Decoders with layer norms, biases, plain layers and learned positions: GPT-2's form and OPT's.

GPT-2 (Radford et al., 2019) has its norms before each layer. The smallest OPT but one (Zhang et al., 2022,
arXiv:2205.01068) has them after the residual sum, as the first transformer and GPT had.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from luthier_models.families.sizes import sizes_of, usual_shape

if TYPE_CHECKING:
    from transformers import GPT2Config, OPTConfig, PreTrainedTokenizerBase

    from luthier_models.families.design import Design


@dataclass(frozen=True, kw_only=True)
class GptShape:
    """The sizes of such a decoder.

    Attributes:
        positions: rows of the embedding of positions.
        tied: whether the embedding is also the output layer.
        final_norm: whether there is a norm after the last layer.
    """

    vocabulary: int
    positions: int
    layers: int
    width: int
    heads: int
    mlp_width: int
    tied: bool
    final_norm: bool

    @property
    def aspect(self) -> float:
        """The width by layers."""
        return self.width / self.layers

    def blocks(self) -> dict[str, int]:
        """The parameters by block."""
        return {
            "embedding": self.vocabulary * self.width,
            "positions": self.positions * self.width,
            "attention": self.layers * 4 * (self.width**2 + self.width),
            "mlp": self.layers * (2 * self.width * self.mlp_width + self.width + self.mlp_width),
            "norms": (2 * self.layers + self.final_norm) * 2 * self.width,
            "output": 0 if self.tied else self.vocabulary * self.width,
        }

    def describe(self) -> str:
        """The sizes in words."""
        return f"{self.layers} layers of width {self.width}, {self.heads} heads, MLP of {self.mlp_width}"


class _Gpt:
    """What both families have.

    Attributes:
        aspect: the usual width by layers.
        final_norm: see `GptShape`.
        unused_positions: rows of the embedding of positions that no token of a text has.
    """

    aspect: ClassVar[float]
    final_norm: ClassVar[bool]
    unused_positions: ClassVar[int] = 0

    def shape(self, budget: int, vocabulary: int, design: Design) -> GptShape:
        """The shape within a budget that keeps to the design.

        Raises:
            InputError: if there is none.
        """
        shapes = (
            GptShape(
                vocabulary=vocabulary,
                positions=design.max_length + self.unused_positions,
                tied=design.tied,
                final_norm=self.final_norm,
                **sizes._asdict(),
            )
            for sizes in sizes_of(design, expansion=4)
        )
        rule = "Let the width be a multiple of the heads."
        return usual_shape(budget, shapes, design, aspect=self.aspect, rule=rule)


class Gpt2(_Gpt):
    """The family of GPT2Config; as wide by layers as the smallest GPT-2."""

    aspect = 64
    final_norm = True

    def configuration(self, shape: GptShape, design: Design, tokenizer: PreTrainedTokenizerBase) -> GPT2Config:
        """The configuration of a model of this shape."""
        from transformers import GPT2Config

        return GPT2Config(
            vocab_size=shape.vocabulary,
            n_positions=shape.positions,
            n_embd=shape.width,
            n_layer=shape.layers,
            n_head=shape.heads,
            n_inner=shape.mlp_width,
            tie_word_embeddings=shape.tied,
            embd_pdrop=design.dropout,
            attn_pdrop=design.dropout,
            resid_pdrop=design.dropout,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )


class Opt(_Gpt):
    """The family of OPTConfig with norms after each layer; wide and shallow, since deep ones are hard to train."""

    aspect = 85
    final_norm = False
    unused_positions = 2

    def configuration(self, shape: GptShape, design: Design, tokenizer: PreTrainedTokenizerBase) -> OPTConfig:
        """The configuration of a model of this shape."""
        from transformers import OPTConfig

        return OPTConfig(
            vocab_size=shape.vocabulary,
            max_position_embeddings=design.max_length,
            hidden_size=shape.width,
            num_hidden_layers=shape.layers,
            num_attention_heads=shape.heads,
            ffn_dim=shape.mlp_width,
            do_layer_norm_before=False,
            tie_word_embeddings=shape.tied,
            dropout=design.dropout,
            attention_dropout=design.dropout,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
