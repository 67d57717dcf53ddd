"""The routes of OpenAI's API: `/v1/models`, `/v1/chat/completions`, `/v1/completions`."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, TypeVar

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse

from luthier_serve.bodies import Answer, Kind
from luthier_serve.completing import Told, Usage, ask, complete
from luthier_serve.errors import ApiError
from luthier_serve.limits import Limits
from luthier_serve.metrics import Metrics
from luthier_serve.serving import Served, Serving
from luthier_serve.wire import ChatRequest, CompletionRequest

Result = TypeVar("Result")

log = logging.getLogger("luthier.serve")


@dataclass(frozen=True)
class Desk:
    """What the routes work with.

    Attributes:
        serving: the models.
        limits: of a request.
        metrics: counts.
        log_prompts: whether prompts and completions go to the log.
    """

    serving: Serving
    limits: Limits
    metrics: Metrics
    log_prompts: bool = False


def openai_routes(desk: Desk) -> APIRouter:
    """The routes, for an application."""
    router = APIRouter(prefix="/v1")

    @router.get("/models")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [_model_body(each) for each in desk.serving.models.values()]}

    @router.get("/models/{name:path}")
    async def model(name: str) -> dict[str, Any]:
        return _model_body(desk.serving.find(name))

    @router.post("/chat/completions")
    async def chat(body: ChatRequest, request: Request) -> Response:
        return await _answer(desk, "chat", body, bool(body.logprobs), request)

    @router.post("/completions")
    async def completions(body: CompletionRequest, request: Request) -> Response:
        return await _answer(desk, "text", body, body.logprobs is not None, request)

    return router


def _model_body(model: Served) -> dict[str, Any]:
    return {"id": model.name, "object": "model", "created": model.since, "owned_by": "luthier", "hash": model.spec.hash}


async def _answer(
    desk: Desk, kind: Kind, body: ChatRequest | CompletionRequest, logprobs: bool, request: Request
) -> Response:
    model = desk.serving.find(body.model)
    asked = ask(body, desk.limits)
    usage = Usage(choices_of_prompt=body.n or 1)
    if desk.log_prompts:
        log.info("asked %s: %s", model.name, json.dumps([each["prompt"] for each in asked.prompts], ensure_ascii=False))
    count = len(asked.prompts)
    model.promise(count)
    answer = Answer(kind, model.name, model.spec.hash, logprobs)
    told = _observed(desk, model, _in_time(complete(model, asked), desk.limits.seconds), usage, count)
    if not body.stream:
        choices: list[list[Told]] = [[] for _ in asked.prompts]

        async def gather() -> None:
            async with aclosing(told):
                async for each in told:
                    choices[each.choice].append(each)

        await while_connected(request, gather())
        return JSONResponse(answer.whole(choices, usage))
    # What is refused before the first token is an error of HTTP, not an event of a stream that has begun.
    first = await while_connected(request, anext(told))
    wants_usage = body.stream_options is not None and body.stream_options.include_usage
    events = _events(answer, first, told, usage if wants_usage else None)
    return StreamingResponse(events, media_type="text/event-stream", headers={"cache-control": "no-store"})


async def _events(answer: Answer, first: Told, told: AsyncGenerator[Told], usage: Usage | None) -> AsyncIterator[str]:
    async with aclosing(told):
        try:
            yield _event(answer.chunk(first))
            async for each in told:
                yield _event(answer.chunk(each))
            if usage is not None:
                yield _event(answer.usage_chunk(usage))
        except ApiError as error:
            yield _event(error.body)
    yield "data: [DONE]\n\n"


def _event(body: dict[str, Any]) -> str:
    return f"data: {json.dumps(body)}\n\n"


async def _in_time(told: AsyncGenerator[Told], seconds: float) -> AsyncGenerator[Told]:
    """The same, while there is time.

    Raises:
        ApiError: 408 where there is none left.
    """
    deadline = time.monotonic() + seconds
    async with aclosing(told):
        while True:
            try:
                async with asyncio.timeout(deadline - time.monotonic()):
                    each = await anext(told)
            except StopAsyncIteration:
                return
            except TimeoutError:
                raise ApiError(
                    408, "time_limit", f"the request took more than {seconds:g} seconds; ask for fewer tokens"
                ) from None
            yield each


async def _observed(
    desk: Desk, model: Served, told: AsyncGenerator[Told], usage: Usage, count: int
) -> AsyncGenerator[Told]:
    """The same, counted; gives back the places that were promised."""
    began = time.monotonic()
    first_token = True
    texts = [""] * count
    try:
        async with aclosing(told):
            async for each in told:
                usage.count(each)
                if first_token and each.token is not None:
                    desk.metrics.first_token.labels(model.name).observe(time.monotonic() - began)
                    first_token = False
                if desk.log_prompts:
                    texts[each.choice] += each.text
                yield each
    finally:
        model.release(count)
        for kind, tokens in (("prompt", sum(usage.prompt.values())), ("completion", usage.completion)):
            desk.metrics.tokens.labels(model.name, kind).inc(tokens)
        if desk.log_prompts:
            log.info("answered %s: %s", model.name, json.dumps(texts, ensure_ascii=False))


async def while_connected(request: Request, work: Coroutine[Any, Any, Result]) -> Result:
    """The result of some work, which is cancelled if the client goes away.

    Raises:
        ApiError: 499, which nobody reads, if it does.
    """
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ApiError(499, "client_gone", "the client went away")
        return task.result()
    finally:
        for each in (task, gone):
            each.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
