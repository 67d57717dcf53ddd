"""LoRA (Hu et al., 2021, arXiv:2106.09685) and its variants with peft: inject, train, keep the adapter, merge."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, cast

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.utils.constants import SEQ_CLS_HEAD_NAMES

from luthier import InputError
from luthier_models.heads import head_modules, is_classifier
from luthier_models.loading import load_by_config
from luthier_models.prompts import PromptEncoder
from luthier_tune.adapter_files import adapter_tensors, save_adapter
from luthier_tune.lean import lean_or_plain
from luthier_tune.loss import CompletionLoss
from luthier_tune.processes import in_processes
from luthier_tune.quantization_aware import check_quantizable, use_integers
from luthier_tune.sharding import check_sharding, loading_device, sharded
from luthier_tune.targets import adaptable, check_names, matches
from luthier_tune.task import Student, check_start, copy_companions, fit, read_examples

if TYPE_CHECKING:
    from pathlib import Path

    from transformers import PreTrainedModel

    from luthier import Context, Dataset, Model
    from luthier_tune.options import Fsdp, Quantization, Training

# PiSSA's fast decomposition; at 16 rounds its authors find the same training loss as with the exact one.
_PISSA: Any = "pissa_niter_16"
_RSLORA_ALPHA = 8.0


@dataclass(frozen=True, kw_only=True)
class AdapterSettings:
    """The shape of the adapters and how they start and learn; see `luthier_tune.lora`."""

    rank: int
    alpha: float | None = None
    dropout: float = 0.0
    targets: Literal["all-linear"] | list[str] = "all-linear"
    ranks: Mapping[str, int] = field(default_factory=dict)
    rslora: bool = False
    dora: bool = False
    init: Literal["zero", "pissa"] = "zero"
    loraplus_ratio: float = 1.0
    quantization: Quantization | None = None

    def rate_of(self, parameter: str) -> float:
        """How many times the learning rate a parameter learns at: LoRA+ lets the second matrices learn faster."""
        return self.loraplus_ratio if ".lora_B." in parameter else 1.0


@in_processes
def tune(
    model: Model, data: Dataset, ctx: Context, *, adapter: AdapterSettings, fsdp: Fsdp | None, settings: Training
) -> None:
    """Train adapters on the data, and write the merged model and the adapter to `ctx.output`.

    Raises:
        InputError: if the budget, the data, the device or the layers to adapt cannot be used, or
            training diverges.
    """
    check_start(settings, ctx)
    check_sharding(fsdp, ctx)
    encoder = PromptEncoder.from_directory(model.path)
    train, valid = read_examples(data, encoder, settings, ctx.seed)
    student = sharded(adapted_student(model, adapter, ctx, loading_device(fsdp, ctx)), fsdp, ctx)
    fit(student, CompletionLoss(student.packed), train, valid, settings=settings, ctx=ctx)
    student.write_to(ctx.output, settings)


def adapted_student(model: Model, adapter: AdapterSettings, ctx: Context, device: str) -> Student:
    """The model, on a device, with adapters to be trained; what is written holds them merged, and in `adapter/` alone.

    Raises:
        InputError: if the device or the layers to adapt cannot be used.
    """
    base: Any = load_by_config(model.path, device=device)
    adapted = inject(base, adapter, ctx.seed)
    initial = adapter_tensors(adapted) if adapter.init == "pissa" else None
    return merging_student(base, adapted, model, ctx, initial=initial, rate_of=adapter.rate_of)


def merging_student(
    base: PreTrainedModel,
    adapted: PeftModel,
    model: Model,
    ctx: Context,
    *,
    initial: Mapping[str, torch.Tensor] | None = None,
    rate_of: Callable[[str], float] | None = None,
) -> Student:
    """A student whose adapters, put into `base` by peft, are merged when it is written; see `save_adapter`."""
    parameters = {name: p for name, p in adapted.named_parameters() if p.requires_grad}

    def write(directory: Path) -> None:
        save_merged(adapted, directory, base_model=model.hash, initial=initial)
        copy_companions(model.path, directory)

    return Student(lean_or_plain(base, ctx.log), parameters, write, rate_of)


def inject(base: PreTrainedModel, settings: AdapterSettings, seed: int) -> PeftModel:
    """Put adapters into the model; their first values come from the seed.

    Raises:
        InputError: if no layer has one of the names, or PiSSA is asked for more than a layer's full rank.
    """
    config = lora_config(base, settings)
    with torch.random.fork_rng(devices=[base.device] if base.device.type == "cuda" else []):
        torch.manual_seed(seed)
        return cast("PeftModel", get_peft_model(base, config))


def lora_config(base: PreTrainedModel, settings: AdapterSettings) -> LoraConfig:
    """The settings as peft has them.

    Raises:
        InputError: if no layer has one of the names, PiSSA is asked for more than a layer's full rank, or layers
            cannot be quantized.
    """
    layers = _target_layers(base, settings)
    # The longer a name, the fewer layers it means: it goes first, and peft takes the first that matches.
    ranks = {re.escape(name): settings.ranks[name] for name in sorted(settings.ranks, key=lambda n: (-len(n), n))}
    if settings.init == "pissa":
        _check_full_rank(layers, settings)
    alpha = settings.alpha
    if alpha is None:
        alpha = _RSLORA_ALPHA if settings.rslora else 2.0 * settings.rank
    with warnings.catch_warnings():
        # It is about peft's own way to save PiSSA, which `save_adapter` does not use.
        warnings.filterwarnings("ignore", message="Using Rank-Stabilized LoRA with rank_pattern")
        config = LoraConfig(
            r=settings.rank,
            lora_alpha=alpha,  # type: ignore[arg-type]  # any number will do
            lora_dropout=settings.dropout,
            target_modules=settings.targets,
            rank_pattern=ranks,
            # The same scale for all ranks; rsLoRA's falls with the root of the rank by itself.
            alpha_pattern={} if settings.rslora else {each: alpha * r / settings.rank for each, r in ranks.items()},
            use_rslora=settings.rslora,
            use_dora=settings.dora,
            init_lora_weights=_PISSA if settings.init == "pissa" else True,
            task_type=_task_type(base),
            # peft itself trains what has one of its own names.
            modules_to_save=[name for name in _trained_head(base) if name not in SEQ_CLS_HEAD_NAMES] or None,
        )
    if settings.quantization is not None:
        check_quantizable(base, layers)
        use_integers(config, settings.quantization)
    return config


def _task_type(base: PreTrainedModel) -> str:
    if is_classifier(base):
        return "SEQ_CLS"
    return "SEQ_2_SEQ_LM" if base.config.is_encoder_decoder else "CAUSAL_LM"


def _trained_head(base: PreTrainedModel) -> list[str]:
    """The modules of a classifier's head that have weights: they are trained in full beside the adapters."""
    return [name for name, module in head_modules(base).items() if any(True for _ in module.parameters())]


