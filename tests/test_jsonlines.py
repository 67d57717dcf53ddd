"""Any JSON object can be a row of a frame, and any bytes a line or a bad line."""

from __future__ import annotations

import io
import json
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from luthier.jsonlines import BadLineError, Line, build_frame, check_characters, parse_object, read_lines

STRINGS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=5)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | STRINGS
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(STRINGS, inner, max_size=3))


@given(st.lists(st.dictionaries(STRINGS, VALUES, max_size=3), min_size=1, max_size=6))
@settings(max_examples=200, deadline=None)
def test_any_objects_are_rows_that_parquet_can_hold(records):
    frame = build_frame(records)
    assert frame.columns == list(dict.fromkeys(key for record in records for key in record))
    if frame.columns:
        stored = io.BytesIO()
        frame.write_parquet(stored)
        stored.seek(0)
        assert pl.read_parquet(stored).equals(frame)
        assert frame.height == len(records)


@pytest.mark.parametrize(
    ("values", "dtype", "kept"),
    [
        ([True, None], pl.Boolean, [True, None]),
        ([1, 2.5], pl.Float64, [1.0, 2.5]),
        ([2**63, 1], pl.String, [str(2**63), "1"]),
        ([True, 1, "é", ["é"]], pl.String, ["true", "1", "é", '["é"]']),
        ([None, None], pl.String, [None, None]),
        ([[1], [2.5], []], pl.List(pl.Float64), [[1.0], [2.5], []]),
        ([[1, "x"], [{"a": 1}]], pl.List(pl.String), [["1", "x"], ['{"a": 1}']]),
        ([{"a": 1}, {"b": [None]}], pl.Struct({"a": pl.Int64, "b": pl.List(pl.String)}), None),
        ([{}, {}], pl.String, ["{}", "{}"]),
    ],
)
def test_a_column_has_the_type_of_all_its_values(values, dtype, kept):
    series = build_frame([{"c": value} for value in values])["c"]
    assert series.dtype == dtype
    assert series.to_list() == (kept or [{"a": 1, "b": None}, {"a": None, "b": [None]}])


def test_a_late_field_of_an_object_is_not_lost():
    records = [{"meta": {"a": 1}}] * 3000 + [{"meta": {"b": "late"}}]
    assert build_frame(records)["meta"].to_list()[-1] == {"a": None, "b": "late"}


@given(st.binary(max_size=300))
@settings(max_examples=300, deadline=None)
def test_any_line_is_an_object_or_a_bad_line(content):
    for line in read_lines(Path("x.jsonl"), io.BytesIO(content), 100):
        try:
            record = parse_object(line)
        except BadLineError:
            continue
        assert json.loads(line.content) == record


def test_an_overlong_line_is_not_read_and_the_next_one_is():
    lines = list(read_lines(Path("x.jsonl"), io.BytesIO(b"\xef\xbb\xbf" + b"x" * 5000 + b"\n\n{}"), 1000))
    assert [(line.where, line.overlong) for line in lines] == [("x.jsonl:1", True), ("x.jsonl:3", False)]
    with pytest.raises(BadLineError, match="longer than the limit"):
        parse_object(lines[0])
    assert parse_object(lines[1]) == {}


@pytest.mark.parametrize("value", ["\0", ["\ud800"], {"\udc00": 1}, {"a": [{"b": "\0"}]}])
def test_characters_that_cannot_be_kept_are_found_at_any_depth(value):
    with pytest.raises(BadLineError, match=r"NUL character|lone surrogate"):
        check_characters("column", value)


def test_where_names_file_and_line():
    assert Line(Path("some/corpus.jsonl"), 17, b"{}").where == "corpus.jsonl:17"
