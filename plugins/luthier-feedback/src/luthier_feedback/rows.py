"""What feedback is: what an application posts, and what the log adds to it."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
)
from pydantic import model_validator as validator
from pydantic_core import ErrorDetails

from luthier_feedback.errors import FeedbackError, InvalidFeedback, TooLarge

MAX_BYTES = 1 << 20
"""Of feedback as JSON, and of all that is posted at once."""

MAX_LINE = MAX_BYTES + 4096
"""Of a row as JSON, which has what the log adds and the names of all fields."""

MAX_CHARACTERS = 100_000
"""Of an answer, a correction, or a message of the prompt."""

MAX_NAME = 128
MAX_MESSAGES = 200
MAX_TAGS = 20
MAX_TOGETHER = 20
"""Rows that are posted at once."""

State = Literal["new", "accepted", "rejected", "edited"]
"""What a reviewer said: nothing yet, may be learnt from, must not be, or may with the reviewer's correction."""


def _storable(text: str) -> str:
    # PostgreSQL keeps no NUL; SQLite does, and reads what follows it only at times.
    if "\0" in text:
        raise ValueError("a NUL character cannot be kept")
    return text


def _conversation(value: Any) -> Any:
    if isinstance(value, str):
        return ({"role": "user", "content": value},)
    return tuple(value) if isinstance(value, list) else value


def _whole(value: Any) -> Any:
    # To Python, and so to pydantic, true and 1.0 are 1.
    if value is not None and type(value) is not int:
        raise ValueError("Input should be -1 or 1")
    return value


def _in_utc(time: datetime) -> datetime:
    return time.astimezone(UTC)


Text = Annotated[str, Field(max_length=MAX_CHARACTERS), AfterValidator(_storable)]
Name = Annotated[str, Field(min_length=1, max_length=MAX_NAME), AfterValidator(_storable)]
Time = Annotated[AwareDatetime, AfterValidator(_in_utc)]


class Turn(BaseModel):
    """One message of a prompt."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    role: Literal["system", "user", "assistant"]
    content: Text


class Feedback(BaseModel):
    """What somebody says of one answer of a model: the body of `POST /v1/feedback`.

    Attributes:
        id: names it, so that it can be sent again without becoming two; made if not given.
        model: the SHA-256 of the model that answered, as Luthier's store names it; None if that is not known.
        champion: the name under which the model was served.
        run: the run that made the model.
        prompt: the conversation that was answered; a text stands for one message of a user.
        answer: what the model wrote.
        vote: 1 for a good answer, -1 for a bad one; None for neither.
        correction: what the model should have written.
        tags: words about it.
        comparison: names the comparison in which the answer stood beside another one to the same prompt: the votes on
            both are one act.
        source: the application that it comes from.
        person: who gave it, as a pseudonym; what `purge --person` takes.
        consent: whether models may be trained on it.
        keep_until: when it is to be forgotten; None for never.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    id: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:-]*$", max_length=MAX_NAME)] = Field(
        default_factory=lambda: str(uuid.uuid4())
    )
    model: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    champion: Name | None = None
    run: Name | None = None
    prompt: Annotated[tuple[Turn, ...], BeforeValidator(_conversation), Field(min_length=1, max_length=MAX_MESSAGES)]
    answer: Text
    vote: Annotated[Literal[-1, 1] | None, BeforeValidator(_whole)] = None
    correction: Text | None = None
    tags: Annotated[tuple[Name, ...], Field(max_length=MAX_TAGS)] = ()
    comparison: Name | None = None
    source: Name = "api"
    person: Name | None = None
    consent: bool = False
    keep_until: Time | None = None

    @validator(mode="after")
    def _says_something(self) -> Self:
        if self.vote is None and self.correction is None and not self.tags:
            raise ValueError("there is neither a vote, nor a correction, nor a tag")
        return self

    @property
    def subject(self) -> tuple[object, ...]:
        """What it is about: two posts of one id are about the same."""
        where = (self.source, self.person, self.comparison)
        return (self.model, self.champion, self.run, self.prompt, self.answer, *where)

    @property
    def judgement(self) -> tuple[object, ...]:
        """What it says of that: a later post of the same id replaces it."""
        return (self.vote, self.correction, self.tags)


