"""Encoder-decoder models on padded batches: each completion is predicted from its own prompt alone.

A decoder attends to what an encoder made of one prompt, so that prompts cannot share a row as packed
documents do. Pairs of similar length are padded to one batch instead; masks hide the padding.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

import torch
from torch.nn.utils.rnn import pad_sequence

from luthier import InputError
from luthier_models.packing import PROBE, asking, same_logits

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from luthier_models.packing import Head, Pair


@dataclass(frozen=True)
class PaddedPairs:
    """Prompts and completions side by side.

    Attributes:
        sources: ids that the encoder reads, (pairs, longest prompt).
        mask: 1 where they are no padding, (pairs, longest prompt).
        inputs: ids that the decoder reads: the start token and all targets but the last, (pairs, most targets).
        index: where in `inputs`, as one row, a target is predicted, (targets,).
        labels: the targets, (targets,).
        sizes: the number of targets of each pair.
    """

    sources: Tensor
    mask: Tensor
    inputs: Tensor
    index: Tensor
    labels: Tensor
    sizes: tuple[int, ...]

    def to(self, device: torch.device) -> PaddedPairs:
        """The same batch on a device."""
        names = ("sources", "mask", "inputs", "index", "labels")
        return replace(self, **{name: getattr(self, name).to(device) for name in names})


def pad_pairs(pairs: Sequence[Pair], *, start: int, padding: int) -> PaddedPairs:
    """Pad pairs to one batch; neither part of one may be empty.

    Args:
        pairs: what the encoder reads and what the decoder is to write.
        start: the token that the decoder begins with.
        padding: the id to pad with; it is read by no token that counts.
    """
    sources = [torch.tensor(list(given)) for given, _ in pairs]
    inputs = [torch.tensor([start, *targets][:-1]) for _, targets in pairs]
    width = max(map(len, inputs))
    rows = [torch.arange(len(each)) + number * width for number, each in enumerate(inputs)]
    return PaddedPairs(
        pad_sequence(sources, batch_first=True, padding_value=padding),
        pad_sequence([torch.ones_like(source) for source in sources], batch_first=True),
        pad_sequence(inputs, batch_first=True, padding_value=padding),
        torch.cat(rows),
        torch.tensor([token for _, targets in pairs for token in targets]),
        tuple(len(targets) for _, targets in pairs),
    )


def fill_batches(lengths: Sequence[tuple[int, int]], limit: int) -> Iterator[list[int]]:
    """Indices of pairs, batch by batch, each at most `limit` tokens with its padding unless one pair is longer.

    Args:
        lengths: the tokens of both parts of each pair. The longest come first, as they do in packed rows.
        limit: tokens of both sides of a batch.
    """
    batch: list[int] = []
    widths = (0, 0)
    for number in sorted(range(len(lengths)), key=lambda number: (-sum(lengths[number]), lengths[number], number)):
        wider = (max(widths[0], lengths[number][0]), max(widths[1], lengths[number][1]))
        if batch and (len(batch) + 1) * sum(wider) > limit:
            yield batch
            batch, wider = [], lengths[number]
        batch.append(number)
        widths = wider
    if batch:
        yield batch


class PairedModel:
    """An encoder-decoder model called on padded pairs; a `luthier_models.batching.BatchedModel`.

    Args:
        model: the model; with LoRA layers injected or not.

    Raises:
        InputError: if its configuration names no token that the decoder starts with.
    """

    isolates_documents = True
    """Pairs never see each other."""

    shares_beginnings = takes_segments = False
    """An encoder reads every prompt whole, so that no two have a beginning of the same states."""

    row_tokens = 2048
    """With its padding. Batches that are larger gain nothing on a CPU, and memory for activations stays bounded."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model
        self._start = start_token(model)
        padding = cast("Any", model.config).pad_token_id
        self._padding = self._start if padding is None else int(padding)

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.model.device

    def hidden(self, batch: PaddedPairs) -> Tensor:
        """The hidden states that predict the targets, as the output layer reads them: (targets, width)."""
        model: Any = self.model
        read = model.get_encoder()(input_ids=batch.sources, attention_mask=batch.mask).last_hidden_state
        states: Tensor = model.get_decoder()(
            input_ids=batch.inputs, encoder_hidden_states=read, encoder_attention_mask=batch.mask, use_cache=False
        ).last_hidden_state
        selected = states.flatten(0, 1)[batch.index]
        # T5 with one embedding on both ends scales what it gives to the output layer.
        scaled = getattr(model.config, "scale_decoder_outputs", False)
        return selected * selected.shape[-1] ** -0.5 if scaled else selected

    def logits(self, batch: PaddedPairs) -> Tensor:
        """The logits that predict the targets: (targets, vocabulary)."""
        return self._all_logits(batch) if self.head is None else self.head(self.hidden(batch))

    @cached_property
    def head(self) -> Head | None:
        """The output layer, if hidden states through it are the model's logits (measured once); else None."""
        layer: Any = cast("Any", self.model).get_output_embeddings()
        if layer is None:
            return None
        vocabulary = int(layer.weight.shape[0])
        given, targets = ([token % vocabulary for token in part] for part in PROBE)
        batch = self._padded([(given, targets)])
        with asking(self.model):
            return layer if same_logits(layer(self.hidden(batch)), self._all_logits(batch)) else None

    def rows(
        self, pairs: Sequence[Pair], limit: int, *, shared: bool | None = None
    ) -> Iterator[tuple[list[int], PaddedPairs]]:
        """Pairs in batches of at most `limit` tokens: the pairs' indices and the batch, on the device.

        Args:
            pairs: what the encoder reads, and what the decoder is to write.
            limit: tokens of both sides with their padding; a longer pair is a batch of its own.
            shared: nothing can be.

        Raises:
            ValueError: if beginnings are to be shared.
        """
        if shared:
            raise ValueError("an encoder-decoder shares no beginnings")
        for members in fill_batches([(len(given), len(targets)) for given, targets in pairs], limit):
            yield members, self._padded([pairs[number] for number in members])

    def _padded(self, pairs: Sequence[Pair]) -> PaddedPairs:
        return pad_pairs(pairs, start=self._start, padding=self._padding).to(self.device)

    def _all_logits(self, batch: PaddedPairs) -> Tensor:
        output = cast("Any", self.model)(
            input_ids=batch.sources, attention_mask=batch.mask, decoder_input_ids=batch.inputs, use_cache=False
        )
        logits: Tensor = output.logits.flatten(0, 1)[batch.index]
        return logits


def start_token(model: PreTrainedModel) -> int:
    """The token that the decoder of a model starts with.

    Raises:
        InputError: if neither configuration of the model names it.
    """
    for source in (model.config, model.generation_config):
        token = getattr(source, "decoder_start_token_id", None)
        if token is not None:
            return int(token)
    raise InputError(
        "the model does not say which token its decoder starts with (`decoder_start_token_id`)",
        "Add it to config.json: for T5 and Marian it is that of padding, for BART the end token.",
    )
