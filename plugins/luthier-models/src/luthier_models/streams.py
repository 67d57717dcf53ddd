"""Completions token by token, over any session that reads tokens and keeps their states; see `luthier.Streaming`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from luthier import Alternative, InputError, Sampling, Token
from luthier_models.sampling import Sampler

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from luthier import Prompt
    from luthier_models.guidance import Guide
    from luthier_models.one_by_one import Session
    from luthier_models.prompts import PromptEncoder

# The logits of 128 positions with a vocabulary of 50,000 take 25 MB, those of a whole context of 8,192 would take
# 1.6 GB. And other completions wait for as long as one chunk takes.
CHUNK = 128


@dataclass(frozen=True)
class Wanted:
    """What `luthier.Streaming.open` was asked for."""

    max_new_tokens: int
    sampling: Sampling
    alternatives: int
    schema: str | None
    template: bool


class SessionStream:
    """One completion; a `luthier.Stream`.

    Args:
        encoder: the model's prompt encoder.
        begin: gives the session, with room for so many tokens; called when the prompt is first read.
        prompt: what is asked.
        wanted: how.
        context: the tokens that the model can read and write in all; 0 where it sets no limit.

    Raises:
        InputError: see `luthier.Streaming`.
    """

    def __init__(
        self, encoder: PromptEncoder, begin: Callable[[int], Session], prompt: Prompt, wanted: Wanted, context: int
    ) -> None:
        self._encoder = encoder
        self._begin = begin
        self._unread = prompt_ids(encoder, prompt, template=wanted.template)
        self.prompt_tokens = len(self._unread)
        # An encoder-decoder writes beside its prompt, after a start token; others write after it.
        taken = max(1, self.prompt_tokens - context + 1) if encoder.encoder_decoder else self.prompt_tokens
        room = context - taken if context else wanted.max_new_tokens
        if not self.prompt_tokens:
            raise InputError("the prompt is empty", "Ask something.")
        if room < 1:
            raise InputError(
                f"a prompt of {self.prompt_tokens} tokens leaves no room in the model's context of {context}",
                "Shorten it, or use a model with a longer context.",
            )
        self._left = min(wanted.max_new_tokens, room)
        self._alternatives = wanted.alternatives
        self._sampler = Sampler(wanted.sampling)
        self._guide = _guide(encoder, wanted.schema)
        self._text = GrowingText(encoder)
        self._session: Session | None = None
        self._written: int | None = None

    def read(self) -> int:
        """See `luthier.Stream`."""
        if self._unread:
            if self._session is None:
                self._session = self._begin(self.prompt_tokens + self._left)
            chunk, self._unread = self._unread[:CHUNK], self._unread[CHUNK:]
            self._session.read(np.asarray(chunk, np.int32), 0 if self._unread else 1)
        return len(self._unread)

    def step(self) -> Token:
        """See `luthier.Stream`."""
        if self._session is None or self._left < 1:
            raise RuntimeError("the completion has ended, or its prompt is not read")
        if self._written is not None:
            # What was written is read only now, since nothing may have to follow it.
            self._session.read(np.asarray([self._written], np.int32), 1)
        logits = self._session.logits()[-1]
        token = self._sampler.choose(self._guide.allowed(logits) if self._guide else logits)
        self._written = token
        self._left -= 1
        finished = token in self._encoder.end_tokens
        text = "" if finished else self._text.add(token)
        finished = finished or (self._guide is not None and self._guide.take(token))
        end: Literal["", "stop", "length"] = "stop" if finished else "" if self._left else "length"
        if end:
            self._left = 0
            text += self._text.rest()
        return self._told(token, text, logits, end)

    def close(self) -> None:
        """See `luthier.Stream`."""
        if self._session is not None:
            self._session.close()
        self._session, self._unread, self._left = None, [], 0

    def _told(self, token: int, text: str, logits: NDArray[np.float32], end: Literal["", "stop", "length"]) -> Token:
        wide = logits.astype(np.float64)
        wide -= wide.max()
        wide -= np.log(np.exp(wide).sum())
        count = min(self._alternatives, len(wide))
        top = np.argsort(-wide, kind="stable")[:count].tolist() if count else []
        alternatives = tuple(Alternative(each, self._piece(each), float(wide[each])) for each in top)
        return Token(token, self._piece(token), text, float(wide[token]), alternatives, end)

    def _piece(self, token: int) -> str:
        return str(self._encoder.tokenizer.decode([token], clean_up_tokenization_spaces=False))


class SessionStreaming(ABC):
    """What makes a generator with an `encoder` a `luthier.Streaming`: sessions that go on side by side."""

    encoder: PromptEncoder

    @property
    @abstractmethod
    def context(self) -> int:
        """The tokens that the model can read and write in all, or on each side; 0 where it sets no limit."""

    @abstractmethod
    def _start_beside(self, max_length: int) -> Session:
        """A session with room for `max_length` tokens, that goes on while others do.

        Raises:
            InputError: if the model cannot write token by token.
        """

    def open(
        self,
        prompt: Prompt,
        *,
        max_new_tokens: int = 128,
        sampling: Sampling = Sampling(),
        alternatives: int = 0,
        schema: str | None = None,
        template: bool = True,
    ) -> SessionStream:
        """Begin a completion that is written token by token; see `luthier.Streaming`."""
        wanted = Wanted(max_new_tokens, sampling, alternatives, schema, template)
        return SessionStream(self.encoder, self._start_beside, prompt, wanted, self.context)


class GrowingText:
    """The text of tokens as they come, a whole character at a time.

    Args:
        encoder: decodes them.
    """

    def __init__(self, encoder: PromptEncoder) -> None:
        self._encoder = encoder
        # Decoded with those before it, since a tokenizer may write a token otherwise at a text's beginning.
        self._before: list[int] = []
        self._newest: list[int] = []

    def add(self, token: int) -> str:
        """What one more token adds; nothing, while its last character may be incomplete."""
        self._newest.append(token)
        text = self._added()
        return "" if text.endswith("\N{REPLACEMENT CHARACTER}") else self._settle(text)

    def rest(self) -> str:
        """What is left when no more tokens come."""
        return self._settle(self._added())

    def _added(self) -> str:
        return self._encoder.decode([*self._before, *self._newest])[len(self._encoder.decode(self._before)) :]

    def _settle(self, text: str) -> str:
        if text:
            self._before, self._newest = self._newest, []
        return text


def prompt_ids(encoder: PromptEncoder, prompt: Prompt, *, template: bool) -> list[int]:
    """The ids that a model reads before it goes on: of what it is asked, or of a text that it continues."""
    if template or not encoder.has_template:
        return encoder.prompt(prompt)
    if not isinstance(prompt, str):
        raise InputError("a conversation has no meaning without a template", "Give one text.")
    return encoder.text(prompt)


def _guide(encoder: PromptEncoder, schema: str | None) -> Guide | None:
    if schema is None:
        return None
    from luthier_models.guidance import Guide

    return Guide(encoder, schema)
