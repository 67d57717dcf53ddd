"""The implicit rewards of answers: what training made likelier, measured on packed rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import torch

from luthier_tune.loss import target_losses

if TYPE_CHECKING:
    from peft import PeftModel

    from luthier_models.packing import PackedModel, Pair
    from luthier_preference.examples import Answers


@dataclass(frozen=True)
class Rewards:
    """The rewards of validation examples at one moment, in nats times beta.

    Attributes:
        preferred: those of the preferred, or liked, answers.
        others: those of the rejected, or disliked, ones; of pairs in the same order.
        paired: whether they are of pairs.
    """

    preferred: list[float]
    others: list[float]
    paired: bool

    @property
    def margins(self) -> list[float]:
        """Of pairs, by how much each preferred answer is ahead."""
        return [ahead - behind for ahead, behind in zip(self.preferred, self.others, strict=True)]

    @property
    def margin(self) -> float:
        """By how much the preferred ones are ahead, on average."""
        return mean(self.preferred) - mean(self.others)

    def summary(self) -> dict[str, float]:
        """What is noted of it: the mean loss, the margin and the accuracy."""
        return {"loss": mean(self.losses), "reward_margin": self.margin, "reward_accuracy": mean(self.wins)}

    @property
    def wins(self) -> list[float]:
        """For each pair, or each liked answer against all disliked ones, the share that it wins; a tie is half."""
        if self.paired:
            return [_win(margin) for margin in self.margins]
        return [mean([_win(ahead - behind) for behind in self.others]) for ahead in self.preferred]

    @property
    def losses(self) -> list[float]:
        """Of pairs, the DPO loss of each; else that of each liked answer against all disliked ones, on average.

        It is the negative logarithm of the probability of what was preferred, in nats.
        """
        if self.paired:
            return [_loss(margin) for margin in self.margins]
        return [mean([_loss(ahead - behind) for behind in self.others]) for ahead in self.preferred]


def mean(values: Sequence[float]) -> float:
    """The mean; NaN of nothing."""
    return math.fsum(values) / len(values) if values else math.nan


def _win(margin: float) -> float:
    return 0.5 if margin == 0 else float(margin > 0)


def _loss(margin: float) -> float:
    return max(-margin, 0.0) + math.log1p(math.exp(-abs(margin)))


class RewardMeter:
    """Measures rewards on examples: the adapted model against itself without its adapters.

    Args:
        adapted: the model with adapters.
        packed: the same model, on packed rows.
        examples: pairs, or answers by themselves.
        beta: what differences of log-probabilities are multiplied by.
    """

    def __init__(self, adapted: PeftModel, packed: PackedModel, examples: Sequence[Answers], beta: float) -> None:
        self._adapted = adapted
        self._packed = packed
        self._examples = examples
        self._beta = beta

    @cached_property
    def _reference(self) -> list[float]:
        with self._adapted.disable_adapter():
            return self._log_probabilities()

    def measure(self) -> Rewards:
        """The rewards as the adapters are now."""
        now = self._log_probabilities()
        rewards = [self._beta * (new - old) for new, old in zip(now, self._reference, strict=True)]
        if any(len(each.completions) > 1 for each in self._examples):
            return Rewards(rewards[::2], rewards[1::2], paired=True)
        liked = [each.liked for each in self._examples]
        return Rewards(
            [reward for reward, like in zip(rewards, liked, strict=True) if like],
            [reward for reward, like in zip(rewards, liked, strict=True) if not like],
            paired=False,
        )

    def _log_probabilities(self) -> list[float]:
        """Of each answer, summed over its tokens; of a pair first the preferred one's."""
        pairs: list[Pair] = [pair for each in self._examples for pair in each.pairs]
        found = [0.0] * len(pairs)
        training = self._adapted.training
        self._adapted.eval()
        packed = self._packed
        for members, row in packed.rows(pairs, packed.row_tokens, shared=packed.takes_segments):
            parts: Sequence[torch.Tensor] = torch.split(target_losses(packed, row), list(row.sizes))
            for member, losses in zip(members, parts, strict=True):
                found[member] = -float(losses.double().sum())
        self._adapted.train(training)
        return found
