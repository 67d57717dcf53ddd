"""Which rows may be learnt from at all: what was not allowed, what a reviewer refused, and what came as a flood."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from luthier_feedback.prompts import is_answerable, key_of
from luthier_feedback.rows import Row


@dataclass(frozen=True)
class Rules:
    """What lets a row out of quarantine.

    Attributes:
        reviewed: only rows that a reviewer accepted or edited.
        max_daily_per_source: unreviewed rows of one source on one day (UTC), the two of a comparison as one; where
            there are more, all of them stay.
        max_daily_per_person: the same for one person, whatever the sources say, counted before.
    """

    reviewed: bool
    max_daily_per_source: int
    max_daily_per_person: int


def release(rows: Iterable[Row], rules: Rules, now: datetime) -> tuple[list[Row], dict[str, str]]:
    """The rows that may be learnt from, in their order, and of each other one by its id why not."""
    reasons: dict[str, str] = {}
    passed: list[Row] = []
    for row in rows:
        reason = _refusal(row, rules, now)
        if reason:
            reasons[row.id] = reason
        else:
            passed.append(row)
    # A person's flood is taken out first, so that it does not hold what others of the source said that day. It is
    # counted over all sources, or one name under many of them would be none.
    floods: list[tuple[Callable[[Row], Hashable], int, str]] = [
        (_person_and_day, rules.max_daily_per_person, "person"),
        (_source_and_day, rules.max_daily_per_source, "source"),
    ]
    for key, limit, whose in floods:
        held = _flood(passed, key, limit)
        reasons |= dict.fromkeys(held, f"flood: more than {limit} unreviewed rows of its {whose} on that day")
        passed = [row for row in passed if row.id not in held]
    return passed, reasons


def _refusal(row: Row, rules: Rules, now: datetime) -> str:
    if not row.consent:
        return "no consent"
    if row.keep_until is not None and row.keep_until <= now:
        return "past its retention"
    if row.state == "rejected":
        return "rejected in review"
    if rules.reviewed and row.state == "new":
        return "not reviewed"
    return "" if is_answerable(row.prompt) else "the prompt does not end with a user's message"


def _flood(rows: Sequence[Row], key: Callable[[Row], Hashable], limit: int) -> set[str]:
    """The ids of unreviewed rows of which more than `limit` share a key; those whose key is None share nothing."""
    shared = defaultdict(list)
    for row in rows:
        if row.state == "new" and key(row) is not None:
            shared[key(row)].append(row)
    return {row.id for those in shared.values() if count_acts(map(comparison_of, those)) > limit for row in those}


def comparison_of(row: Row) -> Hashable:
    """What a person's votes on the two answers of a comparison share; None of any other row."""
    voted = row.comparison and row.correction is None
    return (row.person, row.comparison, key_of(row.prompt)) if voted else None


def count_acts(comparisons: Iterable[Hashable]) -> int:
    """How many acts of feedback rows are: a person's votes on the two answers of a comparison are one.

    No more than two rows count as one, whatever they say of themselves.

    Args:
        comparisons: of each row, what `comparison_of` gives.
    """
    counts = Counter(comparisons)
    return counts.total() - sum(count > 1 for comparison, count in counts.items() if comparison is not None)


def _person_and_day(row: Row) -> Hashable:
    return (row.person, row.time.date()) if row.person else None


def _source_and_day(row: Row) -> Hashable:
    return (row.source, row.time.date())
