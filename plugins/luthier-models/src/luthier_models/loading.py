"""Loading a model directory with transformers: the device, the type, no remote code."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import AutoModel, AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoModelForSequenceClassification
from transformers.utils import logging as transformers_logging

from luthier import InputError
from luthier_models.heads import CLASSIFIER
from luthier_models.prompts import read_form
from luthier_models.recurrent.registration import register

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# Progress is ours to show; transformers' bars would only fill the log.
transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
register()

AUTO_CLASSES: dict[str, Any] = {
    "causal-lm": AutoModelForCausalLM,
    "seq2seq-lm": AutoModelForSeq2SeqLM,
    "encoder": AutoModel,
    CLASSIFIER: AutoModelForSequenceClassification,
}
"""What loads, and makes from a configuration, models of each form."""

_CALLED = {
    "causal-lm": "a causal language model",
    "seq2seq-lm": "an encoder-decoder model",
    "encoder": "an encoder",
    CLASSIFIER: "a classifier",
}


def resolve_device(name: str) -> torch.device:
    """The device of that name (`cpu`, `cuda`, `cuda:1`, `mps`).

    Raises:
        InputError: if it has no such name, or this machine has no such device.
    """
    if name == "auto":
        accelerator = torch.accelerator.current_accelerator(check_available=True)
        return accelerator or torch.device("cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise InputError(f"{name!r} is no device", "Use auto, cpu, cuda, cuda:1 or mps.") from error
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            found = f"{count} CUDA devices" if count else "no CUDA device"
            raise InputError(
                f"the device {name!r} was asked for, but PyTorch finds {found} here",
                "Run on `cpu`, or install a PyTorch built for your GPU and its driver.",
            )
    elif device.type == "mps" and not torch.backends.mps.is_available():
        raise InputError("the device 'mps' was asked for, but PyTorch finds none here", "Run on `cpu`.")
    elif device.type not in ("cpu", "mps"):
        raise InputError(f"the device {name!r} is not supported", "Use auto, cpu, cuda, cuda:1 or mps.")
    return device


def load_by_config(directory: Path, *, device: str = "cpu", dtype: str = "auto") -> PreTrainedModel:
    """The model in a directory: decoder, encoder-decoder or classifier, as its configuration says; see `load_model`."""
    return load_model(directory, read_form(directory), device=device, dtype=dtype)


def load_causal_lm(directory: Path, *, device: str = "cpu", dtype: str = "auto", **options: Any) -> PreTrainedModel:
    """The causal language model in a directory; see `load_model`."""
    return load_model(directory, "causal-lm", device=device, dtype=dtype, **options)


def load_model(
    directory: Path, form: str, *, device: str = "cpu", dtype: str = "auto", **options: Any
) -> PreTrainedModel:
    """The model in a directory, in evaluation mode.

    Args:
        directory: a Hugging Face model directory with safetensors.
        form: `causal-lm`, `seq2seq-lm`, `encoder` or `sequence-classifier`.
        device: where to put it.
        dtype: `float32`, `bfloat16`, `float16`, or `auto` for the type of the stored weights.
        options: further options of `from_pretrained` (`gguf_file`).

    Raises:
        InputError: if it cannot be read, or lacks weights that the architecture has.
    """
    target = resolve_device(device)
    try:
        model, report = AUTO_CLASSES[form].from_pretrained(
            str(directory),
            dtype="auto" if dtype == "auto" else getattr(torch, dtype),
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
            **options,
        )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"{directory} cannot be loaded as {_CALLED[form]}: {reason}",
            "Check that the directory is complete, and that this transformers supports its architecture.",
        ) from error
    missing = sorted(report.get("missing_keys") or ())
    if form == "encoder" and missing and all(name.startswith("pooler.") for name in missing):
        # BERT's pooler is for heads that read the first token; what was trained on masked tokens has none.
        model.pooler, missing = None, []
    if missing:
        raise InputError(
            f"{directory} lacks {len(missing)} of the model's weights ({missing[0]}, …)",
            "Fetch the model again; its config.json and its weights do not belong together.",
        )
    loaded: PreTrainedModel = model.to(target).eval()
    return loaded
