"""Calibration data: windows of tokens of a dataset's examples, and how far a model is from another on them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from luthier import InputError
from luthier_onnx.packed import PACKED_FILE
from luthier_tune.examples import encode_split, random_for

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor
    from transformers import PreTrainedModel

    from luthier import Dataset
    from luthier_models.packing import Pair
    from luthier_models.prompts import PromptEncoder

# Of a window: long enough that most tokens have a context, short enough for a model of any.
WINDOW = 256
# Windows that go through a model at once.
_BATCH = 4
_FEWEST = 2


@dataclass(frozen=True)
class Divergence:
    """How far a model is from its reference.

    Attributes:
        mean_kl: KL(reference || model) in nats, the mean over tokens.
        top1: the share of tokens whose most likely next one is the reference's.
        tokens: how many were compared.
    """

    mean_kl: float
    top1: float
    tokens: int


def refuse_integers(directory: Path) -> None:
    """Refuse a model whose weights a quantizer has chosen integers for.

    Raises:
        InputError: if there are some: they would be rounded again, or lost.
    """
    if (directory / PACKED_FILE).is_file():
        raise InputError(
            "integers were chosen for this model's weights before, so they would be rounded twice",
            "Keep one of the `quantize` steps; `smooth` comes before the others.",
        )


def read_windows(
    data: Dataset, split: str, encoder: PromptEncoder, *, tokens: int, seed: int, length: int = WINDOW
) -> Tensor:
    """Examples of a split, chosen by `seed`, one after the other in windows: ids, (windows, length).

    Prompts are rendered with the model's template, as in tuning and serving.

    Raises:
        InputError: if there is too little text for two windows.
    """
    length = min(length, encoder.context or length)
    pairs = read_pairs(data, split, encoder, tokens=tokens, seed=seed, length=length)
    ids = [token for given, targets in pairs for token in (*given, *targets)]
    windows = min(len(ids), tokens) // length
    if windows < _FEWEST:
        raise InputError(
            f"the split {split!r} has {len(ids)} tokens, too few for {_FEWEST} windows of {length}",
            "Give it more data, or a quantizer that needs none: `export: genai`, then `quantize: int8` or `int4`.",
        )
    return torch.tensor(ids[: windows * length]).view(windows, length)


def read_pairs(
    data: Dataset, split: str, encoder: PromptEncoder, *, tokens: int, seed: int, length: int = WINDOW
) -> list[Pair]:
    """Examples of a split, chosen by `seed`, each within `length` tokens: so many that they have `tokens` in all."""
    rows = max(64, tokens // 8)
    examples = list(encode_split(data, split, encoder, length, limit=rows, seed=seed).pairs)
    random_for(seed, f"calibration {split}").shuffle(examples)
    found: list[Pair] = []
    count = 0
    for given, targets in examples:
        found.append((given, targets))
        count += len(given) + len(targets)
        if count >= tokens:
            break
    return found


def batches(windows: Tensor) -> tuple[Tensor, ...]:
    """The windows, a few at a time."""
    return torch.split(windows, _BATCH)


@torch.no_grad()
def diverged(model: PreTrainedModel, reference: PreTrainedModel, windows: Tensor) -> Divergence:
    """Compare a model with its reference on every token of the windows."""
    divergence, agreeing = 0.0, 0
    for batch in torch.split(windows, 1):
        theirs, ours = (
            each(batch.to(each.device), use_cache=False).logits[0].float().log_softmax(-1)
            for each in (reference, model)
        )
        divergence += (theirs.exp() * (theirs - ours)).sum().item()
        agreeing += int((theirs.argmax(-1) == ours.argmax(-1)).sum())
    return Divergence(divergence / windows.numel(), agreeing / windows.numel(), windows.numel())
