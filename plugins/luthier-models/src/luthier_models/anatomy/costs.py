"""What a model costs: bytes, operations, and from a machine's measured speed, seconds.

A multiplication with an addition is two operations. A backward pass takes twice the forward one's (Kaplan et al.,
2020, arXiv:2001.08361, count 6 operations a weight and token in training); where the weights are frozen, as with
adapters, their own gradients are left out, and it takes about as much as the forward pass.
"""

from __future__ import annotations

from dataclasses import dataclass

from luthier_models.anatomy.parts import Anatomy, Side

WEIGHT = 4
"""Bytes of a number that is trained or computed with: float32."""

ADAMW = 2 * WEIGHT
"""Bytes of AdamW's two moments of a weight."""


@dataclass(frozen=True)
class Memory:
    """Bytes that tuning takes.

    Attributes:
        trained: how many parameters are trained.
        activations: what forward keeps for backward, for all tokens of a batch, with the logits of one chunk.
    """

    trained: int
    weights: int
    gradients: int
    optimizer: int
    activations: int

    @property
    def total(self) -> int:
        """All of them."""
        return self.weights + self.gradients + self.optimizer + self.activations


def forward_operations(side: Side, context: int) -> int:
    """Operations of one token's forward pass, with `context` tokens before it to attend to."""
    # Each attended token takes a product with its key and one with its value.
    return 2 * side.products + 4 * side.layers * side.attention_width * context


def training_operations(side: Side, context: int, *, frozen: bool) -> int:
    """Operations of training on one token of a text of `context` tokens, which attends to half of it on average."""
    return (2 if frozen else 3) * forward_operations(side, context // 2)


def adapter_parameters(anatomy: Anatomy, rank: int) -> int:
    """Parameters of LoRA adapters on all matrices but the output layer."""
    return sum(rank * (rows + columns) for side in anatomy.sides for rows, columns in side.matrices)


def tuning_memory(anatomy: Anatomy, *, batch_tokens: int, rank: int | None = None) -> Memory:
    """Bytes for tuning all weights, or with adapters of a rank.

    An estimate of the activations: what each matrix reads and gives is kept, in float32.
    """
    trained = anatomy.parameters if rank is None else adapter_parameters(anatomy, rank)
    weights = WEIGHT * (anatomy.parameters + (0 if rank is None else trained))
    kept = sum(rows + columns for side in anatomy.sides for rows, columns in side.matrices)
    return Memory(trained, weights, WEIGHT * trained, ADAMW * trained, WEIGHT * kept * batch_tokens)


def cache_bytes(anatomy: Anatomy, context: int) -> int:
    """Bytes that a decoder keeps of `context` tokens: keys and values, or a state of constant size."""
    side = anatomy.sides[-1]
    return WEIGHT * (side.state or side.layers * side.cached_width * context)


def decoding_bytes(anatomy: Anatomy, context: int) -> int:
    """Bytes that are read to generate one token: the decoder's weights and what it keeps."""
    return WEIGHT * anatomy.sides[-1].products + cache_bytes(anatomy, context)
