"""Feedback: a log of what people say of a model's answers, and a source of training data made of it.

Importing this module loads no heavy library; what it names is imported when it is asked for.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Annotated, Any, Literal

from annotated_types import Ge, Interval

from luthier import component, hookimpl

if TYPE_CHECKING:
    from luthier import Context, Frame
    from luthier_feedback.client import Client
    from luthier_feedback.errors import (
        Conflict,
        FeedbackError,
        InvalidFeedback,
        LogUnavailable,
        TooLarge,
        UnknownModel,
        UnknownRow,
    )
    from luthier_feedback.log import FeedbackLog, Receipt
    from luthier_feedback.posting import Receipts, post
    from luthier_feedback.rows import Feedback, Kept, Row
    from luthier_feedback.seen import Seen, rows_used, runs_that_saw

__all__ = [
    "Client",
    "Conflict",
    "Feedback",
    "FeedbackError",
    "FeedbackLog",
    "InvalidFeedback",
    "Kept",
    "LogUnavailable",
    "Receipt",
    "Receipts",
    "Row",
    "Seen",
    "TooLarge",
    "UnknownModel",
    "UnknownRow",
    "post",
    "rows_used",
    "runs_that_saw",
]

_MODULES = {
    "client": ("Client",),
    "errors": (
        "Conflict",
        "FeedbackError",
        "InvalidFeedback",
        "LogUnavailable",
        "TooLarge",
        "UnknownModel",
        "UnknownRow",
    ),
    "log": ("FeedbackLog", "Receipt"),
    "posting": ("Receipts", "post"),
    "rows": ("Feedback", "Kept", "Row"),
    "seen": ("Seen", "rows_used", "runs_that_saw"),
}
_PLACES = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name in _PLACES:
        return getattr(importlib.import_module(f"luthier_feedback.{_PLACES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _fingerprint(*, log: str | None, held_out_since: str | None, **_: object) -> str:
    from luthier_feedback.frames import read_time
    from luthier_feedback.log import FeedbackLog

    read_time(held_out_since)
    with FeedbackLog(log, mode="read") as opened:
        return opened.trainable()


@component(fingerprint=_fingerprint)
def feedback(
    ctx: Context,
    *,
    kind: Literal["corrections", "votes", "pairs"] = "corrections",
    log: str | None = None,
    held_out: Annotated[float, Interval(ge=0, lt=1)] = 0.2,
    held_out_since: str | None = None,
    reviewed: bool = False,
    max_daily_per_source: Annotated[int, Ge(1)] = 200,
    max_daily_per_person: Annotated[int, Ge(1)] = 50,
    max_per_source: Annotated[int, Ge(1)] | None = None,
) -> Iterator[Frame]:
    """Read what people said of a model's answers: corrections, votes, or pairs of answers.

    `text` is the prompt: of a single message its content, of a conversation a transcript. Other columns: `held_out`,
    `model` (which answered) and `rows` (the ids of the log's rows that say it). The step runs again when rows that
    may be learnt from were added, changed or taken away. Its table `feedback` says of every row what became of it.

    | `kind` | columns | for the formatter |
    |---|---|---|
    | `corrections` | `completion`; `messages`, the conversation with it | `prompt-completion`, `chat` |
    | `votes` | `completion`, `label`: whether the answer was liked | `unpaired-preference` |
    | `pairs` | `chosen`, `rejected`: a correction and its answer, or answers of which one was liked | `preference` |

    All rows are in quarantine until they have consent and are within their retention; what a reviewer rejected stays
    there. So does a flood: where a person or a source gave more rows on one day than the limit, none of those is
    taken that no reviewer accepted, since nobody can tell which are honest. What is left is joined: rows that say the
    same make one document; of a person's votes on an answer the last counts, of all votes the majority; an answer with
    as many votes for it as against it is left out, and so are pairs that contradict each other.

    A share is `held_out`, never to be trained on: it is chosen by the hash of what the user first said, so that it
    stays the same as the log grows. Give the formatter `split: {held_out: held_out}`, and it is the split `test`.
    Near-duplicates are for the cleaner `near-duplicates` to join; ids are such that it keeps what is held out.

    Args:
        kind: what is made of the rows.
        log: the log, as a path from the working directory or a URL; LUTHIER_FEEDBACK, else `feedback/feedback.db`, if
            not given.
        held_out: the share of prompts that is held out.
        held_out_since: of that share only what came at this time or later, as `2026-01-31` or with a time (UTC); the
            rest of it is left out. So a validator measures how a model does on what people say of late.
        reviewed: take only what a reviewer accepted or edited.
        max_daily_per_source: more unreviewed rows of one source on one day (UTC) are a flood; the two of a comparison
            count as one.
        max_daily_per_person: more unreviewed rows of one person on one day, from whichever sources, are a flood.
        max_per_source: documents of one source at most, picked by their hash, reviewed ones first; all if not given.

    Raises:
        InputError: if there is no log, or no row of it makes such a document; it says why.
    """
    from luthier_feedback.frames import read_feedback_documents, read_time
    from luthier_feedback.quarantine import Rules

    rules = Rules(reviewed, max_daily_per_source, max_daily_per_person)
    since = read_time(held_out_since)
    return read_feedback_documents(ctx, log, kind, rules, held_out=held_out, since=since, max_per_source=max_per_source)


@hookimpl
def luthier_sources() -> list[Callable[..., Any]]:
    """Give the source."""
    return [feedback]
