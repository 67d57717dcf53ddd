"""Which tokens go first: those that a corpus uses least, none before what is made of it."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from luthier import InputError

_BLANK = "\N{LOWER ONE EIGHTH BLOCK}"
"""What stands for a blank in tokenizers that came from sentencepiece: decoding puts it back before it joins bytes."""

_BYTE = re.compile(r"<0x[0-9A-F]{2}>")


@dataclass(frozen=True)
class Ranking:
    """The tokens of a vocabulary, by id.

    Attributes:
        order: all ids; any beginning that has the `fixed` first ones is a vocabulary that hangs together.
        fixed: how many of them cannot go.
        uses: how often each token, or one that is made of it, occurs.
    """

    order: list[int]
    fixed: int
    uses: Mapping[int, int]


def rank(record: Mapping[str, Any], counts: Mapping[int, int], fixed: Collection[int]) -> Ranking:
    """Rank the tokens of a tokenizer.json.

    A token that byte-pair encoding makes of two others needs both, so its uses are theirs as well. Texts whose
    tokens all stay are then encoded as before: every merge on the way to a token that stays is still there, and
    merges that were not chosen before are not chosen now. For a unigram model the best of all paths is also the best
    of those that are left.

    Args:
        record: the parsed tokenizer.json.
        counts: how often each id occurs.
        fixed: ids that cannot go, besides added tokens and what every text is made of.

    Raises:
        InputError: if tokens of such a tokenizer cannot be dropped.
    """
    model = record["model"]
    _check_kind(model)
    ids = ids_of(record)
    added = {added["id"] for added in record.get("added_tokens") or ()}
    kept = added | set(fixed) | {ids[token] for token in _atoms(model, ids)}
    if model.get("unk_token") in ids:
        kept.add(ids[model["unk_token"]])
    if model.get("unk_id") is not None:
        kept.add(int(model["unk_id"]))
    uses = {number: counts.get(number, 0) for number in ids.values()}
    parts = _parts(model)
    # What a token is made of is shorter than it, so that its own uses are known by then.
    for token in sorted(parts, key=len, reverse=True):
        for part in parts[token]:
            uses[ids[part]] += uses[ids[token]]
    # The parts of what cannot go cannot go either.
    names = {number: token for token, number in ids.items()}
    open_ends = list(kept)
    while open_ends:
        for part in parts.get(names[open_ends.pop()], ()):
            if ids[part] not in kept:
                kept.add(ids[part])
                open_ends.append(ids[part])
    order = sorted(names, key=lambda number: (number not in kept, -uses[number], len(names[number]), number))
    return Ranking(order, len(kept), uses)


def ids_of(record: Mapping[str, Any]) -> dict[str, int]:
    """The ids of a tokenizer.json's tokens, of added ones too."""
    vocabulary = record["model"]["vocab"]
    if isinstance(vocabulary, list):
        vocabulary = {piece: number for number, (piece, _) in enumerate(vocabulary)}
    added = {each["content"]: each["id"] for each in record.get("added_tokens") or ()}
    return {**vocabulary, **added}


def count_tokens(examples: Iterable[tuple[Iterable[int], Iterable[int]]]) -> dict[int, int]:
    """How often each id occurs in pairs of ids."""
    counts: dict[int, int] = {}
    for pair in examples:
        for part in pair:
            for number in part:
                counts[number] = counts.get(number, 0) + 1
    return counts


def pieces_of(merge: Any) -> tuple[str, str]:
    """The two sides of a merge, which older files write as one text."""
    left, right = merge.split(" ") if isinstance(merge, str) else merge
    return left, right


def _check_kind(model: Mapping[str, Any]) -> None:
    marks = model.get("continuing_subword_prefix") or model.get("end_of_word_suffix")
    if model["type"] in ("BPE", "Unigram") and not marks:
        return
    kind = "BPE with marks inside of words" if marks and model["type"] == "BPE" else model["type"]
    raise InputError(
        f"tokens of a vocabulary of the kind {kind} cannot be dropped: texts with them could not be written any more",
        "Byte-pair encoding (the tokenizers of Llama, Qwen, SmolLM, GPT-2) and unigram vocabularies can be pruned; or "
        "train a tokenizer of the size that you want (`architecture: fresh`).",
    )


def _atoms(model: Mapping[str, Any], ids: Mapping[str, int]) -> set[str]:
    """What every text can be made of: all bytes, where they stand for what is unknown; else all single characters."""
    fallback = {token for token in ids if _BYTE.fullmatch(token)}
    if model.get("byte_fallback") and len(fallback) == 256:
        return fallback | ({_BLANK} & ids.keys())
    return {token for token in ids if len(token) == 1} | fallback


def _parts(model: Mapping[str, Any]) -> dict[str, set[str]]:
    """What each token is made of, by all merges that give it."""
    parts: dict[str, set[str]] = {}
    for merge in model.get("merges") or ():
        left, right = pieces_of(merge)
        parts.setdefault(left + right, set()).update((left, right))
    return parts
