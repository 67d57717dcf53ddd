"""What every runtime does with texts: encode them into the model's context, cut completions, tell progress."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from luthier import InputError

if TYPE_CHECKING:
    from luthier import Context, Prompt
    from luthier_models.prompts import PromptEncoder


class TextEncoder:
    """A model's prompt encoder that refuses what does not fit into the model's context.

    Args:
        encoder: the model's prompt encoder.
        context: the tokens that the model can read and write in all, or on each side of an encoder-decoder; 0
            where it sets no limit.
    """

    def __init__(self, encoder: PromptEncoder, context: int) -> None:
        self._encoder = encoder
        self._context = context

    def prompts(self, prompts: Sequence[Prompt], max_new_tokens: int) -> list[list[int]]:
        """The ids of each prompt.

        Raises:
            InputError: if one with `max_new_tokens` after it does not fit.
        """
        encoded = [self._encoder.prompt(prompt) for prompt in prompts]
        for ids in encoded:
            self._check_lengths(len(ids), max_new_tokens)
        return encoded

    def pairs(self, prompts: Sequence[Prompt], completions: Sequence[str]) -> list[tuple[list[int], list[int]]]:
        """The ids that are given and those that are scored, of each prompt with its completion.

        Raises:
            InputError: if a pair does not fit.
        """
        pairs = [self._encoder.pair(*texts) for texts in zip(prompts, completions, strict=True)]
        for given, targets in pairs:
            # The last target is predicted, never read.
            self._check_lengths(len(given), len(targets) - 1)
        return pairs

    def _check_lengths(self, given: int, written: int) -> None:
        if self._encoder.encoder_decoder:
            self._check_length(given)
            self._check_length(written + 1)  # with the start token
        else:
            self._check_length(given + written)

    def _check_length(self, tokens: int) -> None:
        if self._context and tokens > self._context:
            raise InputError(
                f"a text of {tokens} tokens does not fit into the model's context of {self._context}",
                "Shorten or leave out such texts (a `length` cleaner), or use a model with a longer context.",
            )


def cut_at_stop(text: str, stop: Sequence[str]) -> str:
    """The text before the first of the stop strings; all of it where there is none."""
    ends = [text.index(mark) for mark in stop if mark in text]
    return text[: min(ends)] if ends else text


def report_progress(ctx: Context | None, done: int, total: int) -> None:
    """Tell the engine, where there is one, how many of the texts are done."""
    if ctx is not None:
        ctx.progress(done, total)
