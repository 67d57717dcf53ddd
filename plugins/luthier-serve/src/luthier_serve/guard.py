"""What every request has to pass before a route sees it: the host it names, its origin, its token, its size."""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import time
from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import JSONResponse

from luthier_serve.errors import ApiError

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

BODY_SECONDS = 30
"""In which a request's body has to come."""
LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True)
class Access:
    """Who may ask.

    Attributes:
        token: that every request carries as `Authorization: Bearer …`; empty for none.
        name: that clients are told to ask by, as it stands in an address.
        hosts: names by which the server may be asked, in small letters: a page elsewhere that has its own name lead
            to this machine (DNS rebinding) names another one.
        origins: of pages on other hosts whose scripts may ask, such as `https://app.example.org`.
        open_paths: that need no token: those that tell nothing, and the page, which asks for it itself.
    """

    token: str
    name: str
    hosts: Collection[str]
    origins: Collection[str] = ()
    open_paths: Collection[str] = ("/", "/healthz")
    open_prefix: str = "/static/"

    def check(self, path: str, headers: Headers) -> None:
        """Refuse a request that may not be made.

        Raises:
            ApiError: 400, 401 or 403.
        """
        host = host_of(headers.get("host", ""))
        if host not in self.hosts:
            raise ApiError(
                403, "host_not_allowed", f"the server does not answer for the host {host!r}; see --allow-host"
            )
        origin = headers.get("origin")
        if origin is not None and origin not in self.origins and not _is_own(origin, headers["host"]):
            raise ApiError(403, "origin_not_allowed", f"pages of {origin!r} may not ask; see --allow-origin")
        if not self.token or path in self.open_paths or path.startswith(self.open_prefix):
            return
        scheme, _, given = headers.get("authorization", "").partition(" ")
        right = hmac.compare_digest(given.strip().encode(), self.token.encode())
        if scheme.lower() != "bearer" or not right:
            raise ApiError(401, "invalid_token", "the request lacks the server's token: `Authorization: Bearer …`")


class Guard:
    """An ASGI application that lets only such requests through to another one.

    Args:
        app: the other one.
        access: who may ask.
        body_bytes: of a request at most.
    """

    def __init__(self, app: ASGIApp, *, access: Access, body_bytes: int) -> None:
        self._app = app
        self._access = access
        self._body_bytes = body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        try:
            self._access.check(scope["path"], headers)
            self._check_length(headers.get("content-length", "0"))
        except ApiError as error:
            await JSONResponse(error.body, error.status_code, error.headers)(scope, receive, send)
            return
        read, whole = 0, False
        deadline = time.monotonic() + BODY_SECONDS

        async def counted() -> Message:
            nonlocal read, whole
            try:
                async with asyncio.timeout(None if whole else deadline - time.monotonic()):
                    message = await receive()
            except TimeoutError:
                told = f"the body did not come within {BODY_SECONDS} seconds"
                raise ApiError(408, "request_too_slow", told) from None
            whole = whole or not message.get("more_body", False)
            read += len(message.get("body", b""))
            # A body that comes in chunks says nowhere how long it is.
            self._check_length(str(read))
            return message

        await self._app(scope, counted, send)

    def _check_length(self, length: str) -> None:
        if not length.isdigit() or len(length) > 18:
            raise ApiError(400, "invalid_length", "the content-length is no number of bytes")
        if int(length) > self._body_bytes:
            told = f"a request may have {self._body_bytes:,} bytes; see --max-request"
            raise ApiError(413, "request_too_large", told)


def host_of(header: str) -> str:
    """The name in a `Host` header, in small letters, without its port; empty where it is none."""
    try:
        return urlsplit(f"//{header}").hostname or ""
    except ValueError:
        return ""


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a server that listens there."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _is_own(origin: str, host: str) -> bool:
    """Whether a page came from this server, as far as its browser tells."""
    return origin.lower() in (f"http://{host.lower()}", f"https://{host.lower()}")