class Kept(Feedback):
    """Feedback with what the log knows of it: a line of an export.

    Attributes:
        time: when it was acknowledged, in UTC; of a revised one, when it first was.
        state: what a reviewer said.
    """

    time: Time = Field(default_factory=lambda: datetime.now(UTC))
    state: State = "new"

    def to_line(self) -> str:
        """One line of JSON, without its end and without its place in a log; `read_kept` gives the same row."""
        said = self.model_dump(mode="json", exclude={"sequence", "revision"})
        return json.dumps(said, ensure_ascii=False, separators=(",", ":"))

    @property
    def digest(self) -> str:
        """The hex SHA-256 of all that it is."""
        return hashlib.sha256(self.to_line().encode()).hexdigest()


class Row(Kept):
    """A row of the log.

    Attributes:
        sequence: its place: greater than that of every row that was acknowledged before it was sent, whatever the
            clock says. Never given twice.
        revision: 1, and 1 more each time that it was changed.
    """

    sequence: int
    revision: int = 1


Read = TypeVar("Read")

_TOGETHER = TypeAdapter(Annotated[list[Feedback], Field(min_length=1, max_length=MAX_TOGETHER)])


def read_posted(body: bytes) -> Feedback | list[Feedback]:
    """What was posted: feedback, or a list of what belongs together.

    Args:
        body: JSON, in UTF-8: an object, or an array of some.

    Raises:
        TooLarge: if it, one of its texts or their number is larger than the limit.
        InvalidFeedback: if it is no JSON or not of the form of feedback, saying where.
    """
    if not body.lstrip().startswith(b"["):
        return read_feedback(body)
    return _read(_TOGETHER.validate_json, body, MAX_BYTES)


def read_feedback(body: bytes) -> Feedback:
    """What was posted of one answer.

    Args:
        body: JSON, in UTF-8.

    Raises:
        TooLarge: if it or one of its texts is larger than the limit.
        InvalidFeedback: if it is no JSON or not of the form of feedback, saying where.
    """
    return _read(Feedback.model_validate_json, body, MAX_BYTES)


def read_kept(line: bytes) -> Kept:
    """What a line of an export says.

    Raises:
        TooLarge: if it or one of its texts is larger than the limit.
        InvalidFeedback: if it is no JSON or not of the form of a row, saying where.
    """
    return _read(Kept.model_validate_json, line, MAX_LINE)


def _read(parse: Callable[[bytes], Read], body: bytes, limit: int) -> Read:
    if len(body) > limit:
        raise TooLarge(f"the feedback has {len(body):,} bytes; the limit is {limit:,}", "Shorten its texts.")
    with problems_in_words():
        return parse(body)


@contextmanager
def problems_in_words() -> Iterator[None]:
    """Turn what pydantic refuses into `TooLarge` or `InvalidFeedback`."""
    try:
        yield
    except ValidationError as error:
        raise _explain(error.errors(include_input=False, include_url=False)) from None


def _explain(problems: list[ErrorDetails]) -> FeedbackError:
    """The error that says what is wrong with feedback, and where; what was given is never repeated in it."""
    told = "; ".join(
        f"{_place(problem['loc'])}{problem['msg'].removeprefix('Value error, ')}" for problem in problems[:5]
    )
    more = f"; and {len(problems) - 5} more" if len(problems) > 5 else ""
    if any(problem["type"] in ("string_too_long", "too_long") for problem in problems):
        return TooLarge(f"the feedback is too large: {told}{more}", "Shorten it.")
    return InvalidFeedback(f"this is no feedback: {told}{more}", "See the README of luthier-feedback for its form.")


def _place(location: tuple[int | str, ...]) -> str:
    """Where in the JSON: `prompt[0].content: `; a key is cut, since anybody may send any."""
    parts = [f"[{part}]" if isinstance(part, int) else f".{part[:40]}{'…' * (len(part) > 40)}" for part in location]
    return f"{''.join(parts).removeprefix('.')}: " if parts else ""
