"""Transformers with an encoder and a decoder: T5's form and Marian's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from luthier_models.families.sizes import MAX_LAYERS, sizes_of, usual_shape

if TYPE_CHECKING:
    from luthier_models.families.design import Design


@dataclass(frozen=True, kw_only=True)
class EncoderDecoderShape:
    """The sizes of an encoder and a decoder; both and the output layer share one embedding.

    Attributes:
        layers: of the encoder.
        decoder_layers: of the decoder, each of which also attends to the encoder.
        count: the family's arithmetic: the parameters of such a shape by block.
    """

    vocabulary: int
    layers: int
    decoder_layers: int
    width: int
    heads: int
    mlp_width: int
    count: Callable[[EncoderDecoderShape], dict[str, int]]

    @property
    def aspect(self) -> float:
        """The width by layers of a side."""
        return 2 * self.width / (self.layers + self.decoder_layers)

    def blocks(self) -> dict[str, int]:
        """The parameters by block."""
        return self.count(self)

    def describe(self) -> str:
        """The sizes in words."""
        layers = f"{self.layers} layers in the encoder and {self.decoder_layers} in the decoder"
        return f"{layers} of width {self.width}, {self.heads} heads, MLP of {self.mlp_width}"


def encoder_decoder_shape(
    budget: int,
    vocabulary: int,
    design: Design,
    count: Callable[[EncoderDecoderShape], dict[str, int]],
    *,
    aspect: float,
    expansion: float,
) -> EncoderDecoderShape:
    """The shape within a budget that keeps to the design.

    Args:
        budget: parameters at most.
        vocabulary: the tokens of both sides.
        design: what is settled.
        count: see `EncoderDecoderShape`.
        aspect: the usual width by layers of a side.
        expansion: the usual width of the MLP, in widths of the model.

    Raises:
        InputError: if there is none.
    """
    shapes = (
        EncoderDecoderShape(
            vocabulary=vocabulary,
            decoder_layers=design.decoder_layers or sizes.layers,
            count=count,
            **sizes._asdict(),
        )
        for sizes in sizes_of(design, expansion=expansion, max_layers=MAX_LAYERS // 2)
        if sizes.width % 2 == 0  # Sinusoidal positions are pairs.
    )
    rule = "Let the width be an even multiple of the heads."
    return usual_shape(budget, shapes, design, aspect=aspect, rule=rule)
