"""LoRA (Hu et al., 2021, arXiv:2106.09685) with peft: inject, train, keep the adapter, merge."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from safetensors.torch import save_file

from luthier import InputError
from luthier_models.loading import load_causal_lm
from luthier_models.packing import PackedModel
from luthier_models.prompts import PromptEncoder
from luthier_tune.loss import CompletionLoss
from luthier_tune.task import check_start, copy_companions, read_examples, record
from luthier_tune.training import Trainer

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from luthier import Context, Dataset, Model
    from luthier_tune.options import Training


@dataclass(frozen=True, kw_only=True)
class AdapterSettings:
    """The shape of the adapters; see `luthier_tune.lora`."""

    rank: int
    alpha: float
    dropout: float = 0.0
    targets: Literal["all-linear"] | list[str] = "all-linear"


def tune(model: Model, data: Dataset, ctx: Context, adapter: AdapterSettings, settings: Training) -> None:
    """Train adapters on the data, and write the merged model and the adapter to `ctx.output`.

    Raises:
        InputError: if the budget, the data, the device or the layers to adapt cannot be used, or
            training diverges.
    """
    check_start(settings, ctx)
    encoder = PromptEncoder.from_directory(model.path)
    train, valid = read_examples(data, encoder, settings, ctx.seed)
    base: Any = load_causal_lm(model.path, device=ctx.device)
    adapted = inject(base, adapter, ctx.seed)
    parameters = {name: p for name, p in adapted.named_parameters() if p.requires_grad}
    trainer = Trainer(
        CompletionLoss(PackedModel(base)), parameters, train.pairs, valid.pairs, settings=settings, ctx=ctx
    )
    trainer.run()
    record(trainer, train, ctx)
    adapted.eval()
    save_adapter(adapted, ctx.output / "adapter", base_model=model.hash)
    merged: Any = adapted.merge_and_unload(safe_merge=True)
    merged.save_pretrained(ctx.output)
    copy_companions(model.path, ctx.output)


def inject(base: PreTrainedModel, settings: AdapterSettings, seed: int) -> PeftModel:
    """Put adapters into the model; their first values come from the seed.

    Raises:
        InputError: if no layer has one of the names.
    """
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,  # type: ignore[arg-type]  # any number will do
        lora_dropout=settings.dropout,
        target_modules=settings.targets,
        task_type="CAUSAL_LM",
    )
    with torch.random.fork_rng(devices=[base.device] if base.device.type == "cuda" else []):
        torch.manual_seed(seed)
        try:
            adapted = get_peft_model(base, config)
        except ValueError as error:
            names = sorted(
                {name.rpartition(".")[2] for name, m in base.named_modules() if isinstance(m, torch.nn.Linear)}
            )
            raise InputError(
                f"LoRA cannot be put on the layers {settings.targets}: {str(error).splitlines()[0]}",
                f"Use `all-linear`, or some of: {', '.join(names)}.",
            ) from error
    return cast("PeftModel", adapted)


def save_adapter(adapted: PeftModel, directory: Path, *, base_model: str = "") -> None:
    """Write the adapter as peft does, but the same bytes each time and without the paths of this machine."""
    directory.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in get_peft_model_state_dict(adapted).items()}
    save_file(tensors, directory / "adapter_model.safetensors", {"format": "pt"})
    config = adapted.peft_config["default"].to_dict()
    config |= {"base_model_name_or_path": base_model or None, "inference_mode": True}
    text = json.dumps(
        config, indent=2, sort_keys=True, default=lambda value: sorted(value) if isinstance(value, set) else str(value)
    )
    (directory / "adapter_config.json").write_text(text + "\n", encoding="utf-8")
