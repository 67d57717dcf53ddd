"""Count which groups the data mentions: one pass, one alternation of all terms."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import polars as pl

from luthier import Context, Dataset, InputError
from luthier_bias._bars import Bar, bars
from luthier_bias._groups import GROUPS

EVERYWHERE = "all"
PER = 1_000_000
GROUP_OF = {term: (axis, group) for axis, groups in GROUPS.items() for group, terms in groups.items() for term in terms}
# Longer terms first, so that `black women` is not taken for `women`.
TERMS = r"(?i)\b(?:" + "|".join(re.escape(term) for term in sorted(GROUP_OF, key=lambda t: (-len(t), t))) + r")\b"
TABLE: dict[str, type[pl.DataType]] = {
    "source": pl.String,
    "axis": pl.String,
    "group": pl.String,
    "documents": pl.Int64,
    "mentions": pl.Int64,
    "mentions_per_million_words": pl.Float64,
    "share_of_documents": pl.Float64,
}
WORD = r"[\p{L}\p{M}\p{N}_]+"

Group = tuple[str, str]
ANY: Group = ("", "")
"""Counts the documents that mention any group."""


@dataclass
class Tally:
    """What one source has.

    Attributes:
        documents: how many.
        words: of all documents.
        mentions: of each group.
        mentioning: documents that mention each group.
    """

    documents: int = 0
    words: int = 0
    mentions: Counter[Group] = field(default_factory=Counter)
    mentioning: Counter[Group] = field(default_factory=Counter)

    def add(self, other: Tally) -> None:
        """Add another's counts."""
        self.documents += other.documents
        self.words += other.words
        self.mentions += other.mentions
        self.mentioning += other.mentioning


def audit(data: Dataset, ctx: Context, column: str, by: str, top: int) -> Iterator[pl.DataFrame]:
    """The data as it is; table, figure and metrics on the way; see `luthier_bias.representation`.

    Raises:
        InputError: if a column is not there.
    """
    present = data.scan().collect_schema().names()
    for name in (column, by):
        if name not in present:
            raise InputError(f"the data has no column {name!r}", f"It has: {', '.join(present)}.")
    tallies: dict[str, Tally] = {}
    for done, frame in enumerate(data.frames(), 1):
        _count(frame.select(text=pl.col(column), by=pl.col(by).cast(pl.String).fill_null("")), tallies)
        ctx.progress(done, len(data.shards))
        yield frame
    whole = Tally()
    for tally in tallies.values():
        whole.add(tally)
    largest = sorted(tallies, key=lambda source: (-tallies[source].documents, source))[:top]
    rows = _rows(EVERYWHERE, whole) + [row for source in largest for row in _rows(source, tallies[source])]
    ctx.table("representation", pl.DataFrame(rows, schema=TABLE, orient="row"))
    ctx.figure("representation", _figure(whole))
    ctx.metric("documents", whole.documents)
    ctx.metric("documents_that_mention_people", whole.mentioning[ANY])


def _count(frame: pl.DataFrame, tallies: dict[str, Tally]) -> None:
    text = pl.col("text").fill_null("")
    words = frame.group_by("by").agg(text.str.count_matches(WORD).sum().alias("words"), pl.len().alias("documents"))
    for source, count, documents in words.iter_rows():
        tally = tallies.setdefault(source, Tally())
        tally.words += count
        tally.documents += documents
    found = frame.select("by", text.str.extract_all(TERMS).alias("terms"))
    for source, terms in found.filter(pl.col("terms").list.len() > 0).iter_rows():
        groups = Counter(GROUP_OF[term.lower()] for term in terms)
        tally = tallies[source]
        tally.mentions.update(groups)
        tally.mentioning.update([*groups, ANY])


def _rows(source: str, tally: Tally) -> list[tuple[str, str, str, int, int, float, float]]:
    return [
        (
            source,
            axis,
            group,
            tally.mentioning[(axis, group)],
            tally.mentions[(axis, group)],
            PER * tally.mentions[(axis, group)] / max(tally.words, 1),
            tally.mentioning[(axis, group)] / max(tally.documents, 1),
        )
        for axis, groups in GROUPS.items()
        for group in groups
    ]


def _figure(whole: Tally) -> str:
    measured = [
        Bar(axis, group, PER * whole.mentions[(axis, group)] / max(whole.words, 1))
        for axis, groups in GROUPS.items()
        for group in groups
        if whole.mentions[(axis, group)]
    ]
    return bars(measured, "Mentions of groups of people", f"per million words, {whole.documents:,} documents")
