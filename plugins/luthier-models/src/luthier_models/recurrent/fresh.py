"""New recurrent models with a tokenizer of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from luthier_models.corpus import split_texts
from luthier_models.normalise import save_model
from luthier_models.recurrent.language_model import RnnConfig
from luthier_models.recurrent.seq2seq import RnnSeq2SeqConfig
from luthier_models.recurrent.seq2seq_sizes import pair_shape
from luthier_models.recurrent.sizes import RecurrentWishes, recurrent_shape
from luthier_models.untrained import initialised, record_shape
from luthier_models.vocabularies import train_tokenizer

if TYPE_CHECKING:
    from luthier import Context, Dataset
    from luthier_models import Vocabulary


def write_rnn_lm(
    data: Dataset, ctx: Context, *, budget: int, wishes: RecurrentWishes, vocabulary: Vocabulary, dropout: float
) -> None:
    """Train the tokenizer on the training split, choose the width, and write the untrained model to `ctx.output`.

    Raises:
        InputError: if the budget is too small for the tokenizer, or there is nothing to train that on.
    """
    tokenizer = train_tokenizer(split_texts(data, "train"), vocabulary)
    shape = recurrent_shape(budget, len(tokenizer), wishes)
    config = RnnConfig(
        vocab_size=shape.vocabulary,
        cell=shape.cell,
        embedding_size=shape.embedding_width,
        hidden_size=shape.width,
        num_hidden_layers=shape.layers,
        dropout=dropout,
        tie_word_embeddings=shape.tied,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    save_model(initialised(config, "causal-lm", ctx.seed), tokenizer, ctx.output)
    record_shape(shape, ctx)


def write_rnn_seq2seq(
    data: Dataset, ctx: Context, *, budget: int, wishes: RecurrentWishes, vocabulary: Vocabulary, dropout: float
) -> None:
    """Train one tokenizer for both sides, choose the width, and write the untrained model to `ctx.output`.

    Raises:
        InputError: if the budget is too small for the tokenizer, or there is nothing to train that on.
    """
    tokenizer = train_tokenizer(split_texts(data, "train"), vocabulary, closes_texts=True)
    shape = pair_shape(budget, len(tokenizer), wishes)
    config = RnnSeq2SeqConfig(
        vocab_size=shape.vocabulary,
        cell=shape.cell,
        embedding_size=shape.embedding_width,
        hidden_size=shape.width,
        num_hidden_layers=shape.layers,
        dropout=dropout,
        decoder_start_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    save_model(initialised(config, "seq2seq-lm", ctx.seed), tokenizer, ctx.output)
    record_shape(shape, ctx)
