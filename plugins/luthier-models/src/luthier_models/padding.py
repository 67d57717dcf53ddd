"""Classifiers on padded batches: what encoders are called with, whose tokens see each other in both directions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence

from luthier_models.heads import head_modules
from luthier_models.packing import PROBE, asking, same_logits
from luthier_models.pairing import fill_batches

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from luthier_models.packing import Pair


@dataclass(frozen=True)
class PaddedTexts:
    """Texts side by side.

    Attributes:
        ids: token ids, (texts, longest text).
        mask: 1 where they are no padding, of the same shape.
        labels: the number of each text's label, (texts,).
    """

    ids: Tensor
    mask: Tensor
    labels: Tensor

    @property
    def sizes(self) -> tuple[int, ...]:
        """Each text has one label."""
        return (1,) * len(self.labels)


class PaddedClassifier:
    """A classifier called on padded texts; a `luthier_models.batching.BatchedModel`.

    Args:
        model: the model; with LoRA layers injected or not.
    """

    isolates_documents = True
    """Texts never see each other."""

    shares_beginnings = takes_segments = False
    """An encoder reads every text whole, so that no two have a beginning of the same states."""

    row_tokens = 2048
    """With its padding. Batches that are larger gain nothing on a CPU, and memory for activations stays bounded."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model
        padding = cast("Any", model.config).pad_token_id
        self._padding = 0 if padding is None else int(padding)

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.model.device

    def hidden(self, batch: PaddedTexts) -> Tensor:
        """What enters the head: (texts, width)."""
        caught: list[Tensor] = []
        first = next(iter(head_modules(self.model).values()))
        hook = first.register_forward_pre_hook(lambda _, inputs: caught.append(inputs[0]))
        try:
            self._all_logits(batch)
        finally:
            hook.remove()
        return caught[0]

    def logits(self, batch: PaddedTexts) -> Tensor:
        """The logits of each text's labels: (texts, labels)."""
        return self._all_logits(batch) if self.head is None else self.head(self.hidden(batch))

    @cached_property
    def head(self) -> nn.Module | None:
        """The modules of the head in their order, if what enters them through them is the model's logits; else None.

        Measured once. Some architectures do more between them (DistilBERT), or hand the head whole texts (RoBERTa).
        """
        layers = nn.Sequential(*head_modules(self.model).values())
        embedding: Any = cast("Any", self.model).get_input_embeddings()
        given = [token % int(embedding.weight.shape[0]) for token in PROBE[0]]
        batch = self._padded([(given, [0])])
        with asking(self.model):
            states = self.hidden(batch)
            fits = states.dim() == 2 and same_logits(layers(states), self._all_logits(batch))
        return layers if fits else None

    def rows(
        self, pairs: Sequence[Pair], limit: int, *, shared: bool | None = None
    ) -> Iterator[tuple[list[int], PaddedTexts]]:
        """Texts in batches of at most `limit` tokens: the texts' indices and the batch, on the device.

        Args:
            pairs: the tokens of a text, and the number of its label.
            limit: tokens with their padding; a longer text is a batch of its own.
            shared: nothing can be.

        Raises:
            ValueError: if beginnings are to be shared.
        """
        if shared:
            raise ValueError("an encoder shares no beginnings")
        for members in fill_batches([(len(given), 0) for given, _ in pairs], limit):
            yield members, self._padded([pairs[number] for number in members])

    def _padded(self, pairs: Sequence[Pair]) -> PaddedTexts:
        texts = [torch.tensor(list(given)) for given, _ in pairs]
        return PaddedTexts(
            pad_sequence(texts, batch_first=True, padding_value=self._padding).to(self.device),
            pad_sequence([torch.ones_like(text) for text in texts], batch_first=True).to(self.device),
            torch.tensor([targets[0] for _, targets in pairs]).to(self.device),
        )

    def _all_logits(self, batch: PaddedTexts) -> Tensor:
        logits: Tensor = self.model(input_ids=batch.ids, attention_mask=batch.mask).logits
        return logits
