"""What can be said of a configuration while planning. Light: no heavy library is loaded."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from luthier import InputError
from luthier_tune.options import BY_VALID_LOSS, check_budget


def check_kto(*, batch_size: int, **others: Any) -> None:
    """Refuse batches of one, besides what all tuners refuse; takes the whole configuration.

    Raises:
        InputError: saying why.
    """
    check_budget(**others)
    if batch_size < 2:
        raise InputError(
            f"batch_size is {batch_size}: KTO estimates how far the model has moved by giving each prompt of a batch "
            "another one's answer",
            "Give a batch_size of 2 at the least, better 4 or more.",
        )


BY_ACCURACY = replace(BY_VALID_LOSS, metric="reward_accuracy", better="higher")
"""How these tuners compare: losses and rewards of different `beta` are of different scales, accuracies are not."""
