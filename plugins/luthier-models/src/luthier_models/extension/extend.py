"""The tuner `extend-vocabulary`: new tokens, their rows, and what both changed."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
from tokenizers import Tokenizer

from luthier import InputError
from luthier_models.corpus import split_texts
from luthier_models.extension.embeddings import add_rows
from luthier_models.extension.merges import Merge
from luthier_models.extension.tokenizer import new_merges, with_merges
from luthier_models.loading import load_causal_lm
from luthier_models.prompts import load_tokenizer
from luthier_models.runtime import TransformersGenerator

if TYPE_CHECKING:
    from luthier import Context, Dataset, Model

_SAMPLE = 2000
"""Characters of each text that the likelihood is measured on: it is a comparison, and must be cheap."""


def extend(model: Model, data: Dataset, ctx: Context, *, tokens: int, min_frequency: int, valid_examples: int) -> None:
    """Write the model with up to `tokens` new tokens, learnt on the training split, to `ctx.output`.

    Raises:
        InputError: if the tokenizer cannot be extended, or the training split has nothing to add.
    """
    tokenizer: Any = load_tokenizer(model.path)
    backend: Tokenizer = tokenizer.backend_tokenizer
    merges = new_merges(backend, split_texts(data, "train"), limit=tokens, min_frequency=min_frequency)
    if not merges:
        raise InputError(
            f"the training split has no pair of tokens that occurs {min_frequency} times or more",
            "Lower `min_frequency`, or leave out this step: the vocabulary fits the data as it is.",
        )
    written = with_merges(backend, merges)
    extended = Tokenizer.from_str(written)
    loaded: Any = load_causal_lm(model.path)
    ids = extended.get_vocab()
    add_rows(loaded, [[ids[piece] for piece in merge.pieces] for merge in merges], ids[merges[0].token])
    loaded.save_pretrained(ctx.output)
    for path in sorted(model.path.iterdir()):
        if path.is_file() and not (ctx.output / path.name).exists() and ".safetensors" not in path.name:
            (ctx.output / path.name).write_bytes(path.read_bytes())
    (ctx.output / "tokenizer.json").write_text(written + "\n", encoding="utf-8")
    texts = list(split_texts(data, "valid")) or list(split_texts(data, "train"))
    _record_tokens(backend, extended, texts, merges, ctx)
    if valid_examples:
        chosen = random.Random(ctx.seed).sample(texts, min(valid_examples, len(texts)))  # noqa: S311 - a sample
        _record_likelihood(model.path, [text[:_SAMPLE] for text in chosen], ctx)


def _record_tokens(old: Tokenizer, new: Tokenizer, texts: Sequence[str], merges: Sequence[Merge], ctx: Context) -> None:
    """How many tokens a byte takes, and which there are now."""
    size = sum(len(text.encode()) for text in texts)
    before, after = (_count(tokenizer, texts) for tokenizer in (old, new))
    ids = new.get_vocab()
    ctx.metric("new_tokens", len(merges))
    ctx.metric("tokens_per_byte_before", before / size)
    ctx.metric("tokens_per_byte", after / size)
    rows = [
        {
            "token": new.decode([ids[merge.token]], skip_special_tokens=False),
            "pieces": len(merge.pieces),
            "frequency": merge.frequency,
        }
        for merge in merges
    ]
    ctx.table("new-tokens", pl.DataFrame(rows))
    ctx.log.info("%d new tokens; texts have %.1f%% fewer tokens", len(merges), 100 * (1 - after / before))


def _count(tokenizer: Tokenizer, texts: Sequence[str]) -> int:
    return sum(len(each.ids) for each in tokenizer.encode_batch_fast(list(texts), add_special_tokens=False))


def _record_likelihood(model: Path, texts: Sequence[str], ctx: Context) -> None:
    """What the new rows cost before anything is trained: the same bytes in other tokens."""
    size = sum(len(text.encode()) for text in texts)
    for name, directory in (("bits_per_byte_before", model), ("bits_per_byte", ctx.output)):
        scores = TransformersGenerator(directory).score([""] * len(texts), texts)
        nats = -math.fsum(value for score in scores for value in score.log_probabilities)
        ctx.metric(name, nats / math.log(2) / size)
