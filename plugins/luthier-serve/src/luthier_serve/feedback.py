"""`POST /v1/feedback`: what people say of answers, kept by luthier-feedback."""

from __future__ import annotations

import asyncio
import threading
from importlib.util import find_spec
from typing import TYPE_CHECKING

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from luthier import InputError
from luthier_serve.serving import Serving

if TYPE_CHECKING:
    from luthier_feedback import FeedbackLog


class Keeper:
    """Keeps feedback in a log, which is opened when the first row comes, and again where it could not be.

    Args:
        where: the log's file or URL; None for its default place.
        serving: the models whose answers feedback is about.
    """

    def __init__(self, where: str | None, serving: Serving) -> None:
        self._where = where
        self._serving = serving
        self._log: FeedbackLog | None = None
        self._opening = threading.Lock()

    def keep(self, body: bytes) -> tuple[int, object]:
        """Keep what was posted, on the disk: the status and the body of the answer. Blocks."""
        from luthier_feedback import FeedbackError, FeedbackLog, post

        try:
            with self._opening:
                self._log = self._log or FeedbackLog(self._where)
            receipt = post(self._log, body, knows=self._serving.knows)
        except FeedbackError as error:
            return error.status, error.to_json()
        except InputError as error:
            # The place of the log is at fault, not who posts.
            told = {"message": error.message, "type": "server_error", "param": None, "code": "log_unavailable"}
            return 503, {"error": told}
        return receipt.status, receipt.to_json()


def feedback_routes(keeper: Keeper) -> APIRouter:
    """The route, for an application."""
    router = APIRouter(prefix="/v1")

    @router.post("/feedback")
    async def feedback(request: Request) -> Response:
        status, answer = await asyncio.to_thread(keeper.keep, await request.body())
        return JSONResponse(answer, status)

    return router


def place_of(told: str) -> str | None:
    """Where feedback is kept, from what the user typed: empty for the log's default place, None where it is not.

    Raises:
        InputError: if a place is named, and there is nothing that would write there.
    """
    if told == "none":
        return None
    if find_spec("luthier_feedback") is not None:
        return told
    if told:
        raise InputError("feedback is kept by luthier-feedback, which is not installed", "pip install luthier-feedback")
    return None
