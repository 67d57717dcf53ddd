"""What of a tokenizer.json extending it takes: how it cuts texts into words, and its table of merges."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from luthier_models.extension.merges import Merge, learn_merges
from luthier_models.options import cannot_extend

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_BLANK = "\N{LOWER ONE EIGHTH BLOCK}"
"""What stands for a blank in tokenizers that came from sentencepiece."""

_WORD = re.compile(rf"{_BLANK}*[^{_BLANK}]+|{_BLANK}+")
_BYTE = re.compile(r"<0x[0-9A-F]{2}>")


def new_merges(backend: Tokenizer, texts: Iterable[str], *, limit: int, min_frequency: int) -> list[Merge]:
    """The merges that save most tokens on texts.

    Raises:
        InputError: if the tokenizer is not byte-pair encoding that can be continued.
    """
    record = _bpe(json.loads(backend.to_str()))
    known = backend.get_vocab(with_added_tokens=True)
    apart = {token for token in known if _BYTE.fullmatch(token)}
    apart |= {added.content for added in backend.get_added_tokens_decoder().values()}
    apart |= {record["model"].get("unk_token")}
    counted = _count_words(backend, texts)
    words: Counter[tuple[str, ...]] = Counter()
    for word, count in counted.items():
        words[tuple(each.value for each in backend.model.tokenize(word))] += count
    return learn_merges(words, limit=limit, min_frequency=min_frequency, known=known, apart=apart)


def with_merges(backend: Tokenizer, merges: Sequence[Merge]) -> str:
    """The tokenizer.json with merges after its own; the ids of old tokens stay as they are."""
    record = _bpe(json.loads(backend.to_str()))
    vocabulary = record["model"]["vocab"]
    # A token that only the list of added ones names is numbered after the model's when it is read: name it there
    # too, or new tokens would move it.
    for added in record.get("added_tokens", []):
        vocabulary.setdefault(added["content"], added["id"])
    first = max(vocabulary.values()) + 1
    for number, merge in enumerate(merges):
        vocabulary[merge.token] = first + number
        record["model"]["merges"].append([merge.left, merge.right])
    return json.dumps(record, ensure_ascii=False, indent=2)


def _count_words(backend: Tokenizer, texts: Iterable[str]) -> Counter[str]:
    """How often each word occurs, as the tokenizer's model gets it."""
    counted: Counter[str] = Counter()
    normalizer, splitter = backend.normalizer, backend.pre_tokenizer
    for text in texts:
        plain = normalizer.normalize_str(text) if normalizer else text
        parts = [part for part, _ in splitter.pre_tokenize_str(plain)] if splitter else [plain]
        for part in parts:
            # Without a splitter of its own a model of sentencepiece gets the whole text, whose words blanks begin.
            counted.update(_WORD.findall(part) if _BLANK in part else [part])
    return counted


def _bpe(record: dict[str, Any]) -> dict[str, Any]:
    model = record["model"]
    if model["type"] != "BPE" or model.get("continuing_subword_prefix") or model.get("end_of_word_suffix"):
        kind = model["type"] if model["type"] != "BPE" else "BPE with marks inside of words"
        raise cannot_extend(kind)
    return record
