"""Near-duplicates: candidates by bands, verified by signatures, joined to clusters and groups."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import polars as pl
from numpy.typing import NDArray

from luthier import Dataset
from luthier_text._columns import require_columns
from luthier_text._minhash import MinHash, bands
from luthier_text._union import Union, linked

Signatures = NDArray[np.uint32]


def deduplicate(
    data: Dataset, column: str, minhash: MinHash, threshold: float, *, keep_all: bool
) -> Iterator[pl.DataFrame]:
    """The rows that stay, with their groups; see `cleaners.near_duplicates`.

    Raises:
        InputError: if the column of text is not there.
    """
    require_columns(data, [column], "near-duplicates: column")
    signatures = np.concatenate(
        [
            np.zeros((0, minhash.permutations), np.uint32),
            *(minhash.signatures(frame[column].cast(pl.String)) for frame in data.frames()),
        ]
    )
    rows = data.scan().select("id", "group").collect()
    order = rows["id"].arg_sort().to_numpy()
    cluster = np.empty(len(order), dtype=np.int64)
    cluster[order] = order[clusters(signatures[order], threshold)]
    groups = linked(rows["group"].to_list(), [str(member) for member in cluster])
    stays = np.ones(len(order), dtype=bool) if keep_all else cluster == np.arange(len(order))
    start = 0
    for frame in data.frames():
        end = start + frame.height
        named = frame.with_columns(pl.Series("group", groups[start:end], dtype=pl.String))
        yield named.filter(pl.Series(stays[start:end]))
        start = end


def clusters(signatures: Signatures, threshold: float) -> NDArray[np.int64]:
    """For each document the first document of its cluster.

    Two documents are joined if they share a band and their signatures agree in at least `threshold` of
    the entries; clusters are the connected components.

    Args:
        signatures: (documents, permutations).
        threshold: the least share of equal entries.
    """
    distinct, first, inverse = _distinct(signatures)
    union = Union(len(distinct))
    count, width = bands(signatures.shape[1], threshold)
    least = int(np.ceil(threshold * signatures.shape[1] - 1e-9))
    for band in range(count):
        for bucket in _buckets(distinct[:, band * width : (band + 1) * width]):
            _join_similar(union, distinct, bucket, least)
    roots = np.array([union.find(member) for member in range(len(distinct))], dtype=np.int64)
    return np.asarray(first[roots][inverse], dtype=np.int64)


def _distinct(signatures: Signatures) -> tuple[Signatures, NDArray[np.int64], NDArray[np.int64]]:
    # In the order of their first document, so that a component's least member is its first document.
    keys = _as_keys(signatures)
    _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    order = np.argsort(first)
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    return signatures[first[order]], first[order], rank[inverse.reshape(-1)]


def _as_keys(rows: Signatures) -> NDArray[np.void]:
    rows = np.ascontiguousarray(rows)
    return rows.view(np.dtype((np.void, rows.dtype.itemsize * rows.shape[1]))).reshape(-1)


def _buckets(band: Signatures) -> Iterator[NDArray[np.int64]]:
    """The sets of two and more rows that are equal, each in ascending order."""
    if not len(band):
        return
    _, inverse, counts = np.unique(_as_keys(band), return_inverse=True, return_counts=True)
    members = np.argsort(inverse.reshape(-1), kind="stable")
    ends = np.cumsum(counts)
    for bucket in np.flatnonzero(counts > 1):
        yield members[ends[bucket] - counts[bucket] : ends[bucket]]


def _join_similar(union: Union, signatures: Signatures, bucket: NDArray[np.int64], least: int) -> None:
    remaining = bucket
    while len(remaining) > 1:
        leader, others = int(remaining[0]), remaining[1:]
        root = union.find(leader)
        # Those that are joined already need no comparison, which keeps large clusters from being quadratic.
        apart = np.array([other for other in others if union.find(int(other)) != root], dtype=np.int64)
        if len(apart):
            equal = (signatures[apart] == signatures[leader]).sum(axis=1)
            for other in apart[equal >= least]:
                union.join(leader, int(other))
        remaining = others
