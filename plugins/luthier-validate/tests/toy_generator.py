"""A Generator without a model: characters are tokens, and a table of bigrams predicts them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from luthier import Score

ALPHABET = "\n abcdefghijklmnopqrstuvwxyz.:"
END = 0


class ToyGenerator:
    """Bigram logits drawn from `seed`; `noise` moves them by as much as a quantizer would.

    Completions end with a line break, its end of turn. `answers` are what `generate` gives. Of plain text the logits
    end with the `context`.
    """

    def __init__(
        self,
        seed: int = 0,
        *,
        noise: float = 0.0,
        answers: dict[str, str] | None = None,
        extra_tokens: int = 0,
        context: int | None = None,
    ) -> None:
        size = (len(ALPHABET), len(ALPHABET))
        self.table = np.random.default_rng(seed).normal(size=size).astype(np.float32) * 2
        self.table += (np.random.default_rng(seed + 1).normal(size=size) * noise).astype(np.float32)
        self.answers = answers or {}
        self.extra_tokens = extra_tokens
        self.context = context
        self.asked: list[str] = []
        self.given = 0

    def tokens(self, prompt: str, completion: str) -> tuple[list[int], list[int]]:
        if prompt:
            text, end = completion, [END] * (1 + self.extra_tokens)
            return self._ids(prompt)[-1:], self._ids(text) + end
        ids = self._ids(completion)
        return ids[:1], ids[1:]

    def generate(self, prompts: Sequence[str], *, max_new_tokens: int = 128, stop: Sequence[str] = ()) -> list[str]:
        self.asked = list(prompts)
        return [self.answers[prompt][:max_new_tokens] for prompt in prompts]

    def score(self, prompts: Sequence[str], completions: Sequence[str]) -> list[Score]:
        scores = []
        for prompt, completion in zip(prompts, completions, strict=True):
            _, targets = self.tokens(prompt, completion)
            rows = self._rows(prompt, completion).astype(np.float64)
            chosen = rows[np.arange(len(targets)), targets] - np.log(np.exp(rows).sum(axis=1))
            scores.append(Score(tuple(chosen.tolist())))
        return scores

    def logits(self, prompts: Sequence[str], completions: Sequence[str]) -> Iterable[NDArray[np.float32]]:
        for prompt, completion in zip(prompts, completions, strict=True):
            self.given += 1
            yield self._rows(prompt, completion)[: None if prompt else self.context]

    def _rows(self, prompt: str, completion: str) -> NDArray[np.float32]:
        given, targets = self.tokens(prompt, completion)
        return self.table[np.array((given + targets)[:-1], dtype=int)] if targets else self.table[:0]

    def _ids(self, text: str) -> list[int]:
        return [max(1, ALPHABET.find(letter)) for letter in text]
