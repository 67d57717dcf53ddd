"""The log of feedback: rows that are on the disk once they are acknowledged."""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    and_,
    delete,
    false,
    func,
    insert,
    or_,
    select,
    true,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite

from luthier.errors import InputError
from luthier_feedback import database, schema
from luthier_feedback.errors import Conflict, UnknownRow
from luthier_feedback.grouping import Grouped
from luthier_feedback.records import as_kept, from_record, time_text, to_record
from luthier_feedback.rows import Feedback, Kept, Row, State, problems_in_words, read_kept
from luthier_feedback.schema import HISTORY, ROWS

PAGE = 500
"""Rows that are read at once."""


@dataclass(frozen=True)
class Receipt:
    """What became of feedback that is now on the disk.

    Attributes:
        id: of its row.
        sequence: its row's place in the log.
        revision: of its row: more than 1 where a row of the id was there and said something else.
        created: whether it is a new row.
        changed: whether the log is another than before: not if the same was posted before.
    """

    id: str
    sequence: int
    revision: int
    created: bool
    changed: bool

    @property
    def status(self) -> int:
        """The HTTP status that says so."""
        return 201 if self.created else 200

    def to_json(self) -> dict[str, Any]:
        """The body of a response."""
        return asdict(self)


class FeedbackLog:
    """Feedback in SQLite or PostgreSQL. Threads may share it; so may processes share its file.

    Every method raises `LogUnavailable` if the database is locked, full, gone or damaged; the next call tries again.

    Args:
        where: a file, or `postgresql://…`; without one LUTHIER_FEEDBACK, else `feedback/feedback.db`.
        mode: `create` makes a file that is not there, `write` does not, `read` changes nothing either.
        timeout: seconds that a lock of others is waited for.

    Raises:
        InputError: if there is no such file, its file system is not fit for it, a newer version wrote it, or a
            driver is not installed.
        LogUnavailable: if it cannot be reached.
    """

    def __init__(
        self, where: str | Path | None = None, *, mode: database.Mode = "create", timeout: float = 5.0
    ) -> None:
        url = database.locate(where)
        self.place = database.place_of(url)
        self._timeout = timeout
        self._writer = threading.Lock() if url.get_backend_name() == "sqlite" else None
        self._insert = sqlite.insert if self._writer else postgresql.insert
        # PostgreSQL groups the commits of its clients itself.
        self._group = Grouped(self._add_some, lambda: database.locked(self.place), timeout) if self._writer else None
        self._engine = database.connect(url, mode=mode, timeout=timeout)
        if mode == "read":
            self._check_version(where)
        else:
            with self._transaction(write=True) as connection:
                schema.prepare(connection, self.place)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close its connections."""
        self._engine.dispose()

    def add(self, feedback: Feedback, *, retention: timedelta | None = None) -> Receipt:
        """Keep feedback; it is on the disk when this returns.

        Of a known id, it is the same feedback again, which changes nothing; or it says something else of the same
        answer, which replaces its vote, correction, tags and consent (the history keeps what they were, and a
        reviewer's word on it no longer holds); or it is about something else, which is refused.

        Args:
            feedback: what was posted, or a line of an export, whose time and state are kept.
            retention: how long to keep it where it does not say so itself.

        Raises:
            Conflict: if its id is that of feedback about something else.
        """
        outcome = self._group((feedback, retention)) if self._group else self._add_some([(feedback, retention)])[0]
        if isinstance(outcome, Conflict):
            raise outcome
        return outcome

    def add_each(self, feedback: Iterable[Feedback]) -> list[Receipt | Conflict]:
        """Keep several rows at once, but for those whose id is that of feedback about something else; see `add`."""
        return self._add_some([(each, None) for each in feedback])

    def add_all(self, feedback: Iterable[Feedback], *, retention: timedelta | None = None) -> list[Receipt]:
        """Keep several rows, all or none; see `add`."""
        with self._transaction(write=True) as connection:
            return [self._add(connection, each, retention) for each in feedback]

    def get(self, id: str) -> Row:
        """The row of an id.

        Raises:
            UnknownRow: if there is none.
        """
        with self._transaction() as connection:
            return self._row(connection, id)

    def rows(
        self,
        *,
        state: State | None = None,
        model: str | None = None,
        source: str | None = None,
        person: str | None = None,
        since: datetime | None = None,
        before: int | None = None,
        newest: int | None = None,
    ) -> Iterator[Row]:
        """The rows in the order of the log, read page by page; what is added meanwhile may be among them.

        Args:
            state, model, source, person: only rows with these.
            since: only rows acknowledged then or later.
            before: only rows of a lower sequence number.
            newest: only so many, the newest first.
        """
        wanted = {"state": state, "model": model, "source": source, "person": person}
        query = select(ROWS).where(*(ROWS.c[name] == value for name, value in wanted.items() if value is not None))
        if since is not None:
            query = query.where(ROWS.c.time >= time_text(since))
        if before is not None:
            query = query.where(ROWS.c.sequence < before)
        if newest is None:
            yield from self._pages(query)
            return
        with self._transaction() as connection:
            found = connection.execute(query.order_by(ROWS.c.sequence.desc()).limit(newest)).mappings()
            rows = [from_record(record) for record in found]
        yield from rows

    def counts(self) -> dict[str, dict[str, int]]:
        """How many rows there are of each vote, state, source and model, and how many may be learnt from."""
        found: dict[str, dict[str, int]] = {}
        with self._transaction() as connection:
            for name in ("vote", "state", "source", "model"):
                query = select(ROWS.c[name], func.count()).group_by(ROWS.c[name]).order_by(func.count().desc())
                found[name] = {
                    "none" if value is None else str(value): count for value, count in connection.execute(query)
                }
            for name, condition in (
                ("rows", true()),
                ("corrections", ROWS.c.correction.is_not(None)),
                ("may be learnt from", _trainable()),
            ):
                query = select(func.count()).select_from(ROWS).where(condition)
                found.setdefault("total", {})[name] = connection.execute(query).scalar_one()
        return found

    def review(self, id: str, state: State, *, correction: str | None = None, revision: int | None = None) -> Row:
        """Note what a reviewer said of a row, and give the row.

        Args:
            id: of the row.
            state: `edited` with a correction; anything else leaves the correction as it is.
            correction: what the model should have written.
            revision: which the reviewer saw.

        Raises:
            UnknownRow: if there is none.
            Conflict: if it has another revision by now.
            TooLarge, InvalidFeedback: if the correction cannot be kept.
            ValueError: if there is a correction and the state is another than `edited`, or the other way round.
        """
        if (state == "edited") != (correction is not None):
            raise ValueError("a correction goes with the state 'edited', and only with it")
        changes = {"state": state} | ({} if correction is None else {"correction": correction})
        with self._transaction(write=True) as connection:
            before = self._row(connection, id, lock=True)
            if revision is not None and before.revision != revision:
                raise Conflict(
                    f"the feedback {id!r} was changed meanwhile: it has the revision {before.revision}, not {revision}",
                    "Look at it again.",
                )
            with problems_in_words():
                after = Kept.model_validate({**as_kept(before).model_dump(), **changes})
            if after.digest != before.digest:
                self._replace(connection, before, after)
            return self._row(connection, id)

    def history(self, id: str) -> list[str]:
        """What a row was before it was changed, oldest first: each the line of an export."""
        query = select(HISTORY.c.record).where(HISTORY.c.id == id).order_by(HISTORY.c.revision)
        with self._transaction() as connection:
            return list(connection.execute(query).scalars())

    def ids(self, *, person: str | None = None, expired: bool = False) -> list[str]:
        """The ids of a person's rows, and of those past their retention, in the order of the log."""
        query = select(ROWS.c.id).where(_forgettable(person, expired=expired)).order_by(ROWS.c.sequence)
        with self._transaction() as connection:
            return list(connection.execute(query).scalars())

    def purge(self, *, person: str | None = None, expired: bool = False) -> list[str]:
        """Remove a person's rows, and those past their retention, with their history; gives their ids.

        Their bytes are overwritten: the files of the database are written anew.

        Raises:
            LogUnavailable: also if the rows are removed, but others read the log for so long that its files could not
                be written anew; purge again, which does that.
        """
        wanted = _forgettable(person, expired=expired)
        with self._transaction(write=True) as connection:
            connection.execute(delete(HISTORY).where(HISTORY.c.id.in_(select(ROWS.c.id).where(wanted))))
            removed = connection.execute(delete(ROWS).where(wanted).returning(ROWS.c.id)).scalars().all()
        with database.errors_in_words(self.place):
            database.erase(self._engine, self.place, [ROWS.name, HISTORY.name])
        return sorted(removed)

    def trainable(self) -> str:
        """A hash of all rows that may be learnt from as far as the log knows: it changes when they do."""
        query = select(ROWS.c.digest).where(_trainable())
        found = hashlib.sha256()
        with self._transaction() as connection:
            for digest in connection.execute(query.order_by(ROWS.c.sequence)).scalars():
                found.update(digest.encode())
        return found.hexdigest()

    def _check_version(self, where: str | Path | None) -> None:
        with self._transaction() as connection:
            found = schema.version(connection, self.place)
        if not found:
            raise InputError(
                f"there is no feedback in {self.place}", "Name another log, with --log or LUTHIER_FEEDBACK."
            )
        if found < schema.VERSION:
            FeedbackLog(where, mode="write", timeout=self._timeout).close()

    def _add_some(self, several: Sequence[tuple[Feedback, timedelta | None]]) -> list[Receipt | Conflict]:
        with self._transaction(write=True) as connection:
            return [self._add_or_refuse(connection, feedback, retention) for feedback, retention in several]

    def _add_or_refuse(
        self, connection: Connection, feedback: Feedback, retention: timedelta | None
    ) -> Receipt | Conflict:
        try:
            return self._add(connection, feedback, retention)
        except Conflict as conflict:
            # Nothing of this row was written, so those before it stand.
            return conflict

    def _add(self, connection: Connection, feedback: Feedback, retention: timedelta | None) -> Receipt:
        kept = feedback if type(feedback) is Kept else as_kept(feedback)
        assert isinstance(kept, Kept)
        if kept.keep_until is None and retention is not None:
            kept = as_kept(kept, keep_until=kept.time + retention)
        statement = (
            self._insert(ROWS).values(revision=1, **to_record(kept)).on_conflict_do_nothing(index_elements=["id"])
        )
        sequence = connection.execute(statement.returning(ROWS.c.sequence)).scalar_one_or_none()
        if sequence is not None:
            return Receipt(kept.id, sequence, 1, created=True, changed=True)
        return self._revise(connection, feedback)

    def _revise(self, connection: Connection, feedback: Feedback) -> Receipt:
        before = self._row(connection, feedback.id, lock=True)
        if before.subject != feedback.subject:
            raise Conflict(
                f"the id {feedback.id!r} is that of feedback about something else",
                "Give each its own; an id is for sending the same feedback again, or changing what it says.",
            )
        after = revised(before, feedback, self._as_posted(connection, before))
        if after.digest == before.digest:
            return Receipt(before.id, before.sequence, before.revision, created=False, changed=False)
        self._replace(connection, before, after)
        return Receipt(before.id, before.sequence, before.revision + 1, created=False, changed=True)

    def _as_posted(self, connection: Connection, row: Row) -> Kept:
        """What was posted last of a row: before a reviewer edited it."""
        if row.state == "edited":
            query = select(HISTORY.c.record).where(HISTORY.c.id == row.id).order_by(HISTORY.c.revision.desc())
            earlier = map(read_kept, map(str.encode, connection.execute(query).scalars()))
            return next((each for each in earlier if each.state != "edited"), row)
        return row

    def _replace(self, connection: Connection, before: Row, after: Kept) -> None:
        now, was = time_text(datetime.now(UTC)), before.to_line()
        connection.execute(insert(HISTORY).values(id=before.id, revision=before.revision, replaced=now, record=was))
        changed = to_record(after) | {"revision": before.revision + 1}
        connection.execute(update(ROWS).where(ROWS.c.sequence == before.sequence).values(**changed))

    def _row(self, connection: Connection, id: str, *, lock: bool = False) -> Row:
        query = select(ROWS).where(ROWS.c.id == id)
        found = connection.execute(query.with_for_update() if lock else query).mappings().one_or_none()
        if found is None:
            raise UnknownRow(f"there is no feedback of the id {id!r}", "See: luthier feedback list")
        return from_record(found)

    def _pages(self, query: Select[Any]) -> Iterator[Row]:
        last = 0
        while True:
            page = query.where(ROWS.c.sequence > last).order_by(ROWS.c.sequence).limit(PAGE)
            with self._transaction() as connection:
                rows = [from_record(record) for record in connection.execute(page).mappings()]
            yield from rows
            if len(rows) < PAGE:
                return
            last = rows[-1].sequence

    @contextlib.contextmanager
    def _transaction(self, *, write: bool = False) -> Iterator[Connection]:
        """A transaction that is committed at the end; of one that writes, the file is still there then."""
        with contextlib.ExitStack() as stack:
            stack.enter_context(database.errors_in_words(self.place))
            if write and self._writer:
                # SQLite has its writers poll; threads of this process wait in line.
                if not self._writer.acquire(timeout=self._timeout):
                    raise database.locked(self.place)
                stack.callback(self._writer.release)
            connection = stack.enter_context(self._engine.connect())
            with connection.execution_options(**database.WRITES if write else {}).begin():
                yield connection
            if write:
                database.check_unmoved(connection, self.place)


def _trainable() -> ColumnElement[bool]:
    unexpired = ROWS.c.keep_until.is_(None) | (ROWS.c.keep_until > time_text(datetime.now(UTC)))
    return and_(ROWS.c.consent, unexpired, ROWS.c.state != "rejected")


def _forgettable(person: str | None, *, expired: bool) -> ColumnElement[bool]:
    condition: ColumnElement[bool] = false()
    if person is not None:
        condition = or_(condition, ROWS.c.person == person)
    if expired:
        condition = or_(condition, ROWS.c.keep_until <= time_text(datetime.now(UTC)))
    return condition


def revised(before: Row, feedback: Feedback, posted: Kept) -> Kept:
    """A row after a later post of its id.

    Args:
        before: the row.
        feedback: the later post.
        posted: what was posted last: the same again does not undo what a reviewer made of it.
    """
    changes: dict[str, Any] = {"consent": feedback.consent, "keep_until": feedback.keep_until or before.keep_until}
    exported = isinstance(feedback, Kept) and "state" in feedback.model_fields_set
    if exported or feedback.judgement != posted.judgement:
        changes |= {name: getattr(feedback, name) for name in ("vote", "correction", "tags")}
        changes["state"] = feedback.state if isinstance(feedback, Kept) and exported else "new"
    return as_kept(before, **changes)
