"""The arithmetic of a recurrent encoder-decoder's parameters, and a width that uses up a budget of them."""

from __future__ import annotations

from dataclasses import dataclass, fields

from luthier import InputError
from luthier_models.families.sizes import shape_within
from luthier_models.recurrent.gates import GATES
from luthier_models.recurrent.sizes import RecurrentShape, RecurrentWishes, recurrent_shapes


@dataclass(frozen=True, kw_only=True)
class RecurrentPairShape(RecurrentShape):
    """The sizes of an encoder and a decoder of the same layers; each direction of the encoder has half the width.

    One embedding is that of both sides and the output layer.
    """

    def blocks(self) -> dict[str, int]:
        """The parameters by block; a gate has a matrix for its input, one for the state, and two biases."""
        inputs = self.embedding_width + (self.layers - 1) * self.width
        gates = GATES[self.cell] * self.width
        return {
            "embedding": self.vocabulary * self.embedding_width,
            "encoder": gates * (inputs + self.layers * (self.width // 2 + 2)),
            "decoder": gates * (inputs + self.layers * (self.width + 2)),
            "bridge": self.layers * (self.width**2 + self.width),
            "attention": self.width**2 + 2 * self.width * self.embedding_width,
        }

    def describe(self) -> str:
        """The sizes in words."""
        return f"{super().describe()}, on each side"


def pair_shape(budget: int, vocabulary: int, wishes: RecurrentWishes) -> RecurrentPairShape:
    """The widest shape of at most `budget` parameters.

    Raises:
        InputError: if even the narrowest is larger, or the width is odd.
    """
    if wishes.width and wishes.width % 2:
        raise InputError(f"the width {wishes.width} is odd", "The encoder's two directions share it: make it even.")
    shapes = [
        RecurrentPairShape(**{each.name: getattr(shape, each.name) for each in fields(shape)})
        for shape in recurrent_shapes(vocabulary, wishes)
    ]
    return shape_within(budget, shapes, lambda _: 0.0)
