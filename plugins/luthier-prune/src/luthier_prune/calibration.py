"""Calibration data: what importance is measured on, and what the damage is measured on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from luthier import InputError
from luthier_tune.examples import encode_split
from luthier_tune.task import fitting_length

if TYPE_CHECKING:
    from luthier import Context, Dataset
    from luthier_models.packing import Pair
    from luthier_models.prompts import PromptEncoder
    from luthier_prune.options import Pruning

LEAST_TOKENS = 128
"""Fewer tokens say nothing of what matters; a few thousand are what the sources of the measures here take."""


@dataclass(frozen=True)
class Calibration:
    """Encoded examples.

    Attributes:
        pairs: those of the split `train`, for importance.
        held_out: those of the split `valid`, for the damage; of `train` where that has none.
        split: where `held_out` is from.
    """

    pairs: list[Pair]
    held_out: list[Pair]
    split: str


def read_calibration(data: Dataset, encoder: PromptEncoder, settings: Pruning, ctx: Context) -> Calibration:
    """Read and encode the examples.

    Raises:
        InputError: if the dataset has no splits, or too little in the split `train`.
    """
    length = fitting_length(encoder, settings.max_length)
    limit = settings.calibration_examples
    train = encode_split(data, "train", encoder, length, limit=limit, seed=ctx.seed)
    valid = encode_split(data, "valid", encoder, length, limit=limit, seed=ctx.seed)
    tokens = sum(len(given) + len(targets) for given, targets in train.pairs)
    if tokens < LEAST_TOKENS:
        raise InputError(
            f"there is too little to calibrate on: {len(train.pairs)} usable examples of {tokens} tokens in the split "
            f"`train`, and {LEAST_TOKENS} tokens are the least (a few thousand are better)",
            "Give more examples, or raise `calibration_examples` and `max_length`.",
        )
    if not valid.pairs:
        ctx.log.warning("the split `valid` has no examples: the damage is measured where importance is, on `train`")
    ctx.log.info("calibration on %d examples of %d tokens", len(train.pairs), tokens)
    return Calibration(train.pairs, valid.pairs or train.pairs, "valid" if valid.pairs else "train")
