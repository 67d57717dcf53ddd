"""What became of a component's rows: how many were kept, changed and dropped, and samples of each.

Only workers import this module: it needs polars.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import polars as pl

SAMPLES = 5


SAMPLE_CHARACTERS = 600


@dataclass
class Counts:
    """What became of a component's rows: documents_in = kept + dropped + quarantined, for one that adds none.

    `changed` are those of the kept whose columns differ; `added` are rows with ids that were not there
    (a source's rows; a formatter that makes several examples of one document).
    """

    documents_in: int = 0
    kept: int = 0
    changed: int = 0
    dropped: int = 0
    quarantined: int = 0
    added: int = 0

    def __add__(self, other: Counts) -> Counts:
        mine, theirs = asdict(self), asdict(other)
        return Counts(**{name: mine[name] + theirs[name] for name in mine})


@dataclass
class Outcome:
    """What running components over rows gave, besides the rows."""

    counts: Counts = field(default_factory=Counts)
    samples: dict[str, list[dict[str, str]]] = field(default_factory=dict)


def compare(
    before: pl.LazyFrame, after: pl.LazyFrame, quarantined: frozenset[str], *, redacts: bool = False
) -> Outcome:
    """Count what became of the rows, and take samples of what was kept as it was, changed and dropped.

    A row is changed if it differs in any of the columns that both have; what only one side has is no change
    of a document: a formatter's new columns are its work. Memory: an id and a hash a row.

    Args:
        before: the rows that a component saw; their ids are unique.
        after: the rows that it gave; their ids are unique.
        quarantined: the ids that it set aside.
        redacts: whether what it took out must not be shown; see `luthier.component`.
    """
    old, new = _digests(before, after)
    both = old.join(new, on="id", how="inner", maintain_order="left", suffix="_after")
    gone = old.join(new, on="id", how="anti", maintain_order="left")
    set_aside = gone.filter(pl.col("id").is_in(list(quarantined))).height
    differs = both["digest"] != both["digest_after"]
    counts = Counts(
        documents_in=old.height,
        kept=both.height,
        changed=int(differs.sum()),
        dropped=gone.height - set_aside,
        quarantined=set_aside,
        added=new.height - both.height,
    )
    ids = {"kept": both.filter(~differs)["id"], "changed": both.filter(differs)["id"], "dropped": gone["id"]}
    if redacts:
        ids = {"changed": ids["changed"]}
    samples = _samples(before, after, {name: some.head(SAMPLES).to_list() for name, some in ids.items()})
    for sample in samples["changed"] if redacts else ():
        del sample["before"]
    return Outcome(counts, samples)


def _digests(before: pl.LazyFrame, after: pl.LazyFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """For each side the rows' `id`, and a 64-bit hash of all columns that both have, nested ones too."""
    mine, theirs = before.collect_schema(), after.collect_schema()
    shared = _shared(mine, theirs)

    def digest(rows: pl.LazyFrame, schema: pl.Schema, other: pl.Schema) -> pl.DataFrame:
        # The hash of null depends on the type, and a column that is null throughout has none of its own.
        typed = [pl.col(name).cast(other[name]) if schema[name] == pl.Null else pl.col(name) for name in shared]
        hashed = pl.struct(typed).hash() if typed else pl.lit(0, dtype=pl.UInt64)
        return rows.select("id", hashed.alias("digest")).collect(engine="streaming")

    return digest(before, mine, theirs), digest(after, theirs, mine)


def _shared(before: pl.Schema, after: pl.Schema) -> list[str]:
    return [name for name in before if name in after and name != "id"]


def _samples(
    before: pl.LazyFrame, after: pl.LazyFrame, ids: Mapping[str, Sequence[str]]
) -> dict[str, list[dict[str, str]]]:
    old = _rows_of(before, [row_id for some in ids.values() for row_id in some])
    new = _rows_of(after, ids["changed"])
    shared = _shared(before.collect_schema(), after.collect_schema())
    samples = {
        kind: [{"id": row_id, "before": _clip(_main_text(old[row_id]))} for row_id in ids[kind]]
        for kind in ("kept", "dropped")
        if kind in ids
    }
    samples["changed"] = [{"id": row_id, **_change(old[row_id], new[row_id], shared)} for row_id in ids["changed"]]
    return samples


def _rows_of(rows: pl.LazyFrame, ids: Sequence[str]) -> dict[str, dict[str, Any]]:
    found = rows.filter(pl.col("id").is_in(list(ids))).collect(engine="streaming") if ids else pl.DataFrame()
    return {row["id"]: row for row in found.to_dicts()}


def _change(before: Mapping[str, Any], after: Mapping[str, Any], shared: Sequence[str]) -> dict[str, str]:
    """A row before and after: its text where only that changed, else each column that did, by name."""
    names = [name for name in shared if before[name] != after[name]] or list(shared)
    if names == ["text"]:
        return {"before": _clip(before["text"]), "after": _clip(after["text"])}
    # Short ones first: a long sample loses its end.
    names.sort(key=lambda name: len(_plain(before[name])))
    shown = ("\n".join(f"{name}: {_plain(row[name])}" for name in names) for row in (before, after))
    return dict(zip(("before", "after"), map(_clip, shown), strict=True))


def _main_text(row: Mapping[str, Any]) -> str:
    return str(row.get("text") or row.get("prompt") or _plain(row))


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)


def _clip(text: str) -> str:
    return text if len(text) <= SAMPLE_CHARACTERS else text[: SAMPLE_CHARACTERS - 1] + "…"
