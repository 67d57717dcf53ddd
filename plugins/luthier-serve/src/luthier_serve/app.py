"""The web application: the routes behind the guard, health, metrics, the page."""

from __future__ import annotations

import logging
import mimetypes
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from luthier_serve.errors import ApiError
from luthier_serve.feedback import Keeper, feedback_routes
from luthier_serve.guard import Access, Guard
from luthier_serve.metrics import Metrics
from luthier_serve.routes import Desk, openai_routes
from luthier_serve.wire import NOT_UNDERSTOOD

STATIC = Path(__file__).parent / "static"

# Where a system's own table says otherwise (as Windows' registry may), browsers would not run the page's modules.
mimetypes.add_type("text/javascript", ".js")

log = logging.getLogger("luthier.serve")


def create_app(desk: Desk, access: Access, keeper: Keeper | None) -> FastAPI:
    """The application of one server.

    Args:
        desk: what its routes work with.
        access: who may ask.
        keeper: of feedback; None for a server that takes none.
    """
    app = FastAPI(title="Luthier", docs_url=None, redoc_url=None, openapi_url=None)
    app.include_router(openai_routes(desk))
    if keeper is not None:
        app.include_router(feedback_routes(keeper))
    app.mount("/static", PageFiles(directory=STATIC), name="static")

    @app.get("/")
    async def page() -> Response:
        return FileResponse(STATIC / "index.html", headers=PAGE_HEADERS)

    @app.get("/healthz")
    async def health() -> Response:
        ready = desk.serving.ready
        return JSONResponse({"status": "ready" if ready else "starting"}, 200 if ready else 503)

    @app.get("/metrics")
    async def metrics() -> Response:
        return Response(desk.metrics.page(), media_type="text/plain; version=0.0.4; charset=utf-8")

    for kind, handler in ((ApiError, _api_error), (HTTPException, _http_error), (RequestValidationError, _wrong_body)):
        app.add_exception_handler(kind, handler)
    app.add_middleware(Guard, access=access, body_bytes=desk.limits.body_bytes)
    app.add_middleware(
        CORSMiddleware, allow_origins=list(access.origins), allow_methods=["GET", "POST"], allow_headers=["*"]
    )
    app.add_middleware(Counting, metrics=desk.metrics)
    return app


PAGE_HEADERS = {
    # The page has all that it needs beside it, and may not be put into another one.
    # Text never becomes markup: browsers that know trusted types refuse what would make some of it.
    "content-security-policy": "default-src 'self'; object-src 'none'; frame-ancestors 'none'; base-uri 'none'; "
    "form-action 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    # A browser asks again whether a file is the same, so that a newer Luthier's files are not mixed with older ones.
    "cache-control": "no-cache",
}


class PageFiles(StaticFiles):
    """The page's files, with its headers."""

    def file_response(
        self, full_path: str | os.PathLike[str], stat_result: os.stat_result, scope: Scope, status_code: int = 200
    ) -> Response:
        """See Starlette."""
        response = super().file_response(full_path, stat_result, scope, status_code)
        response.headers.update(PAGE_HEADERS)
        return response


class Counting:
    """An ASGI application that counts the answers of another one, and logs them without what they hold."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.monotonic()
        status = 500

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, watched)
        finally:
            # The route, not the path: that is the client's, of which there may be any number.
            route = getattr(scope.get("route"), "path", "other")
            self._metrics.requests.labels(route, status).inc()
            self._metrics.seconds.labels(route).observe(time.monotonic() - began)
            log.info("%s %s %d %.3f s", scope["method"], route, status, time.monotonic() - began)


async def _api_error(_request: Request, error: Any) -> Response:
    return JSONResponse(error.body, error.status_code, error.headers)


_UNREADABLE: Mapping[type[BaseException], str] = {UnicodeDecodeError: "not UTF-8", RecursionError: "nested too deeply"}


async def _http_error(request: Request, error: Any) -> Response:
    """What the framework refuses before a route sees it: a body that cannot be read, or a route that is not there."""
    unreadable = _UNREADABLE.get(type(error.__cause__))
    if unreadable is not None:
        found = ApiError(400, "invalid_json", f"the body is no JSON: it is {unreadable}")
    elif error.status_code in (404, 405):
        told = f"there is no {request.method} {request.url.path} here; OpenAI's API is below /v1, as /v1/models"
        found = ApiError(error.status_code, "not_found", told)
    else:
        found = ApiError(error.status_code, "http_error", str(error.detail))
    return JSONResponse(found.body, found.status_code, error.headers)


async def _wrong_body(request: Request, error: Any) -> Response:
    """What is wrong with a body or a query, without its values: they may be a prompt."""
    first = error.errors()[0]
    # Behind "body" or "query".
    param = ".".join(map(str, first["loc"][1:])) or None
    if first["type"] == "json_invalid":
        found = ApiError(400, "invalid_json", f"the body is no JSON: {first['ctx']['error']}")
    elif first["type"] == "model_attributes_type" and "json" not in request.headers.get("content-type", ""):
        told = "send the body as JSON, with the header `Content-Type: application/json`"
        found = ApiError(415, "unsupported_media_type", told)
    elif first["type"] == "model_attributes_type" and param is None:
        found = ApiError(400, "invalid_json", "the body is no JSON object")
    elif first["type"] in ("extra_forbidden", NOT_UNDERSTOOD):
        told = f"{param} is not understood by this server; leave it out"
        found = ApiError(400, "unknown_parameter", told, param=param)
    else:
        told = first["msg"].removeprefix("Value error, ")
        found = ApiError(400, "invalid_request", ": ".join(filter(None, (param, told))), param=param)
    return JSONResponse(found.body, found.status_code)
