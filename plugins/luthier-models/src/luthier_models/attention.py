"""Causal attention within each document of a packed row, without the masked rest of the row.

transformers separates packed documents by a mask over the whole row, so that the cost of a token grows
with the row. Here each document is attended to by itself: nothing masked is computed, and a row may be as
long as the products of matrices like. What documents share (`segments.py`) is seen by each that continues
it. Registered with transformers' `AttentionInterface`; a call that does
not say where documents end is plain scaled-dot-product attention, as before.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedModel

    from luthier_models.segments import Segment

NAME = "luthier_packed"


def enable(model: PreTrainedModel) -> bool:
    """Let the model attend document by document where `segments` are given; False if it cannot.

    It cannot where a mask says more than which document a token is in (sliding windows, chunks), where
    attention is not transformers' scaled-dot-product form, or where the model takes no further arguments.
    """
    config: Any = model.config
    windows = any(getattr(config, key, None) is not None for key in ("sliding_window", "attention_chunk_size"))
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    arguments = inspect.signature(model.base_model.forward).parameters.values()
    passes_on = any(argument.kind is inspect.Parameter.VAR_KEYWORD for argument in arguments)
    if windows or kinds != {"full_attention"} or not passes_on:
        return False
    if config._attn_implementation == "sdpa":
        model.set_attn_implementation(NAME)
    return bool(config._attn_implementation == NAME)


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    segments: Sequence[Segment] | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Attend as `sdpa_attention_forward` does, but within each document.

    Args:
        module: the attention layer.
        query: (1, heads, tokens, width of a head); `key` and `value` likewise, with their own heads.
        key: see `query`.
        value: see `query`.
        attention_mask: for calls without segments; with them it could only say the same.
        segments: the segments of the row, in order.
        options: what transformers passes on.

    Returns:
        (1, tokens, heads, width of a head), and no weights.
    """
    if segments is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)

    def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        attended: Tensor = sdpa_attention_forward(module, query, key, value, mask, **options)[0]
        return attended

    return attend_by_segment(attend, query, key, value, segments), None


def attend_by_segment(
    attend: Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor],
    query: Tensor,
    key: Tensor,
    value: Tensor,
    segments: Sequence[Segment],
) -> Tensor:
    """Let each segment attend to itself and to those that it continues.

    Args:
        attend: causal attention, given no mask, or by a mask (1, 1, queries, keys) that is true where a query sees
            a key; it takes (1, heads, tokens, width of a head) and gives (1, tokens, heads, width of a head).
        query: (1, heads, tokens, width of a head); `key` and `value` likewise, with their own heads.
        key: see `query`.
        value: see `query`.
        segments: the segments of the row, in order.

    Returns:
        (1, tokens, heads, width of a head).
    """
    lengths = [segment.length for segment in segments]
    queries, keys, values = (torch.split(states, lengths, dim=2) for states in (query, key, value))
    parts = []
    for number, segment in enumerate(segments):
        if not segment.before:
            parts.append(attend(queries[number], keys[number], values[number], None))
            continue
        seen = (*segment.before, number)
        k, v = (torch.cat([states[s] for s in seen], dim=2) for states in (keys, values))
        mask = torch.ones(1, 1, segment.length, k.shape[2], dtype=torch.bool, device=k.device)
        parts.append(attend(queries[number], k, v, mask.tril_(k.shape[2] - segment.length)))
    return torch.cat(parts, dim=1)


AttentionInterface.register(NAME, packed_attention)
AttentionMaskInterface.register(NAME, sdpa_mask)
