"""Exact duplicates, by 128-bit hashes of normalised columns."""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl

from luthier import Dataset
from luthier_text._columns import Accepted, require_columns, text_of

# Two independent 64-bit hashes: among a billion documents a false match has a chance of about 1e-21.
SEEDS = (0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F)


def unique(data: Dataset, columns: list[str], *, ignore_case: bool, ignore_whitespace: bool) -> Iterator[pl.DataFrame]:
    """The shards' rows without those that an earlier row equals; see `cleaners.exact_duplicates`.

    Raises:
        InputError: if a column is not there, or is not text where case or blanks are to be ignored.
    """
    accept: Accepted = "text" if ignore_case or ignore_whitespace else "any"
    require_columns(data, columns, "exact-duplicates: columns", accept=accept)
    seen: set[tuple[int, int]] = set()
    keys = pl.struct(_key(column, ignore_case, ignore_whitespace) for column in columns)
    for frame in data.frames():
        first = []
        for key in frame.select(*(keys.hash(seed).alias(str(seed)) for seed in SEEDS)).iter_rows():
            first.append(key not in seen)
            seen.add(key)
        yield frame.filter(pl.Series(first, dtype=pl.Boolean))


def _key(column: str, ignore_case: bool, ignore_whitespace: bool) -> pl.Expr:
    if not ignore_case and not ignore_whitespace:
        return pl.col(column)
    text = text_of(column)
    if ignore_whitespace:
        text = text.str.replace_all(r"\s+", " ").str.strip_chars()
    return text.str.to_lowercase() if ignore_case else text
