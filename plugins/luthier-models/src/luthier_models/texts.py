"""What every runtime does with texts: encode them into the model's context, cut completions, tell progress."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import TYPE_CHECKING

from luthier import InputError, Score

Window = tuple[list[int], list[int]]
"""The ids that are given, and those that are scored after them."""

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

    def windows(self, prompts: Sequence[Prompt], completions: Sequence[str]) -> list[list[Window]]:
        """As `pairs`, but plain text (without a prompt) that does not fit is read in several windows.

        Each window but the first is full, and scores what comes after the middle of it: every token is scored
        once, and has at least half a context before it.

        Raises:
            InputError: if a completion does not fit after its prompt.
        """
        found: list[list[Window]] = []
        for prompt, completion in zip(prompts, completions, strict=True):
            if prompt or not self._context or self._encoder.encoder_decoder:
                found.append([*self.pairs([prompt], [completion])])
            else:
                given, targets = self._encoder.pair(prompt, completion)
                found.append([*_windows([*given, *targets], len(given), self._context)])
        return found

    def beginnings(self, prompts: Sequence[Prompt], completions: Sequence[str]) -> list[Window]:
        """As `windows`, the first of each text: all of it, or as much of plain text as fits.

        Raises:
            InputError: if a completion does not fit after its prompt.
        """
        return [first for first, *_ in self.windows(prompts, completions)]

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


def _windows(ids: list[int], given: int, context: int) -> Iterator[Window]:
    first = context + 1  # The last target is predicted, never read.
    yield ids[:given], ids[given:first]
    for start in range(first, len(ids), max(1, context // 2)):
        end = min(start + max(1, context // 2), len(ids))
        yield ids[end - first : start], ids[start:end]


def joined(windows: Sequence[Sequence[Window]], scores: Sequence[Score]) -> list[Score]:
    """The score of each text, from those of all its windows, one after the other."""
    of_windows = iter(scores)
    return [
        Score(tuple(chain.from_iterable(next(of_windows).log_probabilities for _ in windows_of_text)))
        for windows_of_text in windows
    ]


def cut_at_stop(text: str, stop: Sequence[str]) -> str:
    """The text before the first of the stop strings; all of it where there is none."""
    ends = [text.index(mark) for mark in stop if mark in text]
    return text[: min(ends)] if ends else text


def report_progress(ctx: Context | None, done: int, total: int) -> None:
    """Tell the engine, where there is one, how many of the texts are done."""
    if ctx is not None:
        ctx.progress(done, total)
