"""Training of all weights."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from luthier_models.loading import load_by_config
from luthier_models.prompts import PromptEncoder
from luthier_tune.lean import lean_or_plain
from luthier_tune.loss import CompletionLoss
from luthier_tune.processes import in_processes
from luthier_tune.sharding import check_sharding, loading_device, sharded
from luthier_tune.task import Student, check_start, copy_companions, fit, read_examples

if TYPE_CHECKING:
    import logging

    from luthier import Context, Dataset, Model
    from luthier_tune.options import Fsdp, Training


@in_processes
def tune(model: Model, data: Dataset, ctx: Context, *, fsdp: Fsdp | None, settings: Training) -> None:
    """Train every weight on the data, and write the model to `ctx.output`.

    Raises:
        InputError: if the budget, the data or the device cannot be used, or training diverges.
    """
    check_start(settings, ctx)
    check_sharding(fsdp, ctx)
    train, valid = read_examples(data, PromptEncoder.from_directory(model.path), settings, ctx.seed)
    student = sharded(whole_student(model, loading_device(fsdp, ctx), ctx.log), fsdp, ctx)
    fit(student, CompletionLoss(student.packed), train, valid, settings=settings, ctx=ctx)
    student.write_to(ctx.output, settings)


def whole_student(model: Model, device: str, log: logging.Logger) -> Student:
    """The model, on a device, with every weight to be trained."""
    # Weights of half precision would lose most of the small steps that training takes.
    whole: Any = load_by_config(model.path, device=device, dtype="float32")
    whole.requires_grad_(True)

    def write(directory: Path) -> None:
        whole.save_pretrained(directory)
        copy_companions(model.path, directory)

    # A tied embedding is named once.
    return Student(lean_or_plain(whole, log), dict(whole.named_parameters()), write)
