"""Exact and near-duplicates: what goes, what stays, and that the order of rows and shards is nothing to it."""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
import sys
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from luthier import Dataset
from luthier_text import cleaners
from luthier_text._minhash import MinHash, bands
from luthier_text._near import clusters
from luthier_text._union import linked

MakeDataset = Callable[..., Dataset]
WORDS = [hashlib.md5(str(n).encode()).hexdigest()[:6] for n in range(5000)]


def exact(data: Dataset, **configuration: Any) -> pl.DataFrame:
    return pl.concat(list(cleaners.exact_duplicates(data, **configuration)))


def near(data: Dataset, **configuration: Any) -> pl.DataFrame:
    return pl.concat(list(cleaners.near_duplicates(data, **configuration)))


def words(seed: int, count: int = 200) -> list[str]:
    return random.Random(seed).choices(WORDS, k=count)


def edited(text: list[str], seed: int, share: float) -> list[str]:
    chance = random.Random(seed)
    return [chance.choice(WORDS) if chance.random() < share else word for word in text]


def shingles(text: str, ngram: int = 3) -> set[tuple[str, ...]]:
    split = text.split()
    return {tuple(split[at : at + ngram]) for at in range(max(1, len(split) - ngram + 1))}


def jaccard(one: str, other: str) -> float:
    return len(shingles(one) & shingles(other)) / len(shingles(one) | shingles(other))


def test_exact_keeps_the_first(make_dataset: MakeDataset) -> None:
    texts = ["Same text", "other", "same  TEXT\n", "other ", "other!"]
    data = make_dataset({"text": texts, "summary": ["a", "a", "a", "b", "a"]}, cuts=[2])
    assert exact(data)["text"].to_list() == ["Same text", "other", "other!"]
    assert exact(data, columns=["text", "summary"])["text"].to_list() == ["Same text", "other", "other ", "other!"]
    assert exact(data, ignore_case=False)["text"].to_list() == ["Same text", "other", "same  TEXT\n", "other!"]
    assert exact(data, ignore_case=False, ignore_whitespace=False).height == 5


@given(st.lists(st.sampled_from(["a", "b", "c", "A ", ""]), max_size=20), st.lists(st.integers(0, 20), max_size=4))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_exact_does_not_depend_on_shards(make_dataset: MakeDataset, texts: list[str], cuts: list[int]) -> None:
    columns = {"text": pl.Series(texts, dtype=pl.String)}
    whole, cut = make_dataset(columns), make_dataset(columns, [at for at in cuts if at < len(texts)])
    assert exact(whole).equals(exact(cut))
    assert exact(whole)["text"].str.strip_chars().str.to_lowercase().to_list() == list(
        dict.fromkeys(text.strip().lower() for text in texts)
    )


def test_columns_do_not_run_into_each_other(make_dataset: MakeDataset) -> None:
    data = make_dataset({"text": ["ab", "a"], "summary": ["c", "bc"]})
    assert exact(data, columns=["text", "summary"]).height == 2


def test_near_duplicates_are_found_and_others_stay(make_dataset: MakeDataset) -> None:
    originals = [words(seed) for seed in range(60)]
    copies = [edited(text, seed, 0.02) for seed, text in enumerate(originals[:30])]
    texts = [" ".join(text) for text in originals + copies]
    similar = [jaccard(texts[n], texts[60 + n]) >= 0.8 for n in range(30)]
    assert sum(similar) > 15
    kept = near(make_dataset({"text": texts}), threshold=0.6)
    assert kept["id"].to_list() == [f"d{row:04}" for row in range(60)]


def test_estimates_are_close_to_the_true_similarity() -> None:
    text = words(1, 400)
    texts = [" ".join(edited(text, seed, 0.01 * seed)) for seed in range(20)]
    signatures = MinHash(512, 3).signatures(pl.Series(texts))
    estimated = (signatures == signatures[0]).mean(axis=1)
    true = np.array([jaccard(texts[0], other) for other in texts])
    # Four standard errors of 512 draws.
    assert np.abs(estimated - true).max() < 4 * 0.5 / np.sqrt(512)


def test_threshold_is_verified(make_dataset: MakeDataset) -> None:
    text = words(3)
    texts = [" ".join(text), " ".join(edited(text, 5, 0.1))]
    similarity = jaccard(*texts)
    assert 0.4 < similarity < 0.8
    data = make_dataset({"text": texts})
    assert near(data, threshold=similarity - 0.15, permutations=512).height == 1
    assert near(data, threshold=similarity + 0.15, permutations=512).height == 2


def test_threshold_of_one_means_the_same_shingles(make_dataset: MakeDataset) -> None:
    data = make_dataset({"text": ["a b c d", "A, b; c (d)", "a b c e", "d c b a"]})
    assert near(data, threshold=1.0)["id"].to_list() == ["d0000", "d0002", "d0003"]


