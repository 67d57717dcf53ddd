"""An adapter on disk, in peft's form: the same bytes each time, for the model that was tuned as it was before."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from peft import get_peft_model_state_dict
from safetensors.torch import save_file

if TYPE_CHECKING:
    from peft import PeftModel
    from torch import Tensor


def adapter_tensors(adapted: PeftModel) -> dict[str, Tensor]:
    """A copy of the adapter's tensors, on the CPU, by the names that they have in files."""
    return {name: tensor.detach().cpu().clone() for name, tensor in get_peft_model_state_dict(adapted).items()}


def save_adapter(
    adapted: PeftModel, directory: Path, *, base_model: str = "", initial: Mapping[str, Tensor] | None = None
) -> None:
    """Write the adapter as peft does, but the same bytes each time and without the paths of this machine.

    Args:
        adapted: the model with the adapter.
        directory: where; made if it does not exist.
        base_model: how the files name the model that the adapter is for.
        initial: the adapter as it was before training, if its product was then taken out of the model's weights
            (PiSSA). It is subtracted, so that what is written is an adapter for the weights as they were.
    """
    directory.mkdir(parents=True, exist_ok=True)
    tensors, config = adapter_tensors(adapted), dict(adapted.peft_config["default"].to_dict())
    if initial is not None:
        tensors, config = _for_original_weights(tensors, config, initial)
    tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
    save_file(tensors, directory / "adapter_model.safetensors", {"format": "pt"})
    write_config(config, directory, base_model=base_model)


def write_config(config: dict[str, Any], directory: Path, *, base_model: str) -> None:
    """Write an adapter's configuration as peft does, for a model that is named `base_model`."""
    config = config | {"base_model_name_or_path": base_model or None, "inference_mode": True}
    text = json.dumps(
        config, indent=2, sort_keys=True, default=lambda value: sorted(value) if isinstance(value, set) else str(value)
    )
    (directory / "adapter_config.json").write_text(text + "\n", encoding="utf-8")


def _for_original_weights(
    tensors: Mapping[str, Tensor], config: dict[str, Any], initial: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """An adapter of twice the rank for W, from one for W - s·B0·A0: s·(B·A - B0·A0) = s·[B -B0]·[A; A0].

    The identity is the one of peft's `path_initial_model_for_weight_conversion`; alpha follows the rank, so
    that the scale s stays. peft's own refuses rsLoRA with ranks by layer and drops DoRA's magnitudes, which
    need no change: the norm that they multiply is that of the same sum.
    """
    converted = dict(tensors)
    for name, first in initial.items():
        if name.endswith("lora_A.weight"):
            converted[name] = torch.cat([tensors[name], first], dim=0)
        elif name.endswith("lora_B.weight"):
            converted[name] = torch.cat([tensors[name], -first], dim=1)
    growth = 2**0.5 if config["use_rslora"] else 2
    ranks = {name: 2 * rank for name, rank in config["rank_pattern"].items()}
    alphas = {name: growth * alpha for name, alpha in config["alpha_pattern"].items()}
    changed = {"r": 2 * config["r"], "lora_alpha": growth * config["lora_alpha"], "init_lora_weights": True}
    return converted, config | changed | {"rank_pattern": ranks, "alpha_pattern": alphas}
