"""Knowledge distillation: a student learns a teacher's distributions over the next token.

The forward Kullback-Leibler divergence of softened distributions, mixed with the cross entropy of the data (Hinton,
Vinyals and Dean, 2015, arXiv:1503.02531).
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.nn.functional import cross_entropy, kl_div, log_softmax

from luthier import InputError
from luthier_models.batching import batched
from luthier_models.loading import load_by_config
from luthier_models.prompts import PromptEncoder, load_tokenizer, vocabularies
from luthier_tune.adapters import adapted_student
from luthier_tune.loss import CHUNK, CompletionLoss, chunked_sum, states_and_head
from luthier_tune.processes import in_processes
from luthier_tune.task import check_start, fit, read_examples
from luthier_tune.whole import whole_student

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from luthier import Context, Dataset, Model
    from luthier_models.batching import Batch, BatchedModel
    from luthier_models.packing import Pair
    from luthier_tune.adapters import AdapterSettings
    from luthier_tune.options import Training


@dataclass(frozen=True, kw_only=True)
class Mixture:
    """What the student learns of the teacher; see `luthier_tune.distill`."""

    temperature: float
    teacher_weight: float


@in_processes
def tune(
    model: Model,
    teacher: Model,
    data: Dataset,
    ctx: Context,
    *,
    mixture: Mixture,
    adapter: AdapterSettings | None,
    settings: Training,
) -> None:
    """Train the model on the data and towards the teacher, and write it to `ctx.output`.

    Raises:
        InputError: if the teacher reads other tokens, the budget, the data or the device cannot be used, or
            training diverges.
    """
    check_start(settings, ctx)
    check_vocabularies(model.path, teacher.path)
    train, valid = read_examples(data, PromptEncoder.from_directory(model.path), settings, ctx.seed)
    student = adapted_student(model, adapter, ctx, ctx.device) if adapter else whole_student(model, ctx.device, ctx.log)
    guide = batched(load_by_config(teacher.path, device=ctx.device))
    objective = DistillationLoss(student.packed, guide, mixture)
    # Before a checkpoint is loaded, so that a run that goes on tells the same.
    began = time.monotonic()
    _note_divergence("teacher_kl_before", objective, valid.pairs, ctx)
    aside = time.monotonic() - began
    fit(student, objective, train, valid, settings=settings, ctx=ctx, aside=aside)
    _note_divergence("teacher_kl", objective, valid.pairs, ctx)
    student.write_to(ctx.output, settings)


def check_vocabularies(model: Path, teacher: Path) -> None:
    """Refuse a teacher for which some of the model's tokens are others.

    Raises:
        InputError: naming the first of them, and the two vocabularies' sizes.
    """
    ours, theirs = (vocabularies(load_tokenizer(each)) for each in (model, teacher))
    _check_vocabulary(ours[0], theirs[0], "")
    # Where one of the two has a table of its own for what it writes, so that the losses are of these.
    if len(ours) + len(theirs) > 2:
        _check_vocabulary(ours[-1], theirs[-1], " of what is written")


def _check_vocabulary(ours: Mapping[str, int], theirs: Mapping[str, int], which: str) -> None:
    strange = sorted((number, token) for token, number in ours.items() if theirs.get(token) != number)
    if not strange:
        return
    number, token = strange[0]
    its = {number: token for token, number in theirs.items()}.get(number)
    there = "is none" if its is None else f"is {its!r}"
    raise InputError(
        f"the teacher has another vocabulary{which} than the model: {len(strange)} of the model's {len(ours)} tokens "
        f"are others among the teacher's {len(theirs)} (number {number} is {token!r} here, and there it {there})",
        "Distil from a model with the same tokenizer: one of the same family, or the model before it was pruned.",
    )


def divergence(logits: Tensor, of_teacher: Tensor, temperature: float) -> Tensor:
    """The Kullback-Leibler divergence of the student from the teacher at each target, in nats, (targets,).

    Of models of one family some have rows for tokens that do not exist, to make a round number: what only one of
    the two has is left out.

    Args:
        logits: the student's, (targets, vocabulary).
        of_teacher: the teacher's, likewise.
        temperature: what logits are divided by.
    """
    shared = min(logits.shape[1], of_teacher.shape[1])
    ours, theirs = (log_softmax(each[:, :shared] / temperature, dim=1) for each in (logits, of_teacher))
    return kl_div(ours, theirs, reduction="none", log_target=True).sum(1)


class DistillationLoss(CompletionLoss):
    """Cross entropy, and the divergence from a teacher times the temperature's square; validated by cross entropy.

    The square keeps the gradients of both of one size whatever the temperature.

    Args:
        packed: the student.
        teacher: a model of the same vocabulary; it does not learn.
        mixture: the temperature, and the weights of both.
    """

    def __init__(self, packed: BatchedModel, teacher: BatchedModel, mixture: Mixture) -> None:
        super().__init__(packed)
        self._teacher = teacher
        self._mixture = mixture

    def batches(self, examples: Sequence[Pair]) -> Iterator[tuple[list[int], Batch]]:
        """Batches of examples that do not see each other, in the student or in the teacher."""
        limit = self.packed.row_tokens if self._teacher.isolates_documents else 0
        shared = self.packed.shares_beginnings and self._teacher.takes_segments
        return self.packed.rows(examples, limit, shared=shared)

    def loss(self, batch: Batch) -> Tensor:
        """The summed mixture, in nats."""
        weight, temperature = self._mixture.teacher_weight, self._mixture.temperature
        with torch.no_grad():
            given, teacher_head = states_and_head(self._teacher, batch)
        states, head = states_and_head(self.packed, batch)

        def chunk_loss(part: Tensor, chunk: slice) -> Tensor:
            with torch.no_grad():
                of_teacher = teacher_head(given[chunk]).float()
            logits = head(part).float()
            loss = weight * temperature**2 * divergence(logits, of_teacher, temperature).sum()
            if weight < 1:
                loss = loss + (1 - weight) * cross_entropy(logits, batch.labels[chunk], reduction="sum")
            return loss

        return chunked_sum(states, head, chunk_loss)

    def divergences(self, examples: Sequence[Pair]) -> list[Tensor]:
        """The divergence from the teacher at each target, by example, without temperature or gradients."""
        self.module.eval()
        found: dict[int, Tensor] = {}
        for members, row in self.batches(examples):
            with torch.inference_mode():
                given, teacher_head = states_and_head(self._teacher, row)
                states, head = states_and_head(self.packed, row)
                parts = zip(torch.split(states, CHUNK), torch.split(given, CHUNK), strict=True)
                values = torch.cat([divergence(head(a).float(), teacher_head(b).float(), 1.0) for a, b in parts])
            found |= zip(members, torch.split(values, list(row.sizes)), strict=True)
        return [found[number] for number in range(len(examples))]


def _note_divergence(name: str, objective: DistillationLoss, examples: Sequence[Pair], ctx: Context) -> None:
    if examples:
        found = objective.divergences(examples)
        means, sizes = [float(each.double().mean()) for each in found], [len(each) for each in found]
        mean = sum(m * n for m, n in zip(means, sizes, strict=True)) / sum(sizes)
        ctx.metric(name, mean, per_example=means, weights=sizes)
