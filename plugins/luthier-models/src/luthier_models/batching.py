"""Models on batches of pairs, whatever their form: packed rows for decoders, padded pairs or texts for the others.

A classifier is given the tokens of a text, and what it is to predict is one number, that of its label: so whatever is
made for language models (objectives, training, caches) works on it too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from luthier_models.heads import is_classifier, output_layer
from luthier_models.packing import PackedModel
from luthier_models.padding import PaddedClassifier
from luthier_models.pairing import PairedModel

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from transformers import PreTrainedModel

    from luthier_models.packing import Head, Pair


class Batch(Protocol):
    """What can be said of a batch of any model.

    Attributes:
        labels: the targets of all its pairs, (targets,).
        sizes: the number of targets of each pair.
    """

    @property
    def labels(self) -> Tensor:
        """See the class."""

    @property
    def sizes(self) -> tuple[int, ...]:
        """See the class."""


class BatchedModel(Protocol):
    """A model that predicts the second part of pairs of ids after, or from, the first.

    Attributes:
        model: the model itself.
        row_tokens: a batch longer than this is trained on in several, whose gradients are added up.
        shares_beginnings: whether beginnings that pairs have in common are computed once.
    """

    model: PreTrainedModel
    row_tokens: int
    shares_beginnings: bool

    @property
    def device(self) -> torch.device:
        """Where the model is."""

    @property
    def head(self) -> Head | None:
        """The output layer, if hidden states through it are the model's logits; else None."""

    @property
    def takes_segments(self) -> bool:
        """Whether the model computes batches of another model that shares beginnings."""

    @property
    def isolates_documents(self) -> bool:
        """Whether several pairs of a batch do not see each other; where not, each is a batch of its own."""

    def rows(self, pairs: Sequence[Pair], limit: int, *, shared: bool | None = None) -> Iterator[tuple[list[int], Any]]:
        """Pairs in batches of at most `limit` tokens: the pairs' indices and the `Batch`, on the device.

        Args:
            pairs: what is given, and what is to be predicted.
            limit: a longer pair is a batch of its own.
            shared: whether beginnings are shared; `shares_beginnings`, if not given.
        """

    def hidden(self, batch: Any) -> Tensor:
        """The hidden states that predict the targets of a batch from `rows`: (targets, width)."""

    def logits(self, batch: Any) -> Tensor:
        """The logits that predict the targets of a batch from `rows`: (targets, vocabulary)."""


def batched(model: PreTrainedModel) -> BatchedModel:
    """The model on batches as its form has them.

    Raises:
        InputError: if it is an encoder-decoder that does not say which token its decoder starts with.
    """
    if is_classifier(model):
        packed = PackedModel(model) if output_layer(model) is not None else None
        return packed if packed is not None and packed.head is not None else PaddedClassifier(model)
    return PairedModel(model) if model.config.is_encoder_decoder else PackedModel(model)
