"""The source: rows of the log as frames of documents, and a table that says what became of each row."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterator, Mapping, Sequence
from datetime import UTC, datetime

import polars as pl

from luthier import Context, InputError
from luthier_feedback.documents import Document, Kind, Made, cap, make_documents, recent
from luthier_feedback.log import FeedbackLog
from luthier_feedback.quarantine import Rules, comparison_of, release

TABLE = "feedback"
"""The table of a source step: `row` (an id), `use` (`train`, `held-out` or `none`), `document`, `reason`."""

ROWS_A_FRAME = 10_000


def read_feedback_documents(
    ctx: Context,
    log: str | None,
    kind: Kind,
    rules: Rules,
    *,
    held_out: float,
    since: datetime | None,
    max_per_source: int | None,
) -> Iterator[pl.DataFrame]:
    """Frames of documents; see `luthier_feedback.feedback`.

    Raises:
        InputError: if there is no log, or no row of it makes a document.
    """
    with FeedbackLog(log, mode="read") as opened:
        place = opened.place
        documents, reasons = _select(opened, kind, rules, max_per_source)
    if since is not None:
        documents, old = recent(documents, held_out, since)
        reasons |= {row.id: f"held out, and from before {since:%Y-%m-%d %H:%M}" for each in old for row in each.rows}
    _note(ctx, documents, reasons, held_out)
    if not documents:
        raise _nothing(place, kind, reasons)
    for start in range(0, len(documents), ROWS_A_FRAME):
        yield _frame(documents[start : start + ROWS_A_FRAME], held_out)


def usable_rows(log: str | None, kind: Kind, rules: Rules, max_per_source: int | None) -> dict[str, Hashable]:
    """The ids of the rows that the source would make documents of now, each with its comparison; see `comparison_of`.

    Raises:
        InputError: if there is no log.
    """
    with FeedbackLog(log, mode="read") as opened:
        documents, _ = _select(opened, kind, rules, max_per_source)
    return {row.id: comparison_of(row) for document in documents for row in document.rows}


def count_held_out(
    log: str | None, kind: Kind, rules: Rules, max_per_source: int | None, *, held_out: float, since: datetime
) -> int:
    """How many documents that the source would make now are held out, and came since a time.

    Raises:
        InputError: if there is no log.
    """
    with FeedbackLog(log, mode="read") as opened:
        documents, _ = _select(opened, kind, rules, max_per_source)
    return sum(each.is_held_out(held_out) and each.came_since(since) for each in documents)


def read_time(text: str | None) -> datetime | None:
    """The time that `held_out_since` gives, in UTC where it names no zone.

    Raises:
        InputError: if it is none.
    """
    if text is None:
        return None
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        message = f"held_out_since: {text!r} is no time"
        raise InputError(message, "Write it as in ISO 8601: 2026-01-31, or 2026-01-31T12:00:00+00:00.") from None
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def _select(log: FeedbackLog, kind: Kind, rules: Rules, max_per_source: int | None) -> Made:
    """The documents that the log makes now, and of each row that is in none of them why not."""
    passed, reasons = release(log.rows(), rules, datetime.now(UTC))
    documents, unused = make_documents(passed, kind)
    documents, over = cap(documents, max_per_source)
    reasons |= unused
    used = {row.id for document in documents for row in document.rows}
    more = f"more than {max_per_source} documents of its source"
    reasons |= {row.id: more for document in over for row in document.rows if row.id not in used}
    return documents, reasons


def _id_of(document: Document, held_out: float) -> str:
    # Of near-duplicates the cleaner keeps the one of the least id: so what is like a row that is held out is dropped,
    # and not trained on.
    return f"{'eval' if document.is_held_out(held_out) else 'train'}-{document.digest}"


def _frame(documents: Sequence[Document], held_out: float) -> pl.DataFrame:
    columns = {name: [document.columns[name] for document in documents] for name in documents[0].columns}
    return pl.DataFrame(
        {
            "id": [_id_of(document, held_out) for document in documents],
            "text": [document.text for document in documents],
            "source": [document.source for document in documents],
            "group": [document.group for document in documents],
            "held_out": [document.is_held_out(held_out) for document in documents],
            "model": pl.Series([document.rows[0].model for document in documents], dtype=pl.String),
            "rows": [[row.id for row in document.rows] for document in documents],
            **columns,
        }
    )


def _note(ctx: Context, documents: Sequence[Document], reasons: Mapping[str, str], held_out: float) -> None:
    """Keep which rows are used, for what, and why the others are not: `luthier feedback purge` looks there."""
    table = [
        {
            "row": row.id,
            "use": "held-out" if document.is_held_out(held_out) else "train",
            "document": _id_of(document, held_out),
            "reason": "",
        }
        for document in documents
        for row in document.rows
    ]
    used = {each["row"] for each in table}
    table += [
        {"row": row, "use": "none", "document": "", "reason": why} for row, why in reasons.items() if row not in used
    ]
    ctx.table(TABLE, pl.DataFrame(table, schema=dict.fromkeys(("row", "use", "document", "reason"), pl.String)))
    for use in ("train", "held-out"):
        ctx.metric(f"{use.replace('-', '_')}_documents", len({e["document"] for e in table if e["use"] == use}))
    ctx.metric("rows", len(used))
    for reason, count in Counter(each["reason"] for each in table if each["use"] == "none").most_common():
        ctx.log.info("%d rows are left out: %s", count, reason)


def _nothing(place: str, kind: Kind, reasons: Mapping[str, str]) -> InputError:
    counts = Counter(reasons.values()).most_common()
    told = "; ".join(f"{count:,} {reason}" for reason, count in counts)
    return InputError(
        f"no row of the feedback log {place} makes {kind}: {told or 'it is empty'}",
        "`luthier feedback review` accepts rows; an application says `consent: true` of what may be learnt from.",
    )
