"""Rows for new tokens in the embedding and in the output layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import torch

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def add_rows(model: PreTrainedModel, pieces: Sequence[Sequence[int]], first: int) -> None:
    """Give the tokens from the id `first` on their rows: the mean of the rows of the old tokens they consist of.

    So a new token means what its pieces mean on average, and is about as likely as they are (Koto et al., 2021,
    *IndoBERTweet*, arXiv:2109.04607, where the mean of the pieces did better than a projection of word vectors, and
    than a random start). All other rows stay as they are.

    Args:
        model: what gets them; its output layer may be its embedding.
        pieces: the ids of each new token's old tokens.
        first: the id of the first new token.
    """
    loaded = cast("Any", model)
    old = int(loaded.get_input_embeddings().weight.shape[0])
    # Some models have more rows than tokens; those are taken first.
    loaded.resize_token_embeddings(max(old, first + len(pieces)), mean_resizing=False)
    head = loaded.get_output_embeddings()
    tables = [loaded.get_input_embeddings().weight]
    tables += [each for each in (getattr(head, "weight", None), getattr(head, "bias", None)) if each is not None]
    with torch.no_grad():
        for table in {id(each): each for each in tables}.values():
            rows = [table[torch.tensor(ids)].float().mean(0) for ids in pieces]
            table[first : first + len(pieces)] = torch.stack(rows).to(table.dtype)
