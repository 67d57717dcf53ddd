"""A byte-level BPE tokenizer in a GGUF file: tokens with their kinds, merges, what splits texts, special tokens.

llama.cpp does not read what splits a text before merges apply; it knows the splitters that exist, by name
(`llama_vocab`, `LLAMA_VOCAB_PRE_TYPE_*`). The name is found here by what the tokenizer does, so that it also is for
one that was trained this morning.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gguf import SpecialVocab, TokenType

from luthier import InputError

if TYPE_CHECKING:
    from gguf import GGUFWriter
    from transformers import PreTrainedTokenizerBase

    from luthier_models.prompts import PromptEncoder

_LETTERS = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_ENGLISH = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_SPLITTERS = {
    (rf"{_ENGLISH}|{_LETTERS}|\p{{N}}|{_REST}", False): "qwen2",
    (rf"{_ENGLISH}|{_LETTERS}|\p{{N}}{{1,3}}|{_REST}", False): "dbrx",
    (rf"{_ENGLISH}|{_LETTERS}|\p{{N}}{{1,3}}|{_REST}", True): "llama-bpe",
}
"""llama.cpp's name, by the pattern that tokens stay within and by whether a whole word may be a token without a merge
that makes it."""


def write_vocabulary(writer: GGUFWriter, encoder: PromptEncoder, directory: Path, rows: int) -> None:
    """Add a tokenizer and its chat template to a file.

    Args:
        writer: of the file.
        encoder: with the tokenizer.
        directory: where the tokenizer's files are.
        rows: of the embedding, which may be more than there are tokens.

    Raises:
        InputError: if llama.cpp cannot tokenise as it does.
    """
    tokenizer: Any = encoder.tokenizer
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise InputError("the tokenizer has no tokenizer.json, which the exporter gguf reads", _ADVICE)
    name = splitter(json.loads(backend.to_str()))
    if len(tokenizer) > rows:
        raise InputError(
            f"the tokenizer has {len(tokenizer)} tokens, and the embedding {rows} rows",
            "Fetch the model again; its tokenizer and its weights do not belong together.",
        )
    tokens = [f"[PAD{row}]" for row in range(rows)]
    types = [TokenType.UNUSED] * rows
    for token, row in tokenizer.get_vocab().items():
        tokens[row], types[row] = token, TokenType.NORMAL
    for row, added in tokenizer.added_tokens_decoder.items():
        types[row] = TokenType.CONTROL if added.special else TokenType.USER_DEFINED
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(name)
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    special = SpecialVocab(directory, load_merges=True, n_vocab=rows)
    special.special_token_ids = _special_tokens(encoder)
    special.add_special_token = _added_tokens(tokenizer)
    special.chat_template = tokenizer.chat_template
    special.add_to_gguf(writer, quiet=True)


def splitter(tokenizer: dict[str, Any]) -> str:
    """llama.cpp's name of what splits texts, of a `tokenizer.json`.

    Raises:
        InputError: if it has none, or does not know such tokenizers at all.
    """
    model, normalizer, split = tokenizer["model"], tokenizer["normalizer"], tokenizer["pre_tokenizer"]
    if model["type"] != "BPE" or model.get("byte_fallback") or not model["merges"]:
        kind = "BPE without merges" if model["type"] == "BPE" and not model["merges"] else model["type"]
        raise InputError(f"the exporter gguf cannot write a tokenizer of the kind {kind}", _ADVICE)
    # Qwen's tokenizer brings texts into NFC first; llama.cpp leaves that to whoever calls it.
    if normalizer is not None and normalizer["type"] != "NFC":
        raise InputError(f"llama.cpp does not change texts as the tokenizer's {normalizer['type']} does", _ADVICE)
    parts = split["pretokenizers"] if split and split["type"] == "Sequence" else [split or {"type": "nothing"}]
    kinds = [part["type"] for part in parts]
    last = parts[-1]
    if kinds[-1] == "ByteLevel" and not last.get("add_prefix_space"):
        if kinds == ["ByteLevel"] and last.get("use_regex", True):
            return "gpt-2"
        if kinds == ["Digits", "ByteLevel"] and parts[0].get("individual_digits") and last.get("use_regex", True):
            return "smollm"
        if kinds == ["Split", "ByteLevel"] and parts[0].get("behavior") == "Isolated":
            key = (parts[0]["pattern"].get("Regex", ""), bool(model.get("ignore_merges")))
            if key in _SPLITTERS and not last.get("use_regex", True):
                return _SPLITTERS[key]
    raise InputError(f"llama.cpp knows nothing that splits texts as this tokenizer does ({', '.join(kinds)})", _ADVICE)


_ADVICE = (
    "It writes byte-level BPE that splits texts as the tokenizers of GPT-2, SmolLM, Qwen 2, OLMo 2 or Llama 3 do "
    "(`tokenizer: {kind: bpe}` of the architecture `fresh`). `export: genai` takes others."
)


def _special_tokens(encoder: PromptEncoder) -> dict[str, int]:
    """The ids of the special tokens by llama.cpp's names; `eot` is what ends a turn, if the text's end does not."""
    tokenizer = encoder.tokenizer
    named = {kind: getattr(tokenizer, f"{kind}_token_id") for kind in ("bos", "eos", "unk", "pad")}
    others = sorted(encoder.end_tokens - {named["eos"]})
    if others:
        named["eos" if named["eos"] is None else "eot"] = others[0]
    return {kind: int(token) for kind, token in named.items() if token is not None}


def _added_tokens(tokenizer: PreTrainedTokenizerBase) -> dict[str, bool]:
    """Which special tokens the tokenizer puts around a text; the defaults of llama.cpp's splitters are others."""
    bare, whole = (list(tokenizer("a", add_special_tokens=special)["input_ids"]) for special in (False, True))
    at_start = len(whole) > len(bare) and whole[0] == tokenizer.bos_token_id
    at_end = len(whole) > len(bare) + at_start and whole[-1] == tokenizer.eos_token_id
    return {"bos": at_start, "eos": at_end}
