"""A tokenizer.json of fewer tokens, and the other files that tell ids."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from luthier import PluginError
from luthier_prune.tokens.ranking import ids_of, pieces_of

OLD_NUMBERS = ("vocab.json", "merges.txt", "vocab.txt", "added_tokens.json", "tokenizer.model", "spiece.model")
"""Files of slow tokenizers, which would bring the old ids back."""


def without_others(record: Mapping[str, Any], kept: Sequence[int]) -> dict[str, Any]:
    """The parsed tokenizer.json with these tokens only, numbered in their order.

    Args:
        record: the parsed tokenizer.json.
        kept: old ids, rising: the new id of each is its place.
    """
    pruned: dict[str, Any] = copy.deepcopy(dict(record))
    places = {old: new for new, old in enumerate(kept)}
    ids = {token: places[number] for token, number in ids_of(record).items() if number in places}
    model = pruned["model"]
    if isinstance(model["vocab"], list):
        model["vocab"] = [entry for number, entry in enumerate(model["vocab"]) if number in places]
        if model.get("unk_id") is not None:
            model["unk_id"] = places[model["unk_id"]]
    else:
        # Added tokens are named too: those that only their list names are numbered after the others when it is read.
        model["vocab"] = dict(sorted(ids.items(), key=lambda item: item[1]))
    if "merges" in model:
        merges = (pieces_of(merge) for merge in model["merges"])
        model["merges"] = [[a, b] for a, b in merges if a in ids and b in ids and a + b in ids]
    for added in pruned.get("added_tokens") or ():
        added["id"] = places[added["id"]]
    if pruned.get("padding"):
        pruned["padding"]["pad_id"] = places[pruned["padding"]["pad_id"]]
    _renumber_processor(pruned.get("post_processor"), ids)
    _check(pruned, ids)
    return pruned


def write_tokenizer(output: Path, pruned: Mapping[str, Any]) -> None:
    """Write the pruned tokenizer.json, and put right what lies beside it in `output` already."""
    (output / "tokenizer.json").write_text(json.dumps(pruned, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    for name in OLD_NUMBERS:
        (output / name).unlink(missing_ok=True)
    path = output / "tokenizer_config.json"
    if path.is_file():
        settings = json.loads(path.read_text(encoding="utf-8"))
        decoder = settings.get("added_tokens_decoder")
        if decoder:
            ids = ids_of(pruned)
            settings["added_tokens_decoder"] = {str(ids[each["content"]]): each for each in decoder.values()}
            path.write_text(json.dumps(settings, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def _renumber_processor(processor: Any, ids: Mapping[str, int]) -> None:
    """What is put around texts: templates list ids beside tokens, and processors of BERT's form do in pairs."""
    if not isinstance(processor, dict):
        return
    for inner in processor.get("processors") or ():
        _renumber_processor(inner, ids)
    for special in (processor.get("special_tokens") or {}).values():
        special["ids"] = [ids[token] for token in special["tokens"]]
    for name in ("sep", "cls"):
        if name in processor:
            token = processor[name][0]
            processor[name] = [token, ids[token]]


def _check(pruned: Mapping[str, Any], ids: Mapping[str, int]) -> None:
    """See that the tokenizers library numbers the tokens as we do."""
    found = Tokenizer.from_str(json.dumps(pruned)).get_vocab(with_added_tokens=True)
    wrong = [token for token, number in ids.items() if found.get(token) != number]
    if wrong or len(found) != len(ids):
        raise PluginError(
            f"the pruned tokenizer would number {wrong[0] if wrong else 'other tokens'!r} otherwise than the model",
            "Report this, with the tokenizer.json.",
        )
