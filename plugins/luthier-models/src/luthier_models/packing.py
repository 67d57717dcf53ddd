"""Packing: several documents in one row of tokens, none seeing another, and the head only where needed.

A row concatenates documents; position ids restart at each. transformers reads the borders off the
position ids and masks attention block by block, but only where it is given no attention mask and no
cache: with `use_cache=True`, or a mask of ones, documents silently see each other. `PackedModel` is the
one place that calls a model so, and it measures on the loaded model that documents are kept apart.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

import torch

from luthier_models import attention
from luthier_models.heads import is_classifier, output_layer
from luthier_models.segments import SHORTEST, Segment, fill_shared_rows, separate, share

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

Pair = tuple[Sequence[int], Sequence[int]]
"""Given ids and the ids that are to be predicted after them."""

Head = Callable[["Tensor"], "Tensor"]

_ISOLATION_TOLERANCE = 1e-3

SIDE_BY_SIDE_TOKENS = 4096
"""A model that runs its documents side by side (a recurrent one) wants many of them: its rows have so many tokens."""


@dataclass(frozen=True)
class Row:
    """Documents packed into one row.

    Attributes:
        ids: token ids, (tokens,). The last token of each document predicts nothing and is left out.
        positions: the position of each token in its document, (tokens,).
        index: the positions in the row that predict a target, (targets,).
        labels: the targets, (targets,).
        segments: the runs of tokens that attention treats as one: documents, or shared parts of them.
        sizes: the number of targets of each document.
        states: what the model starts from in place of the embeddings of `ids`, (tokens, width).
    """

    ids: Tensor
    positions: Tensor
    index: Tensor
    labels: Tensor
    segments: tuple[Segment, ...]
    sizes: tuple[int, ...]
    states: Tensor | None = None

    def to(self, device: torch.device) -> Row:
        """The same row on a device."""
        moved = {name: getattr(self, name).to(device) for name in ("ids", "positions", "index", "labels")}
        return replace(self, **moved)


def pack(pairs: Sequence[Pair], *, shared: bool = False, shortest: int = SHORTEST) -> Row:
    """Pack pairs into one row; targets are the second of each pair. Neither part may be empty.

    Args:
        pairs: what is given, and what is to be predicted.
        shared: whether beginnings that pairs have in common are in the row once.
        shortest: the tokens that such a beginning has at least.
    """
    documents = [[*given, *targets][:-1] for given, targets in pairs]
    forest = share(documents, shortest) if shared else separate(documents)
    starts: list[int] = []
    ids: list[int] = []
    positions: list[int] = []
    for document, start, end in forest.sources:
        starts.append(len(ids))
        ids += documents[document][start:end]
        positions += range(start, end)
    index: list[int] = []
    labels: list[int] = []
    for (given, targets), path in zip(pairs, forest.paths, strict=True):
        places = [place for s in path for place in range(starts[s], starts[s] + forest.segments[s].length)]
        index += places[len(given) - 1 :]
        labels += targets
    return Row(
        torch.tensor(ids),
        torch.tensor(positions),
        torch.tensor(index),
        torch.tensor(labels),
        forest.segments,
        tuple(len(targets) for _, targets in pairs),
    )


def fill_rows(lengths: Sequence[int], limit: int) -> Iterator[list[int]]:
    """Indices of documents, row by row, each at most `limit` tokens unless one document is longer.

    Documents of similar length share a row, longest first, so that the largest row comes first and
    running out of memory shows at once.
    """
    row: list[int] = []
    used = 0
    for number in sorted(range(len(lengths)), key=lambda number: (-lengths[number], number)):
        if row and used + lengths[number] > limit:
            yield row
            row, used = [], 0
        row.append(number)
        used += lengths[number]
    if row:
        yield row


class PackedModel:
    """A causal language model called on packed rows, or a classifier with such a body.

    A classifier predicts one target after each document, the number of its label, from the last token.

    Args:
        model: the model; with LoRA layers injected or not.
    """

    shares_beginnings = False
    """Whether documents of a row continue one copy of what they begin with."""

    row_tokens = 512
    """A batch longer than this is trained on in several rows, whose gradients are added up: products of matrices
    gain nothing from longer ones, and the memory for activations stays bounded."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model
        self._side_by_side = _takes_lengths(model)
        self._asks_segments = not self._side_by_side and attention.enable(model)

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.model.device

    @cached_property
    def takes_segments(self) -> bool:
        """Whether the model can be told of segments, and so of beginnings that are shared; measured.

        Some architectures (StableLM) take the argument and do not pass it on to attention.
        """
        if not self._asks_segments:
            return False
        pairs = [([1, 2, 3], [4]), ([1, 2, 5], [6])]
        with asking(self.model):
            shared = self.hidden(self._probe(pairs, shared=True))[-1]
            alone = self.hidden(self._probe(pairs[1:]))[-1]
        return self._alike(shared, alone)

    def hidden(self, row: Row) -> Tensor:
        """The hidden states that predict the targets: (targets, width)."""
        states = self.model.base_model(**self._inputs(row)).last_hidden_state
        selected: Tensor = states[0, row.index]
        return selected

    def logits(self, row: Row) -> Tensor:
        """The logits that predict the targets: (targets, vocabulary)."""
        if self.head is not None:
            return self.head(self.hidden(row))
        output: Tensor = self.model(**self._inputs(row), logits_to_keep=row.index).logits[0]
        return output

    def _inputs(self, row: Row) -> dict[str, Any]:
        """What the model is called with: no mask and no cache, or documents would see each other."""
        inputs: dict[str, Any] = {"position_ids": row.positions[None]}
        if row.states is None:
            inputs["input_ids"] = row.ids[None]
        else:
            inputs["inputs_embeds"] = row.states[None]
        if self._side_by_side:
            inputs["document_lengths"] = tuple(segment.length for segment in row.segments)
        elif self._asks_segments:
            inputs["segments"] = row.segments
        return {**inputs, "attention_mask": None, "use_cache": False}

    @cached_property
    def head(self) -> Head | None:
        """The output layer, if hidden states through it are the model's logits; else None.

        Some architectures scale or cap their logits after the layer; the model is asked itself, once.
        """
        layer = output_layer(self.model)
        if layer is None:
            return None
        classifies = is_classifier(self.model)
        # A classifier reads the last token that is no padding.
        given = [token for token in PROBE[0] if token != cast("Any", self.model.config).pad_token_id]
        row = self._probe([(given, [0])] if classifies else [PROBE])
        with asking(self.model):
            logits = self.model(**self._inputs(row)).logits
            expected = logits if classifies else logits[0, row.index]
            return layer if same_logits(layer(self.hidden(row)), expected) else None

    @cached_property
    def isolates_documents(self) -> bool:
        """Whether packed documents do not see each other in this model, measured on two of them.

        An architecture that carries a state along the row does not, unless it asks where documents end as
        ours of `recurrent` do; its documents must then go one to a row.
        """
        other = ([5, 3, 6], [4, 2])
        with asking(self.model):
            together = self.hidden(self._probe([other, PROBE]))[len(other[1]) :]
            alone = self.hidden(self._probe([PROBE]))
        return self._alike(together, alone)

    def rows(self, pairs: Sequence[Pair], limit: int, *, shared: bool | None = None) -> Iterator[tuple[list[int], Row]]:
        """Pack pairs into rows of at most `limit` tokens: the pairs' indices and the row, on the device.

        Args:
            pairs: what is given, and what is to be predicted.
            limit: a longer pair has a row of its own.
            shared: whether beginnings that pairs of a row have in common are computed once; `shares_beginnings`,
                if not given. Only a model that `takes_segments` computes such rows.
        """
        if self._side_by_side:
            limit = max(limit, SIDE_BY_SIDE_TOKENS)
        limit = limit if self.isolates_documents else 0
        shared = self.shares_beginnings if shared is None else shared
        documents = [[*given, *targets][:-1] for given, targets in pairs]
        groups = fill_shared_rows(documents, limit) if shared else fill_rows([len(each) for each in documents], limit)
        for members in groups:
            row = pack([pairs[number] for number in members], shared=shared)
            yield members, row.to(self.device)

    def _alike(self, got: Tensor, expected: Tensor) -> bool:
        """Whether hidden states are the same, but for rounding."""
        scale = float(expected.abs().max()) or 1.0
        tolerance = _ISOLATION_TOLERANCE if self.model.dtype == torch.float32 else 0.05
        return float((got - expected).abs().max()) <= tolerance * scale

    def _probe(self, pairs: Sequence[Pair], *, shared: bool = False) -> Row:
        vocabulary = int(cast("Any", self.model).get_input_embeddings().weight.shape[0])
        small = [([i % vocabulary for i in given], [i % vocabulary for i in targets]) for given, targets in pairs]
        return pack(small, shared=shared, shortest=2).to(self.device)


def _takes_lengths(model: PreTrainedModel) -> bool:
    """Whether the model asks for the documents' lengths by name, and keeps them apart by itself."""
    return "document_lengths" in inspect.signature(model.base_model.forward).parameters


@contextmanager
def asking(model: PreTrainedModel) -> Iterator[None]:
    """Without gradients and, whatever the model is busy with, without dropout."""
    training = model.training
    model.train(False)
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(training)


def same_logits(got: Tensor, expected: Tensor) -> bool:
    """Whether a shorter way gives a model's logits, but for rounding."""
    return got.shape == expected.shape and torch.allclose(got, expected, rtol=1e-3, atol=1e-3)


PROBE: Pair = ([1, 2, 3, 4], [5, 6, 7])
"""What a loaded model is asked with."""