def save_merged(
    adapted: PeftModel, directory: Path, *, base_model: str, initial: Mapping[str, torch.Tensor] | None = None
) -> None:
    """Write the merged model, with the adapter beside it in `adapter/`; the model is used up by it.

    `base_model` and `initial` are those of `save_adapter`.
    """
    save_adapter(adapted, directory / "adapter", base_model=base_model, initial=initial)
    merged: Any = adapted.merge_and_unload(safe_merge=True)
    merged.save_pretrained(directory)


def _target_layers(base: PreTrainedModel, settings: AdapterSettings) -> dict[str, torch.nn.Module]:
    """The layers that get an adapter."""
    layers = adaptable(base)
    if settings.targets != "all-linear":
        check_names(settings.targets, list(layers), what="targets")
        layers = {name: layer for name, layer in layers.items() if any(matches(t, name) for t in settings.targets)}
    check_names(settings.ranks, list(layers), what="ranks")
    return layers


def _check_full_rank(layers: Mapping[str, torch.nn.Module], settings: AdapterSettings) -> None:
    for name, layer in layers.items():
        given = [named for named in settings.ranks if matches(named, name)]
        rank = settings.ranks[max(given, key=len)] if given else settings.rank
        full = min(cast("torch.Tensor", layer.weight).shape)
        if rank > full:
            raise InputError(
                f"PiSSA starts with the {rank} largest singular values of {name}, which has {full}",
                f"Lower `rank` (or the rank of this layer in `ranks`) to {full}, or use `init: zero`.",
            )
