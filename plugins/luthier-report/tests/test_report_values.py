"""Numbers and texts for people; properties of the small algorithms."""

from __future__ import annotations

import html
import math
import unicodedata
from itertools import pairwise

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from luthier_report._axes import ticks
from luthier_report._curve import draw, learning_curve, moving_average, quality_by_size
from luthier_report._diff import Piece, differences, differences_of_cut
from luthier_report._generations import choose
from luthier_report._values import cell, clip, displayable, duration, moment, number, signed, size

FINITE = st.floats(min_value=-1e6, max_value=1e6, allow_nan=False)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.30217, "0.302"), (12.3456, "12.35"), (24310, "24,310"), (24310.0, "24,310"), (-0.5, "−0.5"),  # noqa: RUF001
        (0.0000123, "1.23e−05"), (0.0, "0"), (float("nan"), "not a number"), (float("-inf"), "−∞"), (None, "–"),  # noqa: RUF001
        (12345.6, "12,346"), (1e300, "1" + f"{1e300:,.0f}"[1:]),
    ],
)  # fmt: skip
def test_numbers(value: float | None, text: str) -> None:
    assert number(value) == text


def test_other_values() -> None:
    assert signed(0.1) == "+0.1"
    assert size(134_515_008) == "135 MB"
    assert size(999.6) == "1 kB"
    assert [duration(s) for s in (0.012, 1.24, 9.97, 59.6, 3599.7)] == [
        "12 ms",
        "1.2 s",
        "10 s",
        "1 min 0 s",
        "1 h 0 min",
    ]
    assert moment("2026-11-22T23:40:00+01:00") == "22 November 2026, 22:40 UTC"
    assert moment("never") == "never"


@settings(deadline=None)
@given(st.text(st.characters()))
def test_displayable_text_can_be_written_and_seen(text: str) -> None:
    shown = displayable(text)
    shown.encode("utf-8")
    controls = {c for c in shown if unicodedata.category(c) == "Cc"} - {"\t", "\n"}
    assert controls == set()
    assert displayable(shown) == shown


@settings(deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_a_cell_is_one_line_without_markup(text: str) -> None:
    shown = cell(text)
    assert "\n" not in shown
    assert "<" not in shown
    unescaped = shown
    for special in "`*_[]|#!~\\":
        unescaped = unescaped.replace(f"\\{special}", "")
    assert not set(unescaped) & set("`*_[]|\\")


@settings(deadline=None)
@given(st.text(), st.integers(1, 20))
def test_clipping_keeps_the_limit(text: str, limit: int) -> None:
    assert len(clip(text, limit)) <= limit


@settings(deadline=None)
@given(st.text(alphabet="ab \n\tÃ<.", max_size=60), st.text(alphabet="ab \n\tÃ<.", max_size=60))
def test_differences_hold_both_texts(before: str, after: str) -> None:
    pieces = differences(before, after)
    drawn = str.maketrans({"␣": " ", "⇥": "\t", "⏎": ""})
    for side, text in (("removed", before), ("added", after)):
        assert "".join(piece.text.translate(drawn) for piece in pieces if piece.change in ("same", side)) == text


def test_what_only_a_cut_makes_different_is_no_change() -> None:
    pieces = differences_of_cut("one  two three fo…", "one two three four fi…")
    assert [(piece.change, piece.text) for piece in pieces if piece.change != "same"] == [("removed", "␣")]
    assert pieces[-1] == Piece("same", "…")
    assert differences_of_cut("one two", "one…") == differences("one two", "one…")


@settings(deadline=None)
@given(FINITE, FINITE)
def test_ticks_are_few_even_and_around_the_values(one: float, other: float) -> None:
    low, high = sorted((one, other))
    found = ticks(low, high)
    tolerance = 1e-6 * max(abs(low), abs(high), 1e-300)
    if high - low > tolerance:
        assert found[0] <= low + tolerance
        assert found[-1] >= high - tolerance
        assert 2 <= len(found) <= 9
        steps = [after - before for before, after in pairwise(found)]
        assert max(steps) - min(steps) <= 1e-6 * max(steps)


@settings(deadline=None)
@given(st.dictionaries(st.text(min_size=1), FINITE, min_size=1), st.integers(1, 4))
def test_chosen_examples_are_distinct_stable_and_ranked(margins: dict[str, float], each: int) -> None:
    chosen = choose(margins, each)
    ids = [row_id for row_id, _ in chosen]
    assert len(set(ids)) == len(ids) == min(len(margins), 3 * each)
    assert [margins[row_id] for row_id in ids] == sorted((margins[row_id] for row_id in ids), reverse=True)
    assert ids[0] == min(row_id for row_id in margins if margins[row_id] == max(margins.values()))
    assert choose(dict(reversed(margins.items())), each) == chosen


def test_losses_in_columns_in_rows_and_in_a_table_of_their_own() -> None:
    columns = pl.DataFrame({"step": [1, 2, 3], "train_loss": [3.0, 2.0, None], "valid_loss": [None, 2.5, math.nan]})
    rows = pl.DataFrame({"step": [1, 2, 2], "loss": [3.0, 2.0, 2.5], "split": ["train", "train", "valid"]})
    apart = pl.DataFrame({"step": [1, 2], "loss": [3.0, 2.0]}), pl.DataFrame({"step": [2], "loss": [2.5]})
    for curve in (learning_curve(columns), learning_curve(rows), learning_curve(*apart)):
        assert curve is not None
        assert [(one.held_out, one.points) for one in curve.series] == [(False, [(1, 3), (2, 2)]), (True, [(2, 2.5)])]
        assert curve.axis == "step"


def test_a_table_without_losses_has_no_curve() -> None:
    assert learning_curve(pl.DataFrame({"step": [1, 2], "tokens": [3, 4]})) is None
    assert (
        learning_curve(pl.DataFrame({"step": [1], "loss": [None]}, schema={"step": pl.Int64, "loss": pl.Float64}))
        is None
    )


def test_a_flat_curve_of_one_point_is_drawn_inside_the_figure() -> None:
    curve = learning_curve(pl.DataFrame({"step": [1], "loss": [2.0]}))
    assert curve is not None
    assert 'cx="80.0"' in curve.svg
    assert "nan" not in curve.svg


def test_texts_in_the_figure_are_escaped() -> None:
    curve = learning_curve(pl.DataFrame({"step": [1, 2], "<b>loss": [2.0, 1.0]}))
    assert curve is not None
    assert "<b>" not in draw(curve.series, "<i>", "Loss")
    assert html.escape("<b>loss") in draw(curve.series, "<i>", "Loss")


def test_the_moving_average_keeps_a_line() -> None:
    points = [(float(x), 2.0 * x) for x in range(100)]
    smooth = moving_average(points)
    assert [x for x, _ in smooth] == [x for x, _ in points]
    assert [y for _, y in smooth[10:90]] == pytest.approx([y for _, y in points[10:90]])


def test_quality_is_drawn_against_size() -> None:
    sizes = {"parameters": [135_000_000, 100_000_000], "mean_kl": [0.0, 1.25], "perplexity": [20.0, 70.0]}
    curve = quality_by_size(pl.DataFrame(sizes))
    assert curve is not None
    assert curve.series[0].points == [(100.0, 1.25), (135.0, 0.0)]
    assert "million parameters" in curve.svg
    assert "KL from 1.25 to 0" in curve.svg
    for nothing in ({"parameters": [5], "mean_kl": [0.0]}, {"parameters": [5, 4], "loss": [0.0, 1.0]}):
        assert quality_by_size(pl.DataFrame(nothing)) is None
