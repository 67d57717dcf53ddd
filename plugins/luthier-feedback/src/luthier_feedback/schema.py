"""The tables of the log, and their version: a newer one is refused, an older one is brought up to this."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Connection,
    Identity,
    Integer,
    MetaData,
    SmallInteger,
    String,
    Table,
    Text,
    insert,
    inspect,
    select,
)

from luthier.errors import InputError

VERSION = 1

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
    Column("source", String(128), nullable=False),
    Column("person", String(128)),
    Column("consent", Boolean, nullable=False),
    Column("keep_until", String(32)),
    # A number of a row that was purged is never given again.
    sqlite_autoincrement=True,
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


def prepare(connection: Connection, place: str, *, write: bool) -> None:
    """Make the tables, or see that they are of this version.

    Raises:
        InputError: if a newer Luthier wrote them, or there are none and they may not be made.
    """
    if not inspect(connection).has_table(META.name):
        if not write:
            raise InputError(f"there is no feedback in {place}", "Name another log, with --log or LUTHIER_FEEDBACK.")
        METADATA.create_all(connection)
        connection.execute(insert(META).values(key="version", value=str(VERSION)))
        return
    found = int(connection.execute(select(META.c.value).where(META.c.key == "version")).scalar_one())
    if found > VERSION:
        raise InputError(
            f"the feedback log {place} has version {found}; this luthier-feedback reads up to {VERSION}",
            "Upgrade: pip install --upgrade luthier-feedback",
        )
