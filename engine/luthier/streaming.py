"""Completions token by token: what a runtime gives besides `generate`, for serving and for sampling."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

from luthier.artifacts import Prompt
from luthier.errors import InputError

MAX_SEED = 2**64 - 1
MAX_ALTERNATIVES = 20


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen among all: the default is greedily, the most probable one.

    Logits are divided by the temperature; of the tokens, the `top_k` most probable stay, and of those the fewest whose
    probabilities reach `top_p` together, each where it is asked for (nucleus sampling, Holtzman et al. 2020). The same
    seed gives the same tokens for the same logits, whatever runtime they are from.

    Args:
        temperature: 0 for the most probable token; from 0 on.
        top_k: how many tokens at most; 0 for all.
        top_p: above 0, to 1 for all.
        seed: of the draws.

    Raises:
        InputError: if one of them is none of these.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name, value, right in (
            ("temperature", self.temperature, math.isfinite(self.temperature) and self.temperature >= 0),
            ("top_k", self.top_k, self.top_k >= 0),
            ("top_p", self.top_p, 0 < self.top_p <= 1),
            ("seed", self.seed, 0 <= self.seed <= MAX_SEED),
        ):
            if not right:
                raise InputError(
                    f"{name} is {value}", "temperature and top_k are 0 or more, top_p is in (0, 1], seed is 64 bits."
                )


@dataclass(frozen=True)
class Alternative:
    """A token that might have been written, and the natural-log probability that the model gave it."""

    id: int
    piece: str
    log_probability: float


@dataclass(frozen=True)
class Token:
    """One token of a completion.

    Attributes:
        id: its number.
        piece: the token by itself, as text.
        text: by what the completion has grown: empty for a special token, and while a character is incomplete.
        log_probability: natural, of the model's own distribution, whatever the sampling.
        alternatives: the most probable tokens, as many as were asked for.
        end: why the completion ends with it: by a token that ends turns (`stop`), or since there is no more room
            (`length`); empty while it goes on.
    """

    id: int
    piece: str
    text: str
    log_probability: float
    alternatives: tuple[Alternative, ...] = ()
    end: Literal["", "stop", "length"] = ""


class Stream(Protocol):
    """One completion on its way; several of a model's go on side by side, a step each in turn.

    Attributes:
        prompt_tokens: of the prompt.
    """

    prompt_tokens: int

    def read(self) -> int:
        """Read the next of the prompt's tokens, 128 at most; gives how many are left to read."""
        ...

    def step(self) -> Token:
        """The next token, once the prompt is read and until one has an `end`."""
        ...

    def close(self) -> None:
        """Free what it holds. May be called at any time, and again."""
        ...


@runtime_checkable
class Streaming(Protocol):
    """A `Generator` that also completes token by token; its runtime declares `@component(streams=True)`."""

    def open(
        self,
        prompt: Prompt,
        *,
        max_new_tokens: int = 128,
        sampling: Sampling = Sampling(),
        alternatives: int = 0,
        schema: str | None = None,
        template: bool = True,
    ) -> Stream:
        """Begin a completion. Memory is taken when its prompt is first read, for as many tokens as it may have.

        Args:
            prompt: what the model is asked.
            max_new_tokens: after which it ends with `length`, or before, where the model's context ends.
            sampling: how tokens are chosen.
            alternatives: of how many of the most probable tokens each token tells, up to 20.
            schema: JSON Schema, as JSON, that the completion keeps to.
            template: whether the model's chat template is put around a text; without it, the text is continued.

        Raises:
            InputError: if the prompt leaves no room for a token, has none, cannot be rendered, or the schema is none.
        """
        ...


def streaming(generator: object, runtime: str) -> Streaming:
    """The same generator, as one that completes token by token.

    Raises:
        InputError: if it is none: the runtime's classifiers, for example.
    """
    if isinstance(generator, Streaming):
        return generator
    raise InputError(
        f"{runtime} does not write such models' answers token by token, so they can neither be sampled nor served",
        "Ask it greedily: luthier generate, without --temperature.",
    )


def completed(stream: Stream) -> Iterator[Token]:
    """All tokens of a completion, one after the other."""
    try:
        while stream.read():
            pass
        while True:
            token = stream.step()
            yield token
            if token.end:
                return
    finally:
        stream.close()
