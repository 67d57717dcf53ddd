"""For applications: feedback sent to a server that takes `POST /v1/feedback`, kept once however often it is sent."""

from __future__ import annotations

import dataclasses
import http.client
import json
import random
import time
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, Literal
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, OpenerDirector, Request, build_opener

from luthier.errors import InputError
from luthier_feedback.errors import Conflict, FeedbackError, InvalidFeedback, LogUnavailable, TooLarge, UnknownModel
from luthier_feedback.log import Receipt
from luthier_feedback.rows import read_feedback

PATH = "/v1/feedback"
PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
"""The statuses after which the same may be sent again."""

LONGEST_PAUSE = 30.0
_REFUSALS: Mapping[int, type[FeedbackError]] = {404: UnknownModel, 409: Conflict, 413: TooLarge, 422: InvalidFeedback}


class Client:
    """Sends feedback. What it sends has an id, so a retry after a lost answer does not make two rows of it.

    Args:
        url: of the server, with or without `/v1`.
        token: what the server asks for as a bearer token.
        source: the application's name.
        timeout: seconds that an answer is waited for.
        retries: how often it is sent again where the server cannot be reached or is not ready, after pauses that
            double, from a quarter of a second.

    Raises:
        InputError: if the URL is none of HTTP.
    """

    def __init__(
        self, url: str, token: str | None = None, *, source: str = "api", timeout: float = 10.0, retries: int = 5
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise InputError(f"{url!r} is no URL of a server", "Write http://host:port or https://host.")
        self._url = f"{url.rstrip('/').removesuffix('/v1')}{PATH}"
        self._headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
        self._source = source
        self._timeout = timeout
        self._retries = retries
        self._opener: OpenerDirector = build_opener(_NoRedirects)

    def send(
        self,
        prompt: str | Sequence[Mapping[str, str]],
        answer: str,
        *,
        vote: Literal[-1, 1] | None = None,
        correction: str | None = None,
        tags: Sequence[str] = (),
        id: str | None = None,
        **fields: Any,
    ) -> Receipt:
        """Send feedback on an answer; it is on the server's disk when this returns.

        Args:
            prompt: a user's text, or the messages that were answered.
            answer: what the model wrote.
            vote: 1 for a good answer, -1 for a bad one.
            correction: what it should have written.
            tags: words about it.
            id: names it, so that a later call with the same id replaces what it says; made if not given.
            fields: `model`, `champion`, `run`, `comparison`, `person`, `consent`, `keep_until`, as in `Feedback`.

        Raises:
            InvalidFeedback, TooLarge: before it is sent, if it is not of the form of feedback.
            UnknownModel, Conflict: if the server says so.
            FeedbackError: if the server refuses it for another reason, such as the token.
            LogUnavailable: if it could not be sent, or the server could not keep it, after all retries.
        """
        body = {
            "id": id or str(uuid.uuid4()),
            "prompt": prompt if isinstance(prompt, str) else list(prompt),
            "answer": answer,
            "vote": vote,
            "correction": correction,
            "tags": tags if isinstance(tags, str) else list(tags),  # a text is no list of its letters
            "source": self._source,
            **fields,
        }
        encoded = json.dumps(body, default=str).encode()
        read_feedback(encoded)
        return self._send(encoded)

    def _send(self, body: bytes) -> Receipt:
        pause = 0.25
        for attempt in range(self._retries + 1):
            wait: float | None = None
            try:
                return self._once(body)
            except HTTPError as error:
                told = _message(error)
                if error.code not in PASSING:
                    refusal = _REFUSALS.get(error.code, FeedbackError)
                    raise refusal(f"{self._url} refused it ({error.code}): {told}") from None
                told, wait = f"{error.code}: {told}", _retry_after(error)
            except (OSError, http.client.HTTPException) as error:
                told = str(error.reason if isinstance(error, URLError) else error) or type(error).__name__
            if attempt < self._retries:
                # Clients that failed together do not come back together.
                time.sleep(min(LONGEST_PAUSE, wait or pause * random.uniform(0.5, 1.5)))  # noqa: S311
                pause *= 2
        raise LogUnavailable(
            f"feedback could not be sent to {self._url}, {self._retries + 1} times: {told}",
            "Start the server, or send it again later with the same id.",
            "unreachable",
        )

    def _once(self, body: bytes) -> Receipt:
        request = Request(self._url, body, self._headers, method="POST")  # noqa: S310 - http or https, checked above
        with self._opener.open(request, timeout=self._timeout) as response:
            text = response.read()
        try:
            told = json.loads(text)
            return Receipt(**{each.name: told[each.name] for each in dataclasses.fields(Receipt)})
        except (ValueError, KeyError, TypeError):
            raise FeedbackError(f"{self._url} does not answer as a feedback log does", "Look at the URL.") from None


class _NoRedirects(HTTPRedirectHandler):
    """A redirect would send the token, and what people wrote, to another place."""

    def redirect_request(self, *_: Any) -> None:
        """Follow none."""


def _message(error: HTTPError) -> str:
    try:
        return str(json.loads(error.read())["error"]["message"])
    except (ValueError, KeyError, TypeError, OSError, http.client.HTTPException):
        return str(error.reason)


def _retry_after(error: HTTPError) -> float | None:
    try:
        return max(0.0, float(error.headers["Retry-After"]))
    except (TypeError, ValueError):
        return None
