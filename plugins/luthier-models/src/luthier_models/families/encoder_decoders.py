"""Transformers with an encoder and a decoder: T5's form and Marian's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from luthier import InputError
from luthier_models.families.sizes import MAX_LAYERS, MAX_WIDTH, WIDTH_STEP, octaves, shape_within, usual_heads

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
    shapes = list(_shapes(vocabulary, design, count, expansion))
    if not shapes:
        raise InputError(
            f"no shape has the width {design.width} with {design.heads} heads",
            "Let the width be an even multiple of the heads.",
        )
    return shape_within(
        budget, shapes, lambda shape: octaves(2 * shape.width / (shape.layers + shape.decoder_layers), aspect)
    )


def _shapes(
    vocabulary: int, design: Design, count: Callable[[EncoderDecoderShape], dict[str, int]], expansion: float
) -> Iterator[EncoderDecoderShape]:
    widths = [design.width] if design.width else range(WIDTH_STEP, MAX_WIDTH + 1, WIDTH_STEP)
    depths = [design.layers] if design.layers else range(1, MAX_LAYERS // 2 + 1)
    for width in widths:
        heads = design.heads or usual_heads(width)
        # Sinusoidal positions are pairs.
        if width % heads or width % 2:
            continue
        mlp_width = design.mlp_width or WIDTH_STEP * max(1, round(expansion * width / WIDTH_STEP))
        for layers in depths:
            yield EncoderDecoderShape(
                vocabulary=vocabulary,
                layers=layers,
                decoder_layers=design.decoder_layers or layers,
                width=width,
                heads=heads,
                mlp_width=mlp_width,
                count=count,
            )
