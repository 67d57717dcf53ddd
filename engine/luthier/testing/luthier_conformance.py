"""The kit's side in a worker: a one-file plugin that installs the guard and gives a runtime for a toy model.

Loaded by path, so that the worker itself is the one that runs recipes.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from luthier import InputError, Model, Score, hookimpl
from luthier.testing import guard

if TYPE_CHECKING:
    from numpy import float32
    from numpy.typing import NDArray

DIRECTORY = "LUTHIER_CONFORMANCE_DIRECTORY"
"""The environment variable that names the directory to work in."""

END = 256
WINDOW = 512
"""Bytes of a text that the toy model reads."""


class ToyGenerator:
    """Bigrams of bytes with logits drawn from a seed: deterministic, and a model's behaviour in miniature."""

    def __init__(self, seed: int) -> None:
        try:
            import numpy as np
        except ImportError as error:
            raise InputError("validators are checked with numpy, which is missing", "pip install numpy") from error
        self._np = np
        self._table = np.random.default_rng(seed).normal(scale=2.0, size=(END + 1, END + 1)).astype(np.float32)

    def generate(self, prompts: Sequence[str], *, max_new_tokens: int = 128, stop: Sequence[str] = ()) -> list[str]:
        """The last words of each prompt."""
        return [" ".join(prompt.split()[-min(8, max_new_tokens) :]) for prompt in prompts]

    def score(self, prompts: Sequence[str], completions: Sequence[str]) -> list[Score]:
        """Log-probabilities of the completions' bytes and of the end."""
        np = self._np
        scores = []
        for prompt, completion in zip(prompts, completions, strict=True):
            before, tokens = _tokens(prompt, completion)
            rows = self._table[before].astype(np.float64)
            chosen = rows[np.arange(len(tokens)), tokens] - np.log(np.exp(rows).sum(axis=1))
            scores.append(Score(tuple(chosen.tolist())))
        return scores

    def logits(self, prompts: Sequence[str], completions: Sequence[str]) -> Iterable[NDArray[float32]]:
        """The rows of the table that predict the completions' bytes."""
        for prompt, completion in zip(prompts, completions, strict=True):
            yield self._table[_tokens(prompt, completion)[0]]


def _tokens(prompt: str, completion: str) -> tuple[list[int], list[int]]:
    """For each byte of the completion, and for its end, the byte before it and itself."""
    tokens = list(completion.encode()[:WINDOW])
    if prompt:
        tokens = [prompt.encode()[-1], *tokens, END]
    return tokens[:-1], tokens[1:]


def conformance_toy(model: Model) -> ToyGenerator:
    """Load the toy model that validators are checked with."""
    return ToyGenerator(json.loads((model.path / "toy.json").read_text(encoding="utf-8"))["seed"])


@hookimpl
def luthier_runtimes() -> list[Callable[..., Any]]:
    """Give the toy's runtime."""
    return [conformance_toy]


if DIRECTORY in os.environ:
    os.chdir(os.environ[DIRECTORY])
guard.install_from_environment()
