"""What the engine notes of a component's work: what was kept, changed and dropped, in whatever column."""

from __future__ import annotations

import datetime
import json
from typing import Any

import polars as pl
import pytest

from luthier.outcomes import SAMPLES, Counts, Outcome, compare

NAN = float("nan")


def noted(before: dict[str, Any], after: dict[str, Any] | pl.DataFrame, quarantined: frozenset[str] = frozenset()):
    after = after if isinstance(after, pl.DataFrame) else pl.DataFrame(after)
    return compare(pl.DataFrame(before).lazy(), after.lazy(), quarantined)


def column(before: list[Any], after: list[Any], dtype: Any = None) -> Outcome:
    ids = [str(index) for index in range(len(before))]
    frames = [pl.DataFrame({"id": ids, "c": pl.Series(values, dtype=dtype)}) for values in (before, after)]
    return compare(frames[0].lazy(), frames[1].lazy(), frozenset())


@pytest.mark.parametrize(
    ("before", "after", "dtype"),
    [
        pytest.param(["a", "b", None, None], ["a", "B", "c", None], None, id="text and null"),
        pytest.param([1, 2, None, None], [1, 3, 0, None], None, id="numbers"),
        pytest.param([0.5, 1.0, NAN, NAN], [0.5, 2.0, 0.0, NAN], None, id="not a number equals itself"),
        pytest.param([[1], [1, 2], [], None], [[1], [2, 1], None, None], pl.List(pl.Int64), id="lists"),
        pytest.param(
            [[{"role": "user", "n": 1}], [{"role": "user", "n": 1}], None, [{"role": None, "n": None}]],
            [[{"role": "user", "n": 1}], [{"role": "user", "n": 2}], [], [{"role": None, "n": None}]],
            None,
            id="lists of objects",
        ),
        pytest.param(["a", "b", "c", "a"], ["a", "c", "b", "a"], pl.Categorical, id="categories"),
        pytest.param([b"a", b"b", None, b""], [b"a", b"c", b"", b""], pl.Binary, id="bytes"),
        pytest.param(
            [datetime.date(2024, 1, 1), datetime.date(2024, 1, 2), None, None],
            [datetime.date(2024, 1, 1), datetime.date(2024, 1, 3), datetime.date(2024, 1, 1), None],
            None,
            id="dates",
        ),
    ],
)
def test_a_change_in_any_column_of_any_type_counts(before, after, dtype):
    outcome = column(before, after, dtype)
    assert outcome.counts == Counts(documents_in=4, kept=4, changed=2)
    assert [sample["id"] for sample in outcome.samples["changed"]] == ["1", "2"]
    assert [sample["id"] for sample in outcome.samples["kept"]] == ["0", "3"]
    json.dumps(outcome.samples)


def test_a_column_without_values_takes_the_type_of_the_other_side():
    outcome = noted({"id": ["1", "2"], "c": [None, None]}, {"id": ["1", "2"], "c": [None, "x"]})
    assert outcome.counts.changed == 1


def test_columns_that_only_one_side_has_and_another_order_of_rows_are_no_change():
    before = {"id": ["1", "2"], "text": ["a", "b"], "old": [1, 2]}
    after = {"new": [3, 4], "id": ["2", "1"], "text": ["b", "a"]}
    assert noted(before, after).counts == Counts(documents_in=2, kept=2)


def test_rows_that_are_gone_and_new_are_counted():
    before = {"id": list("abcd"), "text": list("wxyz")}
    outcome = noted(before, {"id": list("aef"), "text": list("w12")}, frozenset("bz"))
    assert outcome.counts == Counts(documents_in=4, kept=1, dropped=2, quarantined=1, added=2)
    assert outcome.samples["kept"] == [{"id": "a", "before": "w"}]
    assert [sample["before"] for sample in outcome.samples["dropped"]] == ["x", "y", "z"]


def test_samples_are_few_and_short():
    before = {"id": [str(row) for row in range(30)], "text": ["long " * 1000] * 30}
    after = pl.DataFrame(before)[:20].with_columns(
        pl.when(pl.int_range(20) < 10).then(pl.lit("short")).otherwise("text").alias("text")
    )
    outcome = noted(before, after)
    assert {kind: len(samples) for kind, samples in outcome.samples.items()} == dict.fromkeys(
        ("kept", "changed", "dropped"), SAMPLES
    )
    assert all(len(sample["before"]) == 600 for samples in outcome.samples.values() for sample in samples)
    assert {sample["after"] for sample in outcome.samples["changed"]} == {"short"}


def test_a_sample_of_a_change_shows_the_columns_that_changed():
    before = {"id": ["1", "2", "3"], "text": ["a", "b", "c" * 900], "summary": ["s", "S", "S"], "n": [[1], [1], [1]]}
    after = {"id": ["1", "2", "3"], "text": ["A", "b", "C" * 900], "summary": ["s", "s", "s"], "n": [[1], [2], [1]]}
    first, second, third = noted(before, after).samples["changed"]
    assert first == {"id": "1", "before": "a", "after": "A"}
    assert second == {"id": "2", "before": "summary: S\nn: [1]", "after": "summary: s\nn: [2]"}
    assert third["before"].startswith("summary: S\ntext: ccc")
    assert third["after"].startswith("summary: s\ntext: CCC")


def test_counts_and_samples_reach_the_report(run):
    outcome = json.loads((run(until="capitals").report("capitals").path / "outcome.json").read_text(encoding="utf-8"))
    assert outcome["counts"]["changed"] > SAMPLES
    assert len(outcome["samples"]["kept"]) == len(outcome["samples"]["changed"]) == SAMPLES
    assert not any("cedar" in sample["before"] for sample in outcome["samples"]["kept"])


def test_what_a_component_redacts_is_counted_and_shown_as_it_is_afterwards_only():
    before = {"id": ["1", "2", "3"], "text": ["call 555", "call 556", "as it was"]}
    after = {"id": ["1", "3"], "text": ["call <PHONE>", "as it was"]}
    frames = [pl.DataFrame(rows).lazy() for rows in (before, after)]
    outcome = compare(*frames, frozenset(), redacts=True)
    assert outcome.counts == Counts(documents_in=3, kept=2, changed=1, dropped=1)
    assert outcome.samples == {"changed": [{"id": "1", "after": "call <PHONE>"}]}
