"""`/v1/feedback`: what people say of answers, and what reviewers say of that, kept by luthier-feedback."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field, model_validator

from luthier import InputError

if TYPE_CHECKING:
    from luthier_feedback import FeedbackLog

MAX_ROWS = 50
"""Of the log that are told at once; each may have a megabyte."""

MAX_SEQUENCE = 2**63 - 1
"""What a database counts to."""

log = logging.getLogger("luthier.serve")

State = Literal["new", "accepted", "rejected", "edited"]
Reply = tuple[int, object]
"""The status and the body of an answer."""


class Review(BaseModel):
    """`POST /v1/feedback/ID/review`: what a reviewer says of a row.

    Attributes:
        state: `edited` with a correction, any other without.
        correction: what the model should have written.
        revision: of the row that the reviewer saw; another one is not touched.
    """

    model_config = ConfigDict(extra="forbid")

    state: State
    correction: str | None = None
    revision: Annotated[int, Field(ge=1, le=MAX_SEQUENCE)] | None = None

    @model_validator(mode="after")
    def _has_its_correction(self) -> Review:
        if (self.state == "edited") != (self.correction is not None):
            raise ValueError("a correction is given with the state 'edited', and only then")
        return self


class Keeper:
    """Keeps feedback in a log, which is opened when it is first asked for, and again where it could not be.

    Why it cannot be used is told in the server's log too.

    Args:
        where: the log's file or URL; None for its default place.
        knows: whether a model's hash is one whose answers feedback may be about.
    """

    def __init__(self, where: str | None, knows: Callable[[str], bool]) -> None:
        self._where = where
        self._knows = knows
        self._log: FeedbackLog | None = None
        self._opening = threading.Lock()

    def open(self) -> None:
        """Open the log, so that who starts the server is told at once where it cannot be."""
        self._use(lambda _: (200, None))

    def keep(self, body: bytes) -> Reply:
        """Keep what was posted, on the disk. Blocks, as all of these do."""
        from luthier_feedback import post

        def work(log: FeedbackLog) -> Reply:
            receipt = post(log, body, knows=self._knows)
            return receipt.status, receipt.to_json()

        return self._use(work)

    def rows(self, state: State | None, before: int | None, limit: int) -> Reply:
        """The newest rows, the newest first: of a state, and below a sequence number, if these are given."""

        def work(log: FeedbackLog) -> Reply:
            # One more than is told says whether there are more.
            rows = list(log.rows(state=state, before=before, newest=limit + 1))
            data = [row.model_dump(mode="json") for row in rows[:limit]]
            return 200, {"object": "list", "data": data, "has_more": len(rows) > limit}

        return self._use(work)

    def counts(self) -> Reply:
        """How many rows there are of each kind."""
        return self._use(lambda log: (200, log.counts()))

    def review(self, id: str, said: Review) -> Reply:
        """Note what a reviewer said of a row, and give the row."""

        def work(log: FeedbackLog) -> Reply:
            row = log.review(id, said.state, correction=said.correction, revision=said.revision)
            return 200, row.model_dump(mode="json")

        return self._use(work)

    def _use(self, work: Callable[[FeedbackLog], Reply]) -> Reply:
        from luthier_feedback import FeedbackError, FeedbackLog

        try:
            with self._opening:
                self._log = self._log or FeedbackLog(self._where)
            return work(self._log)
        except FeedbackError as error:
            if error.status >= 500:
                log.warning("%s", error.message)
            return error.status, error.to_json()
        except InputError as error:
            # The place of the log, or the history of the champions, is at fault, not who posts.
            log.warning("%s", error.message)
            told = {"message": error.message, "type": "server_error", "param": None, "code": "log_unavailable"}
            return 503, {"error": told}


def feedback_routes(keeper: Keeper) -> APIRouter:
    """The routes, for an application."""
    router = APIRouter(prefix="/v1/feedback")

    async def answer(work: Callable[..., Reply], *arguments: Any) -> Response:
        status, body = await asyncio.to_thread(work, *arguments)
        return JSONResponse(body, status, {"cache-control": "no-store"})

    @router.post("")
    async def feedback(request: Request) -> Response:
        return await answer(keeper.keep, await request.body())

    @router.get("")
    async def rows(
        state: State | None = None,
        before: Annotated[int | None, Query(ge=1, le=MAX_SEQUENCE)] = None,
        limit: Annotated[int, Query(ge=1, le=MAX_ROWS)] = 20,
    ) -> Response:
        return await answer(keeper.rows, state, before, limit)

    @router.get("/counts")
    async def counts() -> Response:
        return await answer(keeper.counts)

    @router.post("/{id}/review")
    async def review(id: str, said: Review) -> Response:
        return await answer(keeper.review, id, said)

    return router


def place_of(told: str) -> str | None:
    """Where feedback is kept, from what the user typed: empty for the log's default place, None where it is not."""
    return None if told == "none" else told
