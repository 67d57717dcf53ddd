"""What a server calls for `POST /v1/feedback`: a body in, a receipt out, whatever its framework is."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from luthier_feedback.errors import InvalidFeedback, UnknownModel
from luthier_feedback.log import FeedbackLog, Receipt
from luthier_feedback.rows import Feedback, read_posted


@dataclass(frozen=True)
class Receipts:
    """What became of feedback that was posted together, in its order: all of it is on the disk."""

    receipts: tuple[Receipt, ...]

    @property
    def status(self) -> int:
        """The HTTP status that says so."""
        return max(each.status for each in self.receipts)

    def to_json(self) -> dict[str, Any]:
        """The body of a response."""
        return {"object": "list", "data": [each.to_json() for each in self.receipts]}


def post(
    log: FeedbackLog,
    body: bytes | Mapping[str, Any] | Sequence[Mapping[str, Any]],
    *,
    knows: Callable[[str], bool] | None = None,
    retention: timedelta | None = None,
) -> Receipt | Receipts:
    """Check what was posted and keep it, of a list all or none; it is on the disk when this returns.

    It blocks for as long as the disk takes, so an asynchronous server calls it in a thread.

    Args:
        log: where it is kept. Threads may share it.
        body: the request's body, or the object that it is as JSON, or the list of some.
        knows: whether a model's hash is one that the server may have served. What names another is refused. Feedback
            that names no model is kept as being about an unknown one; without `knows`, every hash is kept.
        retention: how long to keep what does not say so itself.

    Raises:
        InvalidFeedback: (422) if it is no JSON, or not of the form of feedback.
        TooLarge: (413) if it, one of its texts or the list is larger than the limit.
        UnknownModel: (404) if it is about a model that the server does not know.
        Conflict: (409) if its id is that of feedback about something else.
        LogUnavailable: (503) if the log is locked, full, gone, damaged or unreachable. Nothing was acknowledged.
    """
    posted = read_posted(body if isinstance(body, bytes) else _as_bytes(body))
    several = [posted] if isinstance(posted, Feedback) else posted
    for model in {each.model for each in several if each.model is not None}:
        if knows is not None and not knows(model):
            raise UnknownModel(
                f"the model {model} is not known here", "Give the hash that the answer came with, or none."
            )
    if isinstance(posted, Feedback):
        return log.add(posted, retention=retention)
    return Receipts(tuple(log.add_all(posted, retention=retention)))


def _as_bytes(body: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> bytes:
    try:
        return json.dumps(body).encode()
    except (TypeError, ValueError, RecursionError):
        raise InvalidFeedback(
            "the feedback cannot be written as JSON", "Give texts, numbers, lists and objects."
        ) from None
