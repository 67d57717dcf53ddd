"""Answers in OpenAI's forms: whole, or in chunks."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from luthier_serve.completing import Told, Usage

Kind = Literal["chat", "text"]


@dataclass(frozen=True)
class Answer:
    """One answer's form.

    Attributes:
        kind: `chat` or `text`, by its route.
        model: the name that it was asked by.
        fingerprint: the hash of the model that answers.
        logprobs: whether tokens are told with their log-probabilities.
    """

    kind: Kind
    model: str
    fingerprint: str
    logprobs: bool
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    created: int = field(default_factory=lambda: int(time.time()))

    def whole(self, choices: Sequence[Sequence[Told]], usage: Usage) -> dict[str, Any]:
        """The answer in one piece, from all that was told of each choice."""
        bodies = []
        for number, told in enumerate(choices):
            text = "".join(each.text for each in told)
            content: dict[str, Any] = (
                {"message": {"role": "assistant", "content": text, "refusal": None}}
                if self.kind == "chat"
                else {"text": text}
            )
            bodies.append(
                {"index": number, **content, "logprobs": self._logprobs(told), "finish_reason": told[-1].reason}
            )
        name = "chat.completion" if self.kind == "chat" else "text_completion"
        return {**self._head(name), "choices": bodies, "usage": usage.body}

    def chunk(self, told: Told) -> dict[str, Any]:
        """What one token, a choice's beginning or its end adds."""
        content: dict[str, Any]
        if self.kind == "chat":
            first = told.prompt_tokens is not None
            delta = {"role": "assistant", "content": ""} if first else {"content": told.text} if told.text else {}
            content = {"delta": delta}
        else:
            content = {"text": told.text}
        body = {
            "index": told.choice,
            **content,
            "logprobs": self._logprobs([told]) if told.token else None,
            "finish_reason": told.reason or None,
        }
        return {**self._head(self._chunk_name), "choices": [body]}

    def usage_chunk(self, usage: Usage) -> dict[str, Any]:
        """The last chunk, where it was asked for."""
        return {**self._head(self._chunk_name), "choices": [], "usage": usage.body}

    @property
    def _chunk_name(self) -> str:
        return "chat.completion.chunk" if self.kind == "chat" else "text_completion"

    def _head(self, name: str) -> dict[str, Any]:
        prefix = "chatcmpl" if self.kind == "chat" else "cmpl"
        return {
            "id": f"{prefix}-{self.id}",
            "object": name,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": self.fingerprint,
        }

    def _logprobs(self, told: Sequence[Told]) -> dict[str, Any] | None:
        if not self.logprobs:
            return None
        tokens = [(each.token, each) for each in told if each.token is not None]
        if self.kind == "chat":
            content = [
                {**_token(*token), "top_logprobs": [_token(*other) for other in each.alternatives]}
                for token, each in tokens
            ]
            return {"content": content, "refusal": None}
        offsets, length = [], 0
        for _, each in tokens:
            offsets.append(length)
            length += len(each.text)
        return {
            "tokens": [token[0] for token, _ in tokens],
            "token_logprobs": [token[1] for token, _ in tokens],
            "top_logprobs": [dict(each.alternatives) for _, each in tokens],
            "text_offset": offsets,
        }


def _token(piece: str, log_probability: float) -> dict[str, Any]:
    # A token that is no whole character has no bytes that its text would tell.
    known = "\N{REPLACEMENT CHARACTER}" not in piece
    return {"token": piece, "logprob": log_probability, "bytes": list(piece.encode()) if known else None}
