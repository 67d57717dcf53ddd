"""The lean path: training the Llama family on a CPU with gradients by hand, shared beginnings, a trimmed last layer.

`lean_or_plain` gives a model this path where the path computes what the model does, and says why where not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from luthier_models.batching import batched
from luthier_models.packing import PackedModel
from luthier_tune.lean.decoder import hidden
from luthier_tune.lean.support import obstacle

if TYPE_CHECKING:
    import logging

    from torch import Tensor
    from transformers import PreTrainedModel

    from luthier_models.batching import BatchedModel
    from luthier_models.packing import Row


class LeanModel(PackedModel):
    """A packed model of the Llama family whose hidden states are computed by this package.

    `head`, which asks the model itself for its logits, is therefore measured against these hidden states.
    """

    shares_beginnings = True

    row_tokens = 1024
    """A token needs half the memory for activations that it needs on the plain path, and the longer the row, the
    more share a beginning."""

    def hidden(self, row: Row) -> Tensor:
        """The hidden states that predict the targets: (targets, width)."""
        return hidden(self.model, row)


def lean_or_plain(model: PreTrainedModel, log: logging.Logger) -> BatchedModel:
    """The model on the lean path, or on transformers' and peft's own with a line in the log that says why.

    Args:
        model: with adapters injected, if it is to have any.
        log: where it is noted.
    """
    reason = obstacle(model)
    if reason is None:
        return LeanModel(model)
    log.info("training takes the plain path, not the lean one: %s", reason)
    return batched(model)
