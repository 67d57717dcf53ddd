"""Rows as the database keeps them, and back."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import RowMapping

from luthier_feedback.rows import Feedback, Kept, Row

_PLAIN = (
    "id", "model", "champion", "run", "answer", "vote", "correction", "comparison", "source", "person", "consent",
    "state",
)  # fmt: skip


def time_text(time: datetime) -> str:
    """A time in UTC as text that sorts as times do."""
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def to_record(kept: Kept) -> dict[str, Any]:
    """The columns of a row, without those that count."""
    return {
        **{name: getattr(kept, name) for name in _PLAIN},
        "prompt": json.dumps([turn.model_dump() for turn in kept.prompt], ensure_ascii=False),
        "tags": json.dumps(list(kept.tags), ensure_ascii=False),
        "time": time_text(kept.time),
        "keep_until": time_text(kept.keep_until) if kept.keep_until else None,
        "digest": kept.digest,
    }


def from_record(record: RowMapping) -> Row:
    """The row of a record."""
    keep_until = record["keep_until"]
    return Row.model_validate(
        {
            **{name: record[name] for name in _PLAIN},
            "prompt": tuple(json.loads(record["prompt"])),
            "tags": tuple(json.loads(record["tags"])),
            "time": datetime.fromisoformat(record["time"]),
            "keep_until": datetime.fromisoformat(keep_until) if keep_until else None,
            "sequence": record["sequence"],
            "revision": record["revision"],
        }
    )


def as_kept(feedback: Feedback, **changes: Any) -> Kept:
    """Feedback or a row as a row that is not in a log yet, with changes."""
    fields = {name: getattr(feedback, name) for name in Kept.model_fields if hasattr(feedback, name)}
    return Kept.model_construct(**{**_defaults(), **fields, **changes})


def _defaults() -> dict[str, Any]:
    return {"time": datetime.now(UTC), "state": "new"}
