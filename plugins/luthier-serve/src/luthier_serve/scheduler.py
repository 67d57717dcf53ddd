"""Completions of one model side by side: one step of each in turn, so that none waits for another to end."""

from __future__ import annotations

import traceback
from collections import deque
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from luthier import InputError, Sampling
from luthier_serve.stops import StopText

if TYPE_CHECKING:
    from luthier import Stream, Streaming, Token

Message = Mapping[str, Any]


class Scheduler:
    """Takes what the server asks for, and answers with messages; a step is one token, or some tokens of a prompt.

    Args:
        model: what completes.
        send: where answers go.
    """

    def __init__(self, model: Streaming, send: Callable[[Message], None]) -> None:
        self._model = model
        self._send = send
        self._turns: deque[_Completion] = deque()

    @property
    def idle(self) -> bool:
        """Whether there is nothing to do until a message comes."""
        return not self._turns

    def take(self, message: Message) -> None:
        """Begin a completion, or end one."""
        number = message["id"]
        if message["type"] == "cancel":
            for completion in [each for each in self._turns if each.number == number]:
                self._turns.remove(completion)
                completion.close()
                self._send({"type": "end", "id": number, "reason": "cancelled", "text": ""})
            return
        with _Answering(self._send, number):
            completion = _Completion(self._model, message)
            self._turns.append(completion)
            self._send({"type": "begun", "id": number, "prompt_tokens": completion.prompt_tokens})

    def step(self) -> None:
        """Go on with the completion whose turn it is."""
        completion = self._turns.popleft()
        with _Answering(self._send, completion.number) as answering:
            answer = completion.step()
            if answer is not None:
                self._send(answer)
            if not completion.ended:
                self._turns.append(completion)
                return
        if answering.failed or completion.ended:
            completion.close()


class _Completion:
    def __init__(self, model: Streaming, message: Message) -> None:
        self.number: int = message["id"]
        self.ended = False
        self._stream: Stream = model.open(
            message["prompt"],
            max_new_tokens=message["max_new_tokens"],
            sampling=Sampling(**message["sampling"]),
            alternatives=message["alternatives"],
            schema=message["schema"],
            template=message["template"],
        )
        self._stop = StopText(message["stop"])
        self._read = False
        self.prompt_tokens = self._stream.prompt_tokens
        limit = message["prompt_tokens"]
        if limit is not None and self.prompt_tokens > limit:
            self._stream.close()
            raise InputError(
                f"the prompt has {self.prompt_tokens} tokens, and this server reads up to {limit}", "Shorten it."
            )

    def step(self) -> Message | None:
        """Read on, which has no answer, or write a token."""
        if not self._read:
            self._read = self._stream.read() == 0
            return None
        token = self._stream.step()
        text, stopped = self._stop.add(token.text)
        reason = "stop" if stopped else token.end
        if reason and not stopped:
            text += self._stop.rest()
        self.ended = bool(reason)
        return {"type": "end" if reason else "token", "id": self.number, "reason": reason, **_told(token, text)}

    def close(self) -> None:
        """Free its memory."""
        self._stream.close()


def _told(token: Token, text: str) -> dict[str, Any]:
    alternatives = [[each.piece, each.log_probability] for each in token.alternatives]
    return {"text": text, "token": [token.piece, token.log_probability], "alternatives": alternatives}


class _Answering:
    """Answers with what went wrong in one completion; the others go on."""

    def __init__(self, send: Callable[[Message], None], number: int) -> None:
        self._send = send
        self._number = number
        self.failed = False

    def __enter__(self) -> _Answering:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> bool:
        if not isinstance(error, Exception):
            return False
        self.failed = True
        if isinstance(error, InputError):
            self._send({"type": "refused", "id": self._number, "message": error.message, "remedy": error.remedy})
        else:
            # A bug of the runtime: where it is, without its message, which may quote the prompt.
            traceback.print_tb(error.__traceback__)
            self._send({"type": "failed", "id": self._number, "message": f"{type(error).__name__} in the runtime"})
        return True
