"""Budgets of parameters, and the shape of a family that uses up most of one."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeVar

from luthier import InputError

if TYPE_CHECKING:
    from luthier_models.families.design import Design

WIDTH_STEP = 32
MAX_WIDTH = 8192
MAX_LAYERS = 96
_SUFFIXES = {"": 1, "k": 1_000, "m": 1_000_000, "b": 1_000_000_000}


class Shape(Protocol):
    """The sizes of a model, from which its parameters follow."""

    @property
    def vocabulary(self) -> int:
        """The tokens that it knows."""

    def blocks(self) -> dict[str, int]:
        """The parameters by block; that of the embedding is called `embedding`."""

    def describe(self) -> str:
        """The sizes in words, for a log."""


class ProportionedShape(Shape, Protocol):
    """The sizes of a transformer."""

    @property
    def aspect(self) -> float:
        """The width by layers; of an encoder-decoder, by those of one side."""


class Sizes(NamedTuple):
    """What the shapes of all families have; the width is a multiple of the heads."""

    layers: int
    width: int
    heads: int
    mlp_width: int


AnyShape = TypeVar("AnyShape", bound=Shape)
AnyProportioned = TypeVar("AnyProportioned", bound=ProportionedShape)


def parameters(shape: Shape) -> int:
    """How many parameters a model of this shape has."""
    return sum(shape.blocks().values())


def parse_count(text: str) -> int:
    """A number of parameters as people write it: `5M`, `135m`, `1.7B`, `800000`.

    Raises:
        InputError: if it is none.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([kmb]?)", text.strip().lower())
    if not found:
        raise InputError(f"{text!r} is no number of parameters", "Write it as 800000, 800K, 5M or 1.7B.")
    return round(float(found[1]) * _SUFFIXES[found[2]])


def shape_within(budget: int, shapes: Iterable[AnyShape], oddness: Callable[[AnyShape], float]) -> AnyShape:
    """The shape of at most `budget` parameters that uses most of them and has usual proportions.

    Args:
        budget: parameters at most.
        shapes: those to choose from; at least one.
        oddness: how many octaves a shape is off the usual proportions.

    Raises:
        InputError: if even the smallest is larger.
    """
    counted = [(parameters(shape), shape) for shape in shapes]
    fitting = [(count, shape) for count, shape in counted if count <= budget]
    if not fitting:
        count, least = min(counted, key=lambda each: each[0])
        raise InputError(
            f"{budget:,} parameters are too few: the smallest shape has {count:,}, "
            f"{least.blocks()['embedding']:,} of them in the embedding of {least.vocabulary:,} tokens",
            "Raise `parameters`, or lower the tokenizer's size.",
        )
    # An octave off the usual proportions weighs as much as a quarter of the budget left unused.
    return min(fitting, key=lambda each: (budget - each[0]) / budget + 0.25 * oddness(each[1]))[1]


def usual_shape(
    budget: int, shapes: Iterable[AnyProportioned], design: Design, *, aspect: float, rule: str
) -> AnyProportioned:
    """The shape of at most `budget` parameters that uses most of them, and is about as wide by layers as usual.

    Where the design settles the number of layers, or the width, what is usual is no question any more: the widest, or
    deepest, shape is taken.

    Args:
        budget: parameters at most.
        shapes: those that keep to the design.
        design: what is settled.
        aspect: the usual width by layers.
        rule: what a design of the family has to keep to, for one that no shape does.

    Raises:
        InputError: if there is none.
    """
    found = list(shapes)
    if not found:
        shared = f", {design.key_value_heads} of them for keys and values" if design.key_value_heads else ""
        raise InputError(f"no shape has the width {design.width} with {design.heads} heads{shared}", rule)
    settled = design.layers or design.width
    return shape_within(budget, found, lambda shape: 0.0 if settled else octaves(shape.aspect, aspect))


def sizes_of(design: Design, *, expansion: float, max_layers: int = MAX_LAYERS) -> Iterator[Sizes]:
    """All sizes that keep to the design.

    Args:
        design: what is settled.
        expansion: the usual width of the MLP, in widths of the model.
        max_layers: of a model, or of a side of it.
    """
    for width in [design.width] if design.width else range(WIDTH_STEP, MAX_WIDTH + 1, WIDTH_STEP):
        heads = design.heads or usual_heads(width)
        if width % heads:
            continue
        mlp_width = design.mlp_width or WIDTH_STEP * max(1, round(expansion * width / WIDTH_STEP))
        for layers in [design.layers] if design.layers else range(1, max_layers + 1):
            yield Sizes(layers, width, heads, mlp_width)


def octaves(value: float, usual: float) -> float:
    """How far a value is from the usual one, either way."""
    return abs(math.log2(value / usual))


def usual_heads(width: int) -> int:
    """Heads of 64 from a width of 256 on, below it of 32."""
    return width // 64 if width >= 256 and width % 64 == 0 else max(1, width // 32)
