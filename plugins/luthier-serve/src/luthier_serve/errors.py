"""Errors in the form that OpenAI's clients read: `{"error": {"message", "type", "param", "code"}}`."""

from __future__ import annotations

from typing import Any

from fastapi import HTTPException


class ApiError(HTTPException):
    """What a request is answered with in place of a result; also where a body is being read, since it is FastAPI's.

    Args:
        status: of HTTP; 400 and on.
        code: for programs.
        message: for people: what is wrong and what to do.
        param: the field that is at fault.
        retry_after: seconds after which it may be tried again.
    """

    def __init__(
        self, status: int, code: str, message: str, *, param: str | None = None, retry_after: int | None = None
    ) -> None:
        headers = {} if retry_after is None else {"retry-after": str(retry_after)}
        if status == 401:
            headers["www-authenticate"] = "Bearer"
        super().__init__(status, message, headers)
        self.code = code
        self.param = param

    @property
    def body(self) -> dict[str, Any]:
        """As JSON."""
        server = self.status_code >= 500
        kind = "server_error" if server else _KINDS.get(self.status_code, "invalid_request_error")
        return {"error": {"message": self.detail, "type": kind, "param": self.param, "code": self.code}}


_KINDS = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


def model_away(name: str) -> ApiError:
    """The model's process is gone, and comes again."""
    return ApiError(503, "model_unavailable", f"the model {name!r} is being started again; try later", retry_after=5)


def ending() -> ApiError:
    """The server ends."""
    return ApiError(503, "server_ending", "the server is shutting down", retry_after=10)
