"""The arithmetic of a recurrent language model's parameters, and a width that uses up a budget of them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from luthier_models.families.sizes import MAX_WIDTH, shape_within
from luthier_models.recurrent.gates import GATES

WIDTH_STEP = 16


@dataclass(frozen=True, kw_only=True)
class RecurrentShape:
    """The sizes of a recurrent language model.

    Attributes:
        cell: `gru` or `lstm`.
        tied: whether the embedding is also the output layer.
    """

    cell: str
    vocabulary: int
    embedding_width: int
    layers: int
    width: int
    tied: bool = True

    def blocks(self) -> dict[str, int]:
        """The parameters by block; a gate has a matrix for its input, one for the state, and two biases."""
        inputs = self.embedding_width + (self.layers - 1) * self.width
        gates = GATES[self.cell] * self.width
        narrows = self.tied and self.embedding_width != self.width
        return {
            "embedding": self.vocabulary * self.embedding_width,
            "input": gates * inputs,
            "recurrence": gates * self.layers * self.width,
            "biases": 2 * gates * self.layers,
            "projection": self.width * self.embedding_width if narrows else 0,
            "output": 0 if self.tied else self.vocabulary * self.width,
        }

    def describe(self) -> str:
        """The sizes in words."""
        return f"{self.layers} layers ({self.cell}) of width {self.width}, embedding of width {self.embedding_width}"


@dataclass(frozen=True, kw_only=True)
class RecurrentWishes:
    """What is settled by the user; None leaves it to the budget."""

    cell: str
    layers: int
    width: int | None = None
    embedding_width: int | None = None
    tied: bool = True
    dropout: float = 0.0


def recurrent_shape(budget: int, vocabulary: int, wishes: RecurrentWishes) -> RecurrentShape:
    """The widest shape of at most `budget` parameters.

    Raises:
        InputError: if even the narrowest is larger.
    """
    return shape_within(budget, recurrent_shapes(vocabulary, wishes), lambda _: 0.0)


def recurrent_shapes(vocabulary: int, wishes: RecurrentWishes) -> Iterator[RecurrentShape]:
    """Every shape that keeps to the wishes."""
    widths = [wishes.width] if wishes.width else range(WIDTH_STEP, MAX_WIDTH + 1, WIDTH_STEP)
    for width in widths:
        yield RecurrentShape(
            cell=wishes.cell,
            vocabulary=vocabulary,
            embedding_width=wishes.embedding_width or min(width, _embedding_width(vocabulary)),
            layers=wishes.layers,
            width=width,
            tied=wishes.tied,
        )


def _embedding_width(vocabulary: int) -> int:
    """Four times the square root of the vocabulary: 64 for characters, 256 for 4,096 pieces of words."""
    return max(64, WIDTH_STEP * round(4 * math.sqrt(vocabulary) / WIDTH_STEP))
