"""Tokenizers trained on the data: bytes, characters, words, byte-pair encoding, unigrams."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from luthier import InputError
from luthier_models.options import least_size

if TYPE_CHECKING:
    from luthier_models.options import Vocabulary

PAD, END, UNKNOWN = "<|pad|>", "<|endoftext|>", "<|unknown|>"
SPECIAL = [PAD, END, UNKNOWN]
_LONG_WORD = re.compile(r"\S{256}")


def train_tokenizer(
    texts: Iterable[str], vocabulary: Vocabulary, *, closes_texts: bool = False
) -> PreTrainedTokenizerFast:
    """Train a tokenizer; the same texts in the same order give the same bytes.

    Every text begins with the end token, so that a model learns its first token too; or ends with it, for an
    encoder that reads whole texts and a decoder that starts with another. `byte` and `bpe` encode every text;
    what the others do not know becomes the unknown token.

    Args:
        texts: of the training split.
        vocabulary: kind and size; see `luthier_models.options.Vocabulary`.
        closes_texts: whether the end token is at the end.

    Raises:
        InputError: if the size is too small, or there is no text.
    """
    least_size(vocabulary)
    tokenizer = _train(_some(texts), vocabulary)
    end = tokenizer.token_to_id(END)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {END}" if closes_texts else f"{END} $A", special_tokens=[(END, end)]
    )
    tokens: Any = {"bos_token": END, "eos_token": END, "pad_token": PAD, "unk_token": UNKNOWN}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **tokens)  # type: ignore[no-untyped-call]


def _some(texts: Iterable[str]) -> Iterable[str]:
    """The texts, with breaks in what has none for long, and an error where there is no text."""
    empty = True
    for text in texts:
        empty = empty and not text
        # Byte-pair encoding goes over a whole word for each merge: one of a megabyte would take hours.
        yield _LONG_WORD.sub(r"\g<0> ", text)
    if empty:
        raise InputError("there is no text to train a tokenizer on", "Check what the split `train` holds.")


def _train(texts: Iterable[str], vocabulary: Vocabulary) -> Tokenizer:
    shown: dict[str, Any] = {"special_tokens": SPECIAL, "show_progress": False}
    size = vocabulary.size
    if vocabulary.kind in ("byte", "bpe"):
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        limit = len(SPECIAL) + len(alphabet) if vocabulary.kind == "byte" else size
        trainer: Any = trainers.BpeTrainer(vocab_size=limit, initial_alphabet=alphabet, **shown)
    elif vocabulary.kind == "unigram":
        tokenizer = Tokenizer(models.Unigram())
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
        tokenizer.decoder = decoders.Metaspace(prepend_scheme="never")
        trainer = trainers.UnigramTrainer(vocab_size=size, unk_token=UNKNOWN, **shown)
    else:
        # Blanks are tokens of their own, so that decoding gives back the text.
        pieces = r"[\s\S]" if vocabulary.kind == "character" else r"\s|\w+|[^\w\s]"
        tokenizer = Tokenizer(models.WordLevel(unk_token=UNKNOWN))
        tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(pieces), "isolated")
        tokenizer.decoder = decoders.Fuse()
        trainer = trainers.WordLevelTrainer(vocab_size=size, **shown)
    if vocabulary.lowercase:
        tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer
