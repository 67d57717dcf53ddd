"""What can go wrong with feedback, each with the HTTP status that a server answers with.

A server turns any of them into a response: `error.status` and `error.to_json()`. None of them ends it.
"""

from __future__ import annotations

from typing import Any, Literal

from luthier.errors import InputError

Reason = Literal["locked", "full", "gone", "read-only", "damaged", "failing", "unreachable"]


class FeedbackError(InputError):
    """Feedback could not be kept.

    Attributes:
        status: of HTTP.
        code: the same for programs, more exactly.
    """

    status = 400
    code = "feedback_refused"

    def to_json(self) -> dict[str, Any]:
        """The body of a response, in the form that OpenAI's API gives its errors."""
        text = f"{self.message}. {self.remedy}" if self.remedy else self.message
        kind = "server_error" if self.status >= 500 else "invalid_request_error"
        return {"error": {"message": text, "type": kind, "param": None, "code": self.code}}


class InvalidFeedback(FeedbackError):
    """It is no JSON, or not of the form of feedback."""

    status = 422
    code = "invalid_feedback"


class TooLarge(FeedbackError):
    """It, or one of its texts, is larger than the limit."""

    status = 413
    code = "feedback_too_large"


class UnknownModel(FeedbackError):
    """It is about a model that the server does not know."""

    status = 404
    code = "unknown_model"


class UnknownRow(FeedbackError):
    """There is no row of that id."""

    status = 404
    code = "unknown_feedback"


class Conflict(FeedbackError):
    """Its id is that of other feedback."""

    status = 409
    code = "conflict"


class LogUnavailable(FeedbackError):
    """The log cannot be used now. Nothing was acknowledged; the same feedback may be sent again.

    Attributes:
        reason: `locked` by another process for longer than the time-out, `full`, `gone`, `read-only`, `damaged`,
            `failing` (its disk), or `unreachable`.
    """

    status = 503
    code = "log_unavailable"

    def __init__(self, message: str, remedy: str, reason: Reason) -> None:
        super().__init__(message, remedy)
        self.reason: Reason = reason
