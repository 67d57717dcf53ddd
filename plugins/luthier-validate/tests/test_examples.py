from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from luthier import InputError
from luthier_validate.examples import choose, select_examples

rows = st.dictionaries(st.text(min_size=1), st.sampled_from("abcd"), min_size=1, max_size=40)


@given(rows, st.integers(1, 50), st.randoms())
def test_the_choice_does_not_depend_on_the_order_of_rows(table, count, random):
    ids = sorted(table)
    shuffled = random.sample(ids, len(ids))
    chosen = {ids[row] for row in choose(ids, [table[name] for name in ids], count)}
    again = {shuffled[row] for row in choose(shuffled, [table[name] for name in shuffled], count)}
    assert chosen == again
    assert len(chosen) == min(count, len(ids))


@given(rows, st.integers(1, 50))
def test_no_group_gives_two_more_than_another_that_has_more_to_give(table, count):
    ids = sorted(table)
    taken = Counter(table[ids[row]] for row in choose(ids, [table[name] for name in ids], count))
    there = Counter(table.values())
    for group, number in there.items():
        if taken[group] < number:
            assert max(taken.values()) <= taken[group] + 1


@given(rows, st.integers(1, 39))
def test_asking_for_more_keeps_those_chosen(table, count):
    ids = sorted(table)
    groups = [table[name] for name in ids]
    assert choose(ids, groups, count + 1)[:count] == choose(ids, groups, count)


def test_examples_come_in_order_of_ids(pairs):
    data = pairs(*((f"prompt {n}", f"answer {n}") for n in range(30)))
    whole = select_examples(data, "test", None)
    some = select_examples(data, "test", 7)
    assert whole.ids == sorted(whole.ids)
    assert some.ids == sorted(some.ids)
    assert len(some.ids) == 7
    found = dict(zip(whole.ids, zip(whole.prompts, whole.completions, strict=True), strict=True))
    assert [found[name] for name in some.ids] == list(zip(some.prompts, some.completions, strict=True))


def test_language_modelling_has_empty_prompts(texts):
    examples = select_examples(texts("one", "two"), "test", None)
    assert examples.prompts == ["", ""]
    assert examples.completions == ["one", "two"]


def test_an_empty_split_is_refused(pairs):
    with pytest.raises(InputError, match="'test'"):
        select_examples(pairs(("a", "b"), split="train"), "test", None)
