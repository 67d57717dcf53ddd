"""The tokenizer of a GGUF file, as transformers reads it and llama.cpp splits texts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from gguf import GGUFReader
from tokenizers import Tokenizer, pre_tokenizers
from transformers import AutoTokenizer

from luthier import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def load_gguf_tokenizer(path: Path) -> PreTrainedTokenizerBase:
    """The tokenizer in a GGUF file, with its chat template.

    Raises:
        InputError: if it cannot be read.
    """
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            str(path.parent), gguf_file=path.name, local_files_only=True, trust_remote_code=False
        )
        splitter = _splitter(path)
    except Exception as error:
        # The readers say what is wrong with a file in whatever they stumble over: struct.error where it is cut off,
        # OverflowError for a length, UnicodeDecodeError, and from tokenizers, for merges that do not fit the
        # vocabulary, Exception itself. No narrower tuple holds.
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"{path} cannot be read as GGUF: {reason}",
            "Check that it was copied whole and that transformers supports its architecture; "
            "else use the model's safetensors.",
        ) from error
    split_digits(tokenizer.backend_tokenizer, splitter)
    return tokenizer


#: What llama.cpp calls the splitters that part every digit first and then do as GPT-2's; its `llama-vocab.cpp` has
#: them in one branch.
_DIGITS_FIRST = {"smollm", "starcoder", "refact", "command-r", "codeshell"}


def split_digits(tokenizer: Tokenizer, splitter: str) -> None:
    """Make a tokenizer that was read from GGUF split digits where its `splitter` does.

    transformers reads several of llama.cpp's splitters, and takes all others for GPT-2's. Without digits apart,
    spaces or line ends before a number become other tokens than those of the pretraining.
    """
    if splitter in _DIGITS_FIRST and isinstance(tokenizer.pre_tokenizer, pre_tokenizers.ByteLevel):
        digits = pre_tokenizers.Digits(individual_digits=True)
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, tokenizer.pre_tokenizer])


def _splitter(path: Path) -> str:
    """The name by which llama.cpp knows what splits texts for the file's tokenizer."""
    field = GGUFReader(path).get_field("tokenizer.ggml.pre")
    return "" if field is None else str(field.contents())
