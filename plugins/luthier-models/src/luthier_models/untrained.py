"""A new model with a tokenizer of its own: sizes from a budget, weights from the seed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import polars as pl
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, Qwen3Config

from luthier_models.arithmetic import record_parameters
from luthier_models.normalise import save_model
from luthier_models.sizes import Shape, Wishes, shape_within
from luthier_models.vocabularies import train_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedTokenizerFast

    from luthier import Context, Dataset
    from luthier_models import Vocabulary

CONFIGURATIONS: dict[str, Any] = {"llama": LlamaConfig, "qwen3": Qwen3Config}


def write_fresh(
    data: Dataset,
    ctx: Context,
    *,
    family: str,
    budget: int,
    wishes: Wishes,
    vocabulary: Vocabulary,
    context: int,
    rope_base: float,
    dropout: float,
) -> None:
    """Train the tokenizer on the training split, choose the sizes, and write the untrained model to `ctx.output`.

    Raises:
        InputError: if the budget is too small for the tokenizer, or there is nothing to train that on.
    """
    tokenizer = train_tokenizer(training_texts(data), vocabulary)
    shape = shape_within(budget, len(tokenizer), wishes)
    config = _configuration(family, shape, tokenizer, context=context, rope_base=rope_base, dropout=dropout)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(ctx.seed)
        model: Any = AutoModelForCausalLM.from_config(  # type: ignore[no-untyped-call]
            config, dtype=torch.float32
        )
    save_model(model, tokenizer, ctx.output)
    _record(shape, ctx)


def training_texts(data: Dataset) -> Iterator[str]:
    """What the training split has to read and to write, in the order of its rows."""
    for frame in data.frames():
        rows = frame.filter(pl.col("split") == "train")
        columns = [name for name in ("text", "prompt", "completion") if name in rows.columns]
        for row in rows.select(columns).iter_rows():
            yield from (text for text in row if text)


def _configuration(
    family: str, shape: Shape, tokenizer: PreTrainedTokenizerFast, *, context: int, rope_base: float, dropout: float
) -> PreTrainedConfig:
    config: PreTrainedConfig = CONFIGURATIONS[family](
        vocab_size=shape.vocabulary,
        hidden_size=shape.width,
        intermediate_size=shape.mlp_width,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.key_value_heads,
        head_dim=shape.head_width,
        max_position_embeddings=context,
        tie_word_embeddings=shape.tied,
        rope_parameters={"rope_type": "default", "rope_theta": rope_base},
        attention_dropout=dropout,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return config


def _record(shape: Shape, ctx: Context) -> None:
    """The arithmetic, for the report."""
    ctx.log.info(
        "%d layers of width %d, %d heads (%d for keys and values), MLP of %d",
        shape.layers,
        shape.width,
        shape.heads,
        shape.key_value_heads,
        shape.mlp_width,
    )
    record_parameters(shape.blocks(), shape.vocabulary, ctx)
