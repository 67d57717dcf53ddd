"""The damage: how far a pruned model's distributions are from those of the model as it was."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.nn.functional import cross_entropy

from luthier_models.batching import batched
from luthier_tune.distillation import divergence
from luthier_tune.loss import CHUNK, states_and_head

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from luthier import Context
    from luthier_models.batching import Batch, BatchedModel
    from luthier_models.packing import Pair


@dataclass(frozen=True)
class Damage:
    """What was measured of a model, by example.

    Attributes:
        divergences: the mean Kullback-Leibler divergence over an example's targets, in nats.
        losses: the mean cross entropy of them, in nats.
        sizes: the targets of each.
    """

    divergences: tuple[float, ...]
    losses: tuple[float, ...]
    sizes: tuple[int, ...]

    @property
    def mean_kl(self) -> float:
        """Nats a token."""
        return self._mean(self.divergences)

    @property
    def perplexity(self) -> float:
        """Of the targets; infinite where it is too large for a number."""
        loss = self._mean(self.losses)
        return math.exp(loss) if loss < 700 else math.inf

    def record(self, ctx: Context, *, before: Damage) -> None:
        """The metrics, example by example, so that a gate can give them an interval."""
        ctx.metric("mean_kl", self.mean_kl, per_example=self.divergences, weights=self.sizes)
        for name, damage in (("perplexity_before", before), ("perplexity", self)):
            ctx.metric(name, damage.perplexity, per_example=damage.losses, weights=damage.sizes, aggregate="exp-mean")

    def _mean(self, values: Sequence[float]) -> float:
        return math.fsum(v * n for v, n in zip(values, self.sizes, strict=True)) / sum(self.sizes)


class Yardstick:
    """What other models are held against: the model as it was, on some examples.

    Its hidden states are kept, 4 bytes times the width for each target, so that a measurement runs one model.

    Args:
        model: the model as it was; it may not change afterwards.
        pairs: the examples.
    """

    def __init__(self, model: PreTrainedModel, pairs: Sequence[Pair]) -> None:
        packed = batched(model)
        self._rows: list[tuple[list[int], Batch]] = list(packed.rows(pairs, packed.row_tokens))
        with torch.inference_mode():
            kept = [states_and_head(packed, row) for _, row in self._rows]
        self._states = [states for states, _ in kept]
        self._head = kept[0][1]
        losses = [self._losses(row, states) for (_, row), states in zip(self._rows, self._states, strict=True)]
        self.before = self._damage([torch.zeros_like(each) for each in losses], losses)

    def damage(self, model: PreTrainedModel) -> Damage:
        """Measure a model of the same tokens."""
        packed = batched(model)
        rows = zip(self._rows, self._states, strict=True)
        measured = [self._compare(packed, row, states) for (_, row), states in rows]
        return self._damage([kl for kl, _ in measured], [loss for _, loss in measured])

    def by_target(self, measure: Callable[[Tensor], Tensor]) -> list[Tensor]:
        """A number for each target, row by row, of the unpruned model's logits (targets, vocabulary)."""
        with torch.inference_mode():
            return [
                torch.cat([measure(self._head(part).float()) for part in torch.split(states, CHUNK)])
                for states in self._states
            ]

    def by_example(self, values: Sequence[Tensor]) -> tuple[list[float], list[int]]:
        """The mean of such numbers for each example, and how many there were."""
        found: dict[int, tuple[float, int]] = {}
        for (members, row), of_row in zip(self._rows, values, strict=True):
            for member, part in zip(members, torch.split(of_row.double(), list(row.sizes)), strict=True):
                found[member] = (float(part.mean()), len(part))
        return [found[number][0] for number in sorted(found)], [found[number][1] for number in sorted(found)]

    @property
    def targets(self) -> int:
        """How many tokens are predicted."""
        return sum(len(row.labels) for _, row in self._rows)

    def _losses(self, row: Batch, states: Tensor) -> Tensor:
        """The unpruned model's cross entropy at each target of a row."""
        with torch.inference_mode():
            parts = zip(torch.split(states, CHUNK), torch.split(row.labels, CHUNK), strict=True)
            return torch.cat([cross_entropy(self._head(a).float(), b, reduction="none") for a, b in parts])

    def _compare(self, packed: BatchedModel, row: Batch, reference: Tensor) -> tuple[Tensor, Tensor]:
        """Divergence and cross entropy at each target of a row."""
        kl: list[Tensor] = []
        loss: list[Tensor] = []
        with torch.inference_mode():
            states, head = states_and_head(packed, row)
            parts = zip(*(torch.split(each, CHUNK) for each in (states, reference, row.labels)), strict=True)
            for ours, theirs, labels in parts:
                logits = head(ours).float()
                kl.append(divergence(logits, self._head(theirs).float(), 1.0))
                loss.append(cross_entropy(logits, labels, reduction="none"))
        return torch.cat(kl), torch.cat(loss)

    def _damage(self, divergences: Sequence[Tensor], losses: Sequence[Tensor]) -> Damage:
        means, sizes = self.by_example(divergences)
        return Damage(tuple(means), tuple(self.by_example(losses)[0]), tuple(sizes))