def test_short_and_empty_documents(make_dataset: MakeDataset) -> None:
    data = make_dataset({"text": ["one", "ONE", "two", "", "!", "one two"]})
    assert near(data)["text"].to_list() == ["one", "two", "", "one two"]
    empty = make_dataset({"text": pl.Series([], dtype=pl.String), "id": pl.Series([], dtype=pl.String)})
    assert near(empty).is_empty()


def test_groups_join_siblings_and_clusters(make_dataset: MakeDataset) -> None:
    same = " ".join(words(7))
    columns = {
        "id": ["1", "2", "3", "4", "5"],
        "text": [same, " ".join(words(8)), same, " ".join(words(9)), " ".join(words(10))],
        "group": ["b", "b", "a", "a", "c"],
    }
    # 1 and 3 are duplicates, 1 and 2 siblings, 3 and 4 siblings: all four belong together.
    assert near(make_dataset(columns), keep="all").select("id", "group").rows() == [
        ("1", "a"), ("2", "a"), ("3", "a"), ("4", "a"), ("5", "c"),
    ]  # fmt: skip
    assert near(make_dataset(columns))["id"].to_list() == ["1", "2", "4", "5"]


@given(st.data())
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_near_does_not_depend_on_order_or_shards(make_dataset: MakeDataset, data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 14))
    base = [words(seed, 40) for seed in range(3)]
    texts = [
        " ".join(edited(base[data.draw(st.integers(0, 2))], data.draw(st.integers(0, 9)), 0.05)) for _ in range(count)
    ]
    rows = [(f"{row:02}", text, f"g{data.draw(st.integers(0, 20))}") for row, text in enumerate(texts)]
    shuffled = data.draw(st.permutations(rows))
    cuts = data.draw(st.lists(st.integers(0, count - 1), max_size=3))

    def result(order: list[tuple[str, str, str]], at: list[int]) -> list[tuple[Any, ...]]:
        identities, documents, groups = zip(*order, strict=True)
        dataset = make_dataset({"id": identities, "text": documents, "group": groups}, at)
        return sorted(near(dataset, threshold=0.5).select("id", "text", "group").rows())

    assert result(rows, []) == result(shuffled, cuts)


def test_result_does_not_depend_on_the_process(tmp_path: Path) -> None:
    pl.DataFrame(
        {"id": [str(n) for n in range(40)], "text": [" ".join(edited(words(n % 8), n, 0.03)) for n in range(40)]}
    ).with_columns(group=pl.col("id")).write_parquet(tmp_path / "shard-00000.parquet")
    code = (
        "import sys, hashlib, polars as pl; from pathlib import Path; from luthier import Dataset;"
        "from luthier_text import cleaners;"
        "frame = pl.concat(list(cleaners.near_duplicates(Dataset.at(Path(sys.argv[1]), 'documents'), threshold=0.6)));"
        "print(hashlib.sha256(repr(frame.rows()).encode()).hexdigest(), frame.height)"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code, str(tmp_path)],
            env=os.environ | {"PYTHONHASHSEED": seed, "POLARS_MAX_THREADS": threads},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed, threads in (("0", "1"), ("1", "2"))
    }
    assert len(outputs) == 1
    assert 8 <= int(outputs.pop().split()[1]) < 40


@pytest.mark.parametrize("threshold", [0.1, 0.3, 0.5, 0.7, 0.8, 0.9, 0.99, 1.0])
@pytest.mark.parametrize("permutations", [16, 100, 128, 256])
def test_bands_find_a_pair_at_the_threshold(threshold: float, permutations: int) -> None:
    count, rows = bands(permutations, threshold)
    assert count * rows <= permutations
    assert rows == 1 or 1 - (1 - threshold**rows) ** count >= 0.99


def test_clusters_are_components_of_all_similar_pairs() -> None:
    # 0 ~ 1 ~ 2 in a chain, where 0 and 2 alone are not similar enough; 3 stands apart.
    signatures = np.zeros((4, 16), dtype=np.uint32)
    signatures[1, 8:11] = 1
    signatures[2, 8:14] = 1
    signatures[3] = 2
    assert clusters(signatures, 0.8).tolist() == [0, 0, 0, 3]
    assert clusters(signatures[[0, 2, 3]], 0.8).tolist() == [0, 1, 2]


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.sampled_from("uvwxyz")), max_size=12))
def test_linked_are_connected_components(rows: list[tuple[str, str]]) -> None:
    one, other = [row[0] for row in rows], [row[1] for row in rows]
    names = linked(one, other)
    for (a, b), name in zip(rows, names, strict=True):
        assert name <= a
        for (c, d), second in zip(rows, names, strict=True):
            if a == c or b == d:
                assert name == second
    # And there are no more links than that: merging one pair at a time, by brute force.
    parts = [{row} for row in range(len(rows))]
    for left, right in combinations(range(len(rows)), 2):
        if rows[left][0] == rows[right][0] or rows[left][1] == rows[right][1]:
            merged = [part for part in parts if left in part or right in part]
            parts = [part for part in parts if part not in merged] + [set().union(*merged)]
    assert len(set(names)) == len(parts)
