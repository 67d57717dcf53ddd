"""The tables of the log, and their version: a newer one is refused, an older one is brought up to this."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Connection,
    Identity,
    Index,
    Integer,
    MetaData,
    SmallInteger,
    String,
    Table,
    Text,
    insert,
    inspect,
    select,
    text,
    update,
)

from luthier.errors import InputError

VERSION = 3

LOCK = 0x6C757468
"""The number of PostgreSQL's lock that whoever makes or changes the tables holds."""

METADATA = MetaData()

META = Table(
    "luthier_feedback_meta",
    METADATA,
    Column("key", String(32), primary_key=True),
    Column("value", String(128), nullable=False),
)

ROWS = Table(
    "luthier_feedback",
    METADATA,
    Column("sequence", BigInteger().with_variant(Integer, "sqlite"), Identity(), primary_key=True),
    Column("id", String(128), nullable=False, unique=True),
    Column("revision", Integer, nullable=False),
    Column("digest", String(64), nullable=False),
    Column("time", String(32), nullable=False),
    Column("state", String(16), nullable=False),
    Column("model", String(64)),
    Column("champion", String(128)),
    Column("run", String(128)),
    Column("prompt", Text, nullable=False),
    Column("answer", Text, nullable=False),
    Column("vote", SmallInteger),
    Column("correction", Text),
    Column("tags", Text, nullable=False),
    Column("comparison", String(128)),
    Column("source", String(128), nullable=False),
    Column("person", String(128)),
    Column("consent", Boolean, nullable=False),
    Column("keep_until", String(32)),
    # A number of a row that was purged is never given again.
    sqlite_autoincrement=True,
)

INDEXES = (
    Index("luthier_feedback_person", ROWS.c.person),
    Index("luthier_feedback_state", ROWS.c.state, ROWS.c.sequence),
)

HISTORY = Table(
    "luthier_feedback_history",
    METADATA,
    Column("id", String(128), primary_key=True),
    Column("revision", Integer, primary_key=True, autoincrement=False),
    Column("replaced", String(32), nullable=False),
    Column("record", Text, nullable=False),
)
"""What rows were before they were changed, each as the line of an export that it was."""


def _index(connection: Connection) -> None:
    for index in INDEXES:
        index.create(connection, checkfirst=True)


def _name_comparisons(connection: Connection) -> None:
    connection.execute(text(f"ALTER TABLE {ROWS.name} ADD COLUMN comparison VARCHAR(128)"))


MIGRATIONS: Mapping[int, Callable[[Connection], None]] = {1: _index, 2: _name_comparisons}
"""What brings tables of a version to the next one."""


def version(connection: Connection, place: str) -> int:
    """The version of the tables; 0 where there are none.

    Raises:
        InputError: if a newer luthier-feedback wrote them.
    """
    if not inspect(connection).has_table(META.name):
        return 0
    found = int(connection.execute(select(META.c.value).where(META.c.key == "version")).scalar_one())
    if found > VERSION:
        raise InputError(
            f"the feedback log {place} has version {found}; this luthier-feedback reads up to {VERSION}",
            "Upgrade: pip install --upgrade luthier-feedback",
        )
    return found


def prepare(connection: Connection, place: str) -> None:
    """Make the tables, or bring them to this version; they are of one version or the other, never in between.

    Raises:
        InputError: if a newer luthier-feedback wrote them.
    """
    if connection.dialect.name == "postgresql":
        # SQLite's transaction keeps others out; here two that begin at once would both make the tables.
        connection.execute(text("SELECT pg_advisory_xact_lock(:number)"), {"number": LOCK})
    found = version(connection, place)
    if not found:
        METADATA.create_all(connection)
        connection.execute(insert(META).values(key="version", value=str(VERSION)))
        return
    for number in range(found, VERSION):
        MIGRATIONS[number](connection)
    if found < VERSION:
        connection.execute(update(META).where(META.c.key == "version").values(value=str(VERSION)))
