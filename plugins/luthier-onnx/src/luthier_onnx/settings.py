"""What a model directory's configuration says about writing with it: sizes, the start, what is never written."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from luthier import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from luthier_models.prompts import PromptEncoder


@dataclass(frozen=True)
class Settings:
    """See the module.

    Attributes:
        vocabulary: the width of the logits.
        context: the tokens that the model can read and write in all, or on each side; 0 without a limit.
        padding: the token that batches are padded with.
        start: the token that the decoder beside an encoder begins with.
        forced: the token that such a decoder writes first, if there is one.
        banned: runs of tokens that are never written.
    """

    vocabulary: int
    context: int
    padding: int
    start: int = 0
    forced: int | None = None
    banned: tuple[tuple[int, ...], ...] = ()

    def allowed(self, logits: NDArray[np.float32], written: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """The logits, minus infinity for tokens that may not be written next, (texts, vocabulary).

        Args:
            logits: (texts, vocabulary).
            written: the tokens of each before.
        """
        if self.forced is not None and not written[0]:
            forced = np.full_like(logits, -np.inf)
            forced[:, self.forced] = 0
            return forced
        if self.banned:
            logits = logits.copy()
            for row, tokens in enumerate(written):
                for *before, last in self.banned:
                    if list(tokens[len(tokens) - len(before) :]) == before:
                        logits[row, last] = -np.inf
        return logits


def read_settings(directory: Path, encoder: PromptEncoder) -> Settings:
    """The settings of a model directory, as transformers reads them.

    Raises:
        InputError: if they are missing or damaged, or name no token that a decoder starts with.
    """
    config = _read(directory / "config.json")
    if not isinstance(config.get("vocab_size"), int):
        raise InputError(f"{directory / 'config.json'} names no `vocab_size`", "Export the model again.")
    tokenizer = encoder.tokenizer
    padding = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else min(encoder.end_tokens, default=0)
    sizes = (config["vocab_size"], encoder.context or 0, int(padding))
    if not encoder.encoder_decoder:
        return Settings(*sizes)
    path = directory / "generation_config.json"
    generation = _read(path) if path.is_file() else {}

    def said(name: str) -> Any:
        return generation[name] if generation.get(name) is not None else config.get(name)

    start = said("decoder_start_token_id")
    if start is None:
        raise InputError(
            f"{directory} does not say which token its decoder starts with (`decoder_start_token_id`)",
            "Add it to config.json: for T5 and Marian it is that of padding, for BART the end token.",
        )
    banned = tuple(tuple(map(int, run)) for run in said("bad_words_ids") or ())
    return Settings(*sizes, start=int(start), forced=said("forced_bos_token_id"), banned=banned)


def _read(path: Path) -> dict[str, Any]:
    try:
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {error}", "Export the model again.") from error
    return record
