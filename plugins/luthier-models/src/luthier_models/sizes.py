"""The arithmetic of a decoder's parameters, and a shape that uses up a budget of them.

Small decoders gain from depth more than from width (Liu et al., 2024, MobileLLM, arXiv:2402.14905): the
shapes here are about `ASPECT` times as wide as they are deep, as SmolLM2's are.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

from luthier import InputError

ASPECT = 24.0
"""Width by layers."""

WIDTH_STEP = 32
MAX_WIDTH = 8192
MAX_LAYERS = 96
_SUFFIXES = {"": 1, "k": 1_000, "m": 1_000_000, "b": 1_000_000_000}


@dataclass(frozen=True, kw_only=True)
class Shape:
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

    @property
    def parameters(self) -> int:
        """How many parameters it has."""
        return sum(self.blocks().values())


@dataclass(frozen=True, kw_only=True)
class Wishes:
    """What of a shape is settled by the user; None leaves it to the budget."""

    layers: int | None = None
    width: int | None = None
    heads: int | None = None
    key_value_heads: int | None = None
    mlp_width: int | None = None
    tied: bool = True
    head_norms: bool = False


def parse_count(text: str) -> int:
    """A number of parameters as people write it: `5M`, `135m`, `1.7B`, `800000`.

    Raises:
        InputError: if it is none.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([kmb]?)", text.strip().lower())
    if not found:
        raise InputError(f"{text!r} is no number of parameters", "Write it as 800000, 800K, 5M or 1.7B.")
    return round(float(found[1]) * _SUFFIXES[found[2]])


def shape_within(budget: int, vocabulary: int, wishes: Wishes) -> Shape:
    """The shape of at most `budget` parameters that uses most of them and is near the usual aspect.

    Raises:
        InputError: if even the smallest is larger, or the wishes contradict each other.
    """
    shapes = list(_shapes(vocabulary, wishes))
    if not shapes:
        raise InputError(
            f"no shape has the width {wishes.width} with {wishes.heads} heads, {wishes.key_value_heads} of them for "
            "keys and values",
            "Let the width be a multiple of the heads, an even width of each head, and the heads a multiple of those "
            "for keys and values.",
        )
    fitting = [shape for shape in shapes if shape.parameters <= budget]
    if not fitting:
        least = min(shapes, key=lambda shape: shape.parameters)
        raise InputError(
            f"{budget:,} parameters are too few: the smallest shape has {least.parameters:,}, "
            f"{least.blocks()['embedding']:,} of them in the embedding of {vocabulary:,} tokens",
            "Raise `parameters`, or lower the tokenizer's size.",
        )
    return min(fitting, key=lambda shape: _misfit(shape, budget))


def _misfit(shape: Shape, budget: int) -> float:
    # An octave off the usual aspect weighs as much as a quarter of the budget left unused.
    return (budget - shape.parameters) / budget + 0.25 * abs(math.log2(shape.width / shape.layers / ASPECT))


def _shapes(vocabulary: int, wishes: Wishes) -> Iterator[Shape]:
    widths = [wishes.width] if wishes.width else range(WIDTH_STEP, MAX_WIDTH + 1, WIDTH_STEP)
    depths = [wishes.layers] if wishes.layers else range(1, MAX_LAYERS + 1)
    for width in widths:
        heads = wishes.heads or _heads(width)
        shared = wishes.key_value_heads or _key_value_heads(heads)
        # Rotary embeddings turn pairs.
        if width % heads or (width // heads) % 2 or heads % shared:
            continue
        mlp_width = wishes.mlp_width or WIDTH_STEP * max(1, round(8 * width / 3 / WIDTH_STEP))
        for layers in depths:
            yield Shape(
                vocabulary=vocabulary,
                layers=layers,
                width=width,
                heads=heads,
                key_value_heads=shared,
                mlp_width=mlp_width,
                tied=wishes.tied,
                head_norms=wishes.head_norms,
            )


def _heads(width: int) -> int:
    """Heads of 64 from a width of 256 on, below it of 32."""
    return width // 64 if width >= 256 and width % 64 == 0 else width // 32


def _key_value_heads(heads: int) -> int:
    """A third or half of many heads share their keys and values."""
    if heads < 6:
        return heads
    return heads // 3 if heads % 3 == 0 else heads // 2 if heads % 2 == 0 else heads
