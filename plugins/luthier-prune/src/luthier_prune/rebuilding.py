"""A model anew, from a changed configuration and changed weights."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from luthier import PluginError

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedConfig, PreTrainedModel


def rebuilt(model: PreTrainedModel, config: PreTrainedConfig, weights: Mapping[str, Tensor]) -> PreTrainedModel:
    """A model of the class of `model`, made as `from_pretrained` makes one; it shares what weights stay as they were.

    Raises:
        PluginError: if the weights are not those that the configuration asks for.
    """
    made, report = cast("Any", type(model)).from_pretrained(
        None, config=config, state_dict=dict(weights), dtype=model.dtype, output_loading_info=True
    )
    wrong = [name for key in ("missing_keys", "unexpected_keys", "mismatched_keys") for name in report.get(key) or ()]
    if wrong:
        raise PluginError(f"the pruned weights do not fit their configuration: {wrong[0]}", "Report this.")
    if model.generation_config is not None:
        made.generation_config = copy.deepcopy(model.generation_config)
    pruned: PreTrainedModel = made.to(model.device).eval()
    return pruned


def count_parameters(model: PreTrainedModel) -> int:
    """How many there are; a tied embedding counts once."""
    return sum(each.numel() for each in model.parameters())
