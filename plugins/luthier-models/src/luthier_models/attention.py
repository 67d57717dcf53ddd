"""Causal attention within each document of a packed row, without the masked rest of the row.

transformers separates packed documents by a mask over the whole row, so that the cost of a token grows
with the row. Here each document is attended to by itself: nothing masked is computed, and a row may be as
long as the products of matrices like. Registered with transformers' `AttentionInterface`; a call that does
not say where documents end is plain scaled-dot-product attention, as before.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedModel

NAME = "luthier_packed"


def enable(model: PreTrainedModel) -> bool:
    """Let the model attend document by document where `document_lengths` are given; False if it cannot.

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
    document_lengths: tuple[int, ...] | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Attend as `sdpa_attention_forward` does, but within each document.

    Args:
        module: the attention layer.
        query: (1, heads, tokens, width of a head); `key` and `value` likewise, with their own heads.
        key: see `query`.
        value: see `query`.
        attention_mask: for calls without lengths; with them it could only say the same.
        document_lengths: the tokens of each document of the row, in order.
        options: what transformers passes on.

    Returns:
        (1, tokens, heads, width of a head), and no weights.
    """
    if document_lengths is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    documents = zip(
        *(torch.split(states, list(document_lengths), dim=2) for states in (query, key, value)), strict=True
    )
    parts = [sdpa_attention_forward(module, q, k, v, None, **options)[0] for q, k, v in documents]
    return torch.cat(parts, dim=1), None


AttentionInterface.register(NAME, packed_attention)
AttentionMaskInterface.register(NAME, sdpa_mask)
