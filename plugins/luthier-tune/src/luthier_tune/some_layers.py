"""Training of some layers, in full or by adapters; what the layers below them give is computed once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from luthier import InputError
from luthier_models.heads import head_modules, is_classifier
from luthier_models.loading import load_by_config
from luthier_models.packing import PackedModel
from luthier_models.prompts import PromptEncoder
from luthier_tune.activations import ActivationCache
from luthier_tune.adapters import AdapterSettings, inject, save_merged
from luthier_tune.budget import known_steps
from luthier_tune.cached_loss import CachedLoss
from luthier_tune.distributed import Group
from luthier_tune.head_only import head_loss
from luthier_tune.lean import lean_or_plain
from luthier_tune.loss import CompletionLoss
from luthier_tune.options import no_head
from luthier_tune.processes import in_processes
from luthier_tune.split import SplitModel, layer_list, split
from luthier_tune.targets import adaptable, check_names, matches
from luthier_tune.task import Student, check_start, copy_companions, fit, read_examples

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from luthier import Context, Dataset, Model
    from luthier_models.batching import BatchedModel
    from luthier_models.packing import Pair
    from luthier_tune.activations import Precision
    from luthier_tune.options import Training


@dataclass(frozen=True, kw_only=True)
class LayerSettings:
    """What is trained, and how; see `luthier_tune.layers`."""

    top: int | None = None
    names: list[str] = field(default_factory=list)
    rank: int | None = None
    activations: Precision | Literal["recompute"] = "float16"


@in_processes
def tune(model: Model, data: Dataset, ctx: Context, chosen: LayerSettings, settings: Training) -> None:
    """Train the chosen layers on the data, and write the model to `ctx.output`.

    Raises:
        InputError: if the layers, the budget, the data, the device or the disk cannot be used, or training diverges.
    """
    check_start(settings, ctx)
    train, valid = read_examples(data, PromptEncoder.from_directory(model.path), settings, ctx.seed)
    student = partial_student(model, chosen, ctx)
    objective = objective_of(student, chosen, train.pairs, valid.pairs, settings=settings, ctx=ctx)
    fit(student, objective, train, valid, settings=settings, ctx=ctx)
    student.write_to(ctx.output, settings)


def objective_of(
    student: Student,
    chosen: LayerSettings,
    train: Sequence[Pair],
    valid: Sequence[Pair],
    *,
    settings: Training,
    ctx: Context,
) -> CompletionLoss:
    """What the student minimises: on kept activations where they are asked for and the model can be cut.

    Raises:
        InputError: if the disk has too little space for them.
    """
    if chosen.activations == "recompute":
        return CompletionLoss(student.packed)
    examples = [*train, *valid]
    model = student.packed.model
    # The head of a language model reads a row for each target, not for each example.
    alone = is_classifier(model) and not any(parameter.requires_grad for parameter in model.base_model.parameters())
    kept = partial(_on_head if alone else _on_layers, student.packed, examples, chosen.activations, ctx)
    # The first process makes the files; all of them write into them and read what any has written.
    found = Group.current().first_then_others(kept, student.packed.device)
    if found is None:
        return CompletionLoss(student.packed)
    objective, cache = found
    cache.require_space(_seen(len(train), settings) + len(valid))
    return objective


def partial_student(model: Model, chosen: LayerSettings, ctx: Context) -> Student:
    """The model with some layers to be trained.

    Raises:
        InputError: if the device or the layers cannot be used.
    """
    # Weights of half precision would lose most of the small steps that training takes; adapters are apart.
    base: Any = load_by_config(model.path, device=ctx.device, dtype="float32" if chosen.rank is None else "auto")
    names = chosen_modules(base, chosen)
    if chosen.rank is None:
        base.requires_grad_(False)
        for name in [*names, *head_modules(base)]:
            base.get_submodule(name).requires_grad_(True)
        save = base.save_pretrained
    else:
        adapter = AdapterSettings(rank=chosen.rank, targets=_linear_layers(base, names))
        save = partial(save_merged, inject(base, adapter, ctx.seed), base_model=model.hash)

    def write(directory: Path) -> None:
        save(directory)
        copy_companions(model.path, directory)

    return Student(
        lean_or_plain(base, ctx.log), {name: p for name, p in base.named_parameters() if p.requires_grad}, write
    )


def chosen_modules(model: PreTrainedModel, chosen: LayerSettings) -> list[str]:
    """The full names of the modules that are trained.

    Raises:
        InputError: if there are not so many layers, or a name is of none.
    """
    modules = [name for name, module in model.named_modules() if name and any(True for _ in module.parameters())]
    if chosen.top == 0 and not is_classifier(model):
        raise no_head()
    if chosen.names:
        check_names(chosen.names, modules, what="names")
        return [module for module in modules if any(matches(name, module) for name in chosen.names)]
    found = layer_list(model)
    if found is None:
        raise InputError(
            "the model has no single list of layers, so that the top ones cannot be told",
            f"Name what to train with `names`. There are: {', '.join(modules[:12])}, …",
        )
    layers = list(found[1])
    top = math.ceil(len(layers) / 4) if chosen.top is None else chosen.top
    if top > len(layers):
        raise InputError(
            f"`top` is {top}, and the model has {len(layers)} layers",
            "Lower it, or train all weights with `tune: full`.",
        )
    trained = layers[len(layers) - top :]
    return [name for name, module in model.named_modules() if any(module is layer for layer in trained)]


def _linear_layers(model: PreTrainedModel, names: Sequence[str]) -> list[str]:
    """The layers within the named modules that can have an adapter.

    Raises:
        InputError: if there are none.
    """
    inside = [layer for layer in adaptable(model) for name in names if layer == name or layer.startswith(f"{name}.")]
    if not inside:
        raise InputError(
            f"nothing in {', '.join(names[:3])} can have an adapter",
            "Leave out `rank` to train it in full, or name layers with linear ones in them.",
        )
    return list(dict.fromkeys(inside))


def _on_head(
    whole: BatchedModel, examples: Sequence[Pair], precision: Precision, ctx: Context
) -> tuple[CompletionLoss, ActivationCache] | None:
    """The loss of the head on what is kept of the frozen body; None, noted in the log, where that cannot be done."""
    found = head_loss(whole, examples, precision, ctx)
    if found is None:
        ctx.log.warning(
            "what enters the head of %s cannot be told: the frozen body is computed in every epoch",
            type(whole.model).__name__,
        )
    else:
        ctx.log.info("the body is frozen: what it makes of an example is computed once")
    return found


def _on_layers(
    whole: BatchedModel, examples: Sequence[Pair], precision: Precision, ctx: Context
) -> tuple[CompletionLoss, ActivationCache] | None:
    """The loss of the layers that learn on what is kept of those below; None where that cannot be done."""
    parts = _parts(whole, ctx)
    if parts is None:
        return None
    cache = _cache(parts, examples, precision, ctx)
    return CachedLoss(parts, cache, examples), cache


def _parts(whole: BatchedModel, ctx: Context) -> SplitModel | None:
    """The model cut before the first layer that learns; None, noted in the log, where that cannot be done."""
    if not isinstance(whole, PackedModel):
        ctx.log.info(
            "%s is not cut at a layer: the frozen ones are computed in every epoch", type(whole.model).__name__
        )
        return None
    first = first_trained_layer(whole.model)
    if first == 0:
        ctx.log.info("the first layer, or what comes before it, is trained: there are no activations to keep")
        return None
    parts = split(whole, first)
    if parts is None:
        ctx.log.warning(
            "%s cannot be cut at a layer: the frozen layers are computed in every epoch", type(whole.model).__name__
        )
    else:
        ctx.log.info("the %d lowest layers are frozen: what they give is computed once for each example", first)
    return parts


def first_trained_layer(model: PreTrainedModel) -> int:
    """The lowest layer, counted from 0, with a parameter that is trained, or above which one is.

    0 also where what comes before the layers is trained, the embeddings say.
    """
    found = layer_list(model)
    embedding: Any = model.get_input_embeddings()
    if found is None or any(parameter.requires_grad for parameter in embedding.parameters()):
        return 0
    layers = list(found[1])
    owner = {id(parameter): number for number, layer in enumerate(layers) for parameter in layer.parameters()}
    below = True
    for parameter in model.parameters():
        number = owner.get(id(parameter))
        below = below and number is None
        if parameter.requires_grad:
            return 0 if below else len(layers) - 1 if number is None else number
    return len(layers) - 1


def _cache(parts: SplitModel, examples: Sequence[Pair], precision: Precision, ctx: Context) -> ActivationCache:
    """A place for what enters the upper part, beside the checkpoints."""
    # The last token of an example predicts nothing.
    lengths = [len(given) + len(targets) - 1 for given, targets in examples]
    embedding: Any = parts.upper.model.get_input_embeddings()
    return ActivationCache(ctx.checkpoint / "activations", lengths, embedding.weight.shape[1], precision, ctx.log)


def _seen(examples: int, settings: Training) -> int:
    """How many of the training examples the budget comes to see; all, where it is in minutes."""
    per_epoch = math.ceil(examples / settings.batch_size)
    steps = known_steps(settings.max_steps, settings.max_epochs, settings.max_minutes, per_epoch)
    return examples if steps is None else min(examples, steps * settings.batch_size)
