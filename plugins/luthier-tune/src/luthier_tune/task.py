"""What every tuner does around its training: read the examples, note what happened, keep what is no weight."""

from __future__ import annotations

import json
import logging
import math
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import polars as pl

from luthier import InputError
from luthier_models.heads import is_classifier
from luthier_models.loading import resolve_device
from luthier_models.prompts import read_context
from luthier_tune.checkpoint import explained_full_disk
from luthier_tune.examples import Examples, encode_split
from luthier_tune.options import check_budget
from luthier_tune.training import Trainer

if TYPE_CHECKING:
    from torch.nn import Parameter

    from luthier import Context, Dataset
    from luthier_models.batching import BatchedModel
    from luthier_models.prompts import PromptEncoder
    from luthier_tune.course import Course
    from luthier_tune.loss import CompletionLoss
    from luthier_tune.options import Training

_log = logging.getLogger("luthier.component.tune")


@dataclass(frozen=True)
class Student:
    """A model that is about to be trained.

    Attributes:
        packed: the model.
        parameters: what of it is trained, by name.
        write: writes the model into a directory, as later steps read it; after it, the model is used up.
        rate_of: how many times the learning rate the parameter of a name learns at; once, if not given.
        whole: if the parameters are parts of a model that is cut: those of the model that is written, by the same
            names, which get the values in the end; none in processes but the first. None if they are the same.
    """

    packed: BatchedModel
    parameters: Mapping[str, Parameter]
    write: Callable[[Path], None]
    rate_of: Callable[[str], float] | None = None
    whole: Mapping[str, Parameter] | None = None

    def write_to(self, directory: Path, settings: Training) -> None:
        """Write the model; a classifier is to read texts as far as it did in training. On a full disk, say so.

        Raises:
            LuthierError: if the disk is full.
        """
        with explained_full_disk("the tuned model", directory):
            self.write(directory)
            if is_classifier(self.packed.model):
                _note_length(directory, settings.max_length)


def fit(
    student: Student,
    objective: CompletionLoss,
    train: Examples,
    valid: Examples,
    *,
    settings: Training,
    ctx: Context,
    aside: float = 0.0,
) -> None:
    """Train the student by an objective until the budget is used up, and note what happened.

    Args:
        student: the model.
        objective: what it minimises.
        train, valid: the examples.
        settings: the configuration.
        ctx: checkpoints, metrics and tables.
        aside: seconds that the caller measured for before, and will again afterwards; a budget in minutes has them.

    Raises:
        InputError: if training diverges.
    """
    trainer = Trainer(
        objective,
        student.parameters,
        train.pairs,
        valid.pairs,
        settings=settings,
        ctx=ctx,
        rate_of=student.rate_of,
        aside=aside,
        whole=student.whole,
    )
    trainer.run()
    record(trainer.course, train, ctx)
    last = trainer.course.last
    if last is not None:
        ctx.metric("valid_loss", last.mean, per_example=last.means, weights=last.sizes)
    objective.module.eval()


def copy_companions(source: Path, target: Path) -> None:
    """Copy the tokenizer, chat template and generation configuration: whatever is no weight."""
    for path in sorted(source.iterdir()):
        if path.is_file() and ".safetensors" not in path.name and path.name != "config.json":
            shutil.copyfile(path, target / path.name)


def _note_length(directory: Path, max_length: int) -> None:
    """Let a tokenizer tell of how many tokens its classifier reads; transformers knows it as `model_max_length`."""
    context = read_context(directory)
    path = directory / "tokenizer_config.json"
    record = json.loads(path.read_text(encoding="utf-8"))
    record["model_max_length"] = max_length if context is None else min(max_length, context)
    path.write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def check_start(settings: Training, ctx: Context) -> None:
    """Refuse what can be known before anything is read.

    Raises:
        InputError: if the settings do not go together, or the device is not there.
    """
    check_budget(**vars(settings))
    resolve_device(ctx.device)


def read_examples(data: Dataset, encoder: PromptEncoder, settings: Training, seed: int) -> tuple[Examples, Examples]:
    """The training examples, and those that the validation loss is measured on.

    No example is longer than the model's context, whatever `max_length` says.

    Raises:
        InputError: if there is nothing to train on.
    """
    max_length = fitting_length(encoder, settings.max_length)
    train = encode_split(data, "train", encoder, max_length)
    why = f"their completions are empty, or longer than {max_length} tokens with their prompt's template"
    if data.form == "classification":
        why = "they have no text or no label"
    check_usable(len(train.pairs), train.skipped, why)
    valid = encode_split(data, "valid", encoder, max_length, limit=settings.valid_examples, seed=seed)
    return train, valid


def fitting_length(encoder: PromptEncoder, max_length: int) -> int:
    """The length that an example may have: `max_length`, or that of the model's context, which the log then says."""
    if encoder.context is None or encoder.context >= max_length:
        return max_length
    _log.warning(
        "max_length is %d, and the model has positions for %d tokens only: that is the length that counts",
        max_length,
        encoder.context,
    )
    return encoder.context


def check_usable(usable: int, skipped: int, why: str) -> None:
    """Refuse to train on nothing, and say what is left out.

    Args:
        usable: how many training examples can be used.
        skipped: how many cannot.
        why: what is the matter with those.

    Raises:
        InputError: if none can be used.
    """
    count = usable + skipped
    if not count:
        raise InputError(
            "the dataset has no rows in the split `train`",
            "Check what cleaning left over and how the formatter splits it.",
        )
    if not usable:
        raise InputError(
            f"none of the {count} training examples can be used: {why}",
            "Check what the formatter makes, or raise `max_length` as far as the model's context allows.",
        )
    if skipped:
        _log.warning("%d of %d training examples are left out: %s", skipped, count, why)


class Encoded(Protocol):
    """Examples of which some could not be used as they were."""

    @property
    def skipped(self) -> int:
        """How many are left out."""

    @property
    def shortened(self) -> int:
        """How many prompts lost their end."""


def record(course: Course[Any], train: Encoded, ctx: Context) -> None:
    """Metrics and tables of what happened."""
    progress = course.progress
    curve = progress.curve
    # The end of training: its last tenth, so that one batch does not decide.
    end = curve[-max(1, math.ceil(len(curve) / 10)) :]
    ctx.metric("train_loss", math.fsum(record["loss"] for record in end) / len(end))
    ctx.metric("steps", progress.step)
    if progress.total is not None and progress.total != progress.step:
        ctx.metric("planned_steps", progress.total)  # what `max_steps` must be for the same bytes again
    ctx.metric("tokens", sum(record["tokens"] for record in curve))
    ctx.metric("examples", sum(record["examples"] for record in curve))
    ctx.metric("skipped_examples", train.skipped)
    ctx.metric("shortened_examples", train.shortened)
    if progress.validation:
        ctx.metric("valid_loss_before", progress.validation[0]["loss"])
        ctx.metric("kept_step", course.kept_step)
        ctx.table("validation-losses", _frame(progress.validation))
    ctx.table("learning-curve", _frame(curve))


def _frame(records: list[dict[str, float]]) -> pl.DataFrame:
    whole = [name for name in ("step", "tokens", "examples") if name in records[0]]
    return pl.DataFrame(records).with_columns(pl.col(whole).cast(pl.Int64))
