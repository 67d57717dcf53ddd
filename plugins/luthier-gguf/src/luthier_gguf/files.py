"""A GGUF file where a user or a step put it, and the prompts that its model reads."""

from __future__ import annotations

from pathlib import Path

from gguf import GGUFReader

from luthier import InputError
from luthier_models.checks import is_gguf
from luthier_models.gguf_tokenizer import load_gguf_tokenizer
from luthier_models.prompts import PromptEncoder

_TOKENIZER = "tokenizer.json"
_ENDS = ("tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id")


def find_gguf(path: Path) -> Path:
    """The GGUF file at `path`, or the only one in the directory `path`.

    Raises:
        InputError: if there is none, or several.
    """
    found = [path] if path.is_file() else sorted(path.glob("*.gguf"))
    if len(found) != 1:
        names = ", ".join(file.name for file in found)
        raise InputError(
            f"{path} holds several GGUF files: {names}" if found else f"{path} holds no GGUF file",
            "Name the file itself." if found else "Export the model with `export: gguf`.",
        )
    if not is_gguf(found[0]):
        raise InputError(f"{found[0]} is no GGUF file: it begins otherwise", "Copy it again from where it came.")
    return found[0]


def has_tokenizer_beside(file: Path) -> bool:
    """Whether the tokenizer's own files lie beside a GGUF file, as the exporter `gguf` writes them."""
    return (file.parent / _TOKENIZER).is_file()


def read_encoder(file: Path) -> PromptEncoder:
    """How texts become the tokens of a GGUF model: as the tokenizer's files beside it say, or else the file itself.

    Raises:
        InputError: if neither can be read.
    """
    if has_tokenizer_beside(file):
        return PromptEncoder.from_directory(file.parent)
    reader = GGUFReader(file)
    fields = [reader.get_field(name) for name in _ENDS]
    return PromptEncoder(load_gguf_tokenizer(file), [int(each.contents()) for each in fields if each is not None])
