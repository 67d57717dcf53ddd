"""(IA)³ (Liu et al., 2022, arXiv:2205.05638) with peft: learnt factors for what single layers read or give."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from peft import IA3Config, get_peft_model
from peft.utils.constants import (
    TRANSFORMERS_MODELS_TO_IA3_FEEDFORWARD_MODULES_MAPPING,
    TRANSFORMERS_MODELS_TO_IA3_TARGET_MODULES_MAPPING,
)

from luthier import InputError
from luthier_models.loading import load_causal_lm
from luthier_models.prompts import PromptEncoder
from luthier_tune.adapters import merging_student
from luthier_tune.loss import CompletionLoss
from luthier_tune.processes import in_processes
from luthier_tune.targets import adaptable, check_names
from luthier_tune.task import Student, check_start, fit, read_examples

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from luthier import Context, Dataset, Model
    from luthier_tune.options import Training


@dataclass(frozen=True, kw_only=True)
class FactorSettings:
    """Which layers get factors; see `luthier_tune.ia3`."""

    targets: Literal["auto"] | list[str] = "auto"
    feedforward: list[str] = field(default_factory=list)


@in_processes
def tune(model: Model, data: Dataset, ctx: Context, factors: FactorSettings, settings: Training) -> None:
    """Train factors on the data, and write the model with them multiplied in to `ctx.output`.

    Raises:
        InputError: if the budget, the data, the device or the layers cannot be used, or training diverges.
    """
    check_start(settings, ctx)
    train, valid = read_examples(data, PromptEncoder.from_directory(model.path), settings, ctx.seed)
    student = rescaled_student(model, factors, ctx)
    fit(student, CompletionLoss(student.packed), train, valid, settings=settings, ctx=ctx)
    student.write_to(ctx.output, settings)


def rescaled_student(model: Model, factors: FactorSettings, ctx: Context) -> Student:
    """The model with factors to be trained, which start at one.

    Raises:
        InputError: if the device or the layers cannot be used.
    """
    base: Any = load_causal_lm(model.path, device=ctx.device)
    targets, feedforward = _chosen(base, factors)
    config = IA3Config(target_modules=targets, feedforward_modules=feedforward, task_type="CAUSAL_LM")
    return merging_student(base, get_peft_model(base, config), model, ctx)


def _chosen(model: PreTrainedModel, factors: FactorSettings) -> tuple[list[str], list[str]]:
    """The names of the layers that get factors, and of those whose inputs get them."""
    layers = list(adaptable(model))
    if factors.targets != "auto":
        check_names(factors.targets, layers, what="targets")
        return factors.targets, factors.feedforward
    kind = str(model.config.model_type)
    if kind not in TRANSFORMERS_MODELS_TO_IA3_TARGET_MODULES_MAPPING:
        raise InputError(
            f"which layers (IA)³ is for in a model of the kind {kind!r} is not known",
            "Name them: the projections to keys and values and the last of each MLP as `targets`, the last also as "
            f"`feedforward`. There are: {', '.join(sorted({layer.rpartition('.')[2] for layer in layers}))}.",
        )
    targets = TRANSFORMERS_MODELS_TO_IA3_TARGET_MODULES_MAPPING[kind]
    return targets, TRANSFORMERS_MODELS_TO_IA3_FEEDFORWARD_MODULES_MAPPING[kind]
