"""Beginnings that documents share stand in a row once."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from luthier_models.packing import pack
from luthier_models.segments import Segment, fill_shared_rows, separate, share

DOCUMENTS = st.lists(st.lists(st.integers(1, 2), min_size=1, max_size=20), max_size=12)
"""Of two words, so that beginnings of all lengths are shared."""


@settings(deadline=None)
@given(DOCUMENTS, st.integers(1, 6))
def test_the_segments_of_a_path_are_the_document(documents, shortest):
    for forest in (share(documents, shortest), separate(documents)):
        held = {}
        for document, path in zip(documents, forest.paths, strict=True):
            assert [token for s in path for token in document[slice(*forest.spans[s])]] == document
            for place, s in enumerate(path):
                start, end = forest.spans[s]
                assert forest.segments[s] == Segment(end - start, path[:place])
                # Whoever has the segment has the same tokens up to its end.
                assert held.setdefault(s, document[:end]) == document[:end]
        assert set(held) == set(range(len(forest.segments)))


@settings(deadline=None)
@given(DOCUMENTS, st.integers(1, 6))
def test_two_documents_share_all_that_they_have_in_common_but_less_than_the_shortest(documents, shortest):
    forest = share(documents, shortest)
    for a, one in zip(documents, forest.paths, strict=True):
        for b, other in zip(documents, forest.paths, strict=True):
            common = next((n for n, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
            computed_once = sum(forest.segments[s].length for s in set(one) & set(other))
            assert common - shortest < computed_once <= common or one == other


@settings(deadline=None)
@given(DOCUMENTS, st.integers(0, 60), st.integers(1, 6))
def test_rows_hold_each_document_once_within_the_limit(documents, limit, shortest):
    rows = fill_shared_rows(documents, limit, shortest)
    assert sorted(number for row in rows for number in row) == list(range(len(documents)))
    sizes = [sum(s.length for s in share([documents[n] for n in row], shortest).segments) for row in rows]
    assert all(len(row) == 1 or size <= limit for row, size in zip(rows, sizes, strict=True))
    assert sizes == sorted(sizes, reverse=True)


def test_a_row_with_a_shared_beginning():
    beginning = list(range(20, 40))
    row = pack([([*beginning, 1], [2, 3]), ([7], [8]), ([*beginning, 4], [5, 6])], shared=True)
    assert row.ids.tolist() == [*beginning, 1, 2, 4, 5, 7]
    assert row.positions.tolist() == [*range(20), 20, 21, 20, 21, 0]
    assert row.labels.tolist() == [2, 3, 8, 5, 6]
    assert row.index.tolist() == [20, 21, 24, 22, 23]
    assert row.segments == (Segment(20), Segment(2, (0,)), Segment(2, (0,)), Segment(1))


@pytest.mark.parametrize("shared", [False, True])
def test_prompts_that_are_alike_may_predict_different_things(shared):
    prompt = list(range(20, 40))
    row = pack([(prompt, [1]), (prompt, [2])], shared=shared)
    assert row.index.tolist() == ([19, 19] if shared else [19, 39])
    assert row.labels.tolist() == [1, 2]
