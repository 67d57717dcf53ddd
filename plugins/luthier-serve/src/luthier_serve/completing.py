"""From a request to its completions: what the model's process is asked, and its answers, of all choices together."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from luthier_serve.errors import ApiError
from luthier_serve.limits import MAX_SCHEMA_BYTES, Limits
from luthier_serve.wire import ChatRequest

if TYPE_CHECKING:
    from luthier_serve.serving import Served
    from luthier_serve.wire import CompletionRequest, ResponseFormat

SEEDS = 2**64


@dataclass(frozen=True)
class Asked:
    """What the choices of a request are to be.

    Attributes:
        prompts: of each choice, what the model's process takes.
    """

    prompts: Sequence[dict[str, Any]]


@dataclass(frozen=True)
class Told:
    """A token of a choice, or its beginning or end.

    Attributes:
        choice: which.
        prompt_tokens: at its beginning, which is the first that is told of it.
        text: by what it has grown.
        token: its text by itself, and its log-probability; None at the beginning, and where it was cancelled.
        alternatives: the same of the most probable ones.
        reason: why it ends; empty while it goes on.
    """

    choice: int
    prompt_tokens: int | None = None
    text: str = ""
    token: tuple[str, float] | None = None
    alternatives: Sequence[tuple[str, float]] = ()
    reason: Literal["", "stop", "length"] = ""


@dataclass
class Usage:
    """Tokens of a request: its prompts, each counted once, and its completions."""

    prompt: dict[int, int] = field(default_factory=dict)
    completion: int = 0
    choices_of_prompt: int = 1

    def count(self, told: Told) -> None:
        """Add what was told."""
        if told.prompt_tokens is not None and told.choice % self.choices_of_prompt == 0:
            self.prompt[told.choice] = told.prompt_tokens
        self.completion += told.token is not None

    @property
    def body(self) -> dict[str, int]:
        """As OpenAI tells it."""
        prompt = sum(self.prompt.values())
        return {
            "prompt_tokens": prompt,
            "completion_tokens": self.completion,
            "total_tokens": prompt + self.completion,
        }


def ask(request: ChatRequest | CompletionRequest, limits: Limits) -> Asked:
    """What the model's process is asked for each choice.

    Raises:
        ApiError: 400, where a number is beyond the server's limits.
    """
    if isinstance(request, ChatRequest):
        given: list[Any] = [[{"role": _role(each.role), "content": each.text} for each in request.messages]]
        wanted_tokens = request.max_completion_tokens or request.max_tokens
        alternatives = request.top_logprobs or 0
    else:
        given, wanted_tokens, alternatives = list(request.prompt), request.max_tokens, request.logprobs or 0
    tokens = wanted_tokens or limits.new_tokens
    choices = request.n or 1
    _bound("max_tokens", tokens, limits.new_tokens)
    _bound("n", choices * len(given), limits.choices)
    seed = request.seed if request.seed is not None else secrets.randbits(63)
    sampling = {"temperature": request.temperature or 0.0, "top_p": request.top_p or 1.0, "top_k": request.top_k or 0}
    whole = {
        "max_new_tokens": tokens,
        "alternatives": alternatives,
        "stop": request.stop or [],
        "schema": schema_of(request.response_format),
        "template": isinstance(request, ChatRequest),
    }
    return Asked(
        [
            {**whole, "prompt": prompt, "sampling": {**sampling, "seed": (seed + choice) % SEEDS}}
            for prompt in given
            for choice in range(choices)
        ]
    )


def schema_of(wanted: ResponseFormat | None) -> str | None:
    """The schema that a completion is to keep to, as JSON.

    Raises:
        ApiError: if it is too long.
    """
    if wanted is None or wanted.type == "text":
        return None
    schema = json.dumps(wanted.json_schema.schema_ if wanted.json_schema else {"type": "object"})
    if len(schema) > MAX_SCHEMA_BYTES:
        raise ApiError(
            400,
            "schema_too_long",
            f"the schema has {len(schema)} bytes; {MAX_SCHEMA_BYTES} are allowed",
            param="response_format",
        )
    return schema


async def complete(model: Served, asked: Asked) -> AsyncGenerator[Told]:
    """All choices side by side; closing the generator cancels them.

    Raises:
        ApiError: if one cannot be given.
    """
    told: asyncio.Queue[Told | BaseException] = asyncio.Queue()
    tasks = [asyncio.create_task(_tell(model, choice, request, told)) for choice, request in enumerate(asked.prompts)]
    left = len(tasks)
    try:
        while left:
            each = await told.get()
            if isinstance(each, BaseException):
                raise each
            left -= bool(each.reason)
            yield each
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _tell(model: Served, choice: int, request: dict[str, Any], told: asyncio.Queue[Told | BaseException]) -> None:
    try:
        async with aclosing(model.complete(request)) as messages:
            async for message in messages:
                told.put_nowait(_read(choice, message))
    except Exception as error:
        told.put_nowait(error)


def _read(choice: int, message: Any) -> Told:
    kind = message["type"]
    if kind == "begun":
        return Told(choice, message["prompt_tokens"])
    if kind == "refused":
        raise ApiError(400, "invalid_prompt", f"{message['message']}. {message['remedy']}")
    if kind == "failed":
        raise ApiError(500, "runtime_failed", message["message"])
    piece, log_probability = message["token"]
    alternatives = [(other, value) for other, value in message["alternatives"]]
    return Told(choice, None, message["text"], (piece, log_probability), alternatives, message["reason"])


def _role(role: str) -> str:
    return "system" if role == "developer" else role


def _bound(name: str, value: int, limit: int) -> None:
    if value > limit:
        raise ApiError(400, "number_too_large", f"{name} is {value}, and this server allows {limit}", param=name)
