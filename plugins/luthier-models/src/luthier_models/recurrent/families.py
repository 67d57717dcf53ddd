"""The recurrent families: which shape a model has within a budget, and the configuration of one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from luthier_models.recurrent.language_model import RnnConfig
from luthier_models.recurrent.seq2seq import RnnSeq2SeqConfig
from luthier_models.recurrent.seq2seq_sizes import pair_shape
from luthier_models.recurrent.sizes import recurrent_shape

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from luthier_models.recurrent.seq2seq_sizes import RecurrentPairShape
    from luthier_models.recurrent.sizes import RecurrentShape, RecurrentWishes


class RnnLm:
    """Recurrent language models; a `luthier_models.families.table.Family`."""

    def shape(self, budget: int, vocabulary: int, design: RecurrentWishes) -> RecurrentShape:
        """The widest shape within a budget; see `recurrent_shape`."""
        return recurrent_shape(budget, vocabulary, design)

    def configuration(
        self, shape: RecurrentShape, design: RecurrentWishes, tokenizer: PreTrainedTokenizerBase
    ) -> RnnConfig:
        """The configuration of a model of this shape."""
        return RnnConfig(
            **_layers(shape, design),
            tie_word_embeddings=shape.tied,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )


class RnnSeq2Seq:
    """Recurrent encoder-decoders; a `luthier_models.families.table.Family`."""

    def shape(self, budget: int, vocabulary: int, design: RecurrentWishes) -> RecurrentPairShape:
        """The widest shape within a budget; see `pair_shape`."""
        return pair_shape(budget, vocabulary, design)

    def configuration(
        self, shape: RecurrentPairShape, design: RecurrentWishes, tokenizer: PreTrainedTokenizerBase
    ) -> RnnSeq2SeqConfig:
        """The configuration of a model of this shape."""
        return RnnSeq2SeqConfig(
            **_layers(shape, design),
            decoder_start_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )


def _layers(shape: RecurrentShape, design: RecurrentWishes) -> dict[str, Any]:
    """What the configurations of both have."""
    return {
        "vocab_size": shape.vocabulary,
        "cell": shape.cell,
        "embedding_size": shape.embedding_width,
        "hidden_size": shape.width,
        "num_hidden_layers": shape.layers,
        "dropout": design.dropout,
    }
