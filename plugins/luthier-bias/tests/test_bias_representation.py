"""The audit of representation: it counts people and not colours, changes nothing, and draws what it counted."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import polars as pl
import pytest

import luthier_bias
from luthier import Context, Dataset, InputError
from luthier_bias._bars import Bar, bars
from luthier_bias._groups import GROUPS

TEXTS = [
    "She met two women; they are refugees.",
    "The Black woman and the black box, a white man and a white background.",
    "Nobody is here.",
    "GERMAN and French, and the old men.",
]


@pytest.fixture
def data(tmp_path: Path) -> Dataset:
    frame = pl.DataFrame({"id": list("abcd"), "text": TEXTS, "source": ["x", "x", "x", "y"], "group": list("abcd")})
    (tmp_path / "data").mkdir()
    frame.head(3).write_parquet(tmp_path / "data" / "shard-00000.parquet")
    frame.tail(1).write_parquet(tmp_path / "data" / "shard-00001.parquet")
    return Dataset.at(tmp_path / "data", "documents")


def audited(tmp_path: Path) -> pl.DataFrame:
    return pl.read_parquet(tmp_path / "context" / "notes" / "tables" / "representation.parquet")


def test_data_passes_unchanged(data: Dataset, ctx: Context) -> None:
    frames = list(luthier_bias.representation(data, ctx))
    assert pl.concat(frames).equals(data.frame())
    assert [frame.height for frame in frames] == [3, 1]


def test_counts(data: Dataset, ctx: Context, tmp_path: Path) -> None:
    list(luthier_bias.representation(data, ctx))
    found = audited(tmp_path).filter((pl.col("source") == "all") & (pl.col("mentions") > 0))
    assert {row[:4] for row in found.select("axis", "group", "documents", "mentions").iter_rows()} == {
        ("gender", "she", 1, 1),
        ("gender", "women", 1, 1),
        ("ethnicity", "migrants", 1, 1),
        ("ethnicity", "Black", 1, 1),
        ("ethnicity", "white", 1, 1),
        ("region", "Europe", 1, 2),
        ("age", "old", 1, 1),
    }
    assert ctx.metrics["documents"].value == 4
    assert ctx.metrics["documents_that_mention_people"].value == 3


def test_rates_and_sources(data: Dataset, ctx: Context, tmp_path: Path) -> None:
    list(luthier_bias.representation(data, ctx, top=1))
    table = audited(tmp_path)
    assert table["source"].unique(maintain_order=True).to_list() == ["all", "x"]
    assert table.height == 2 * sum(map(len, GROUPS.values()))
    row = table.row(by_predicate=(pl.col("source") == "x") & (pl.col("group") == "she"), named=True)
    words = sum(len(text.split()) for text in TEXTS[:3])
    assert row["mentions_per_million_words"] == pytest.approx(1e6 / words)
    assert row["share_of_documents"] == pytest.approx(1 / 3)


def test_figure_is_accessible_svg(data: Dataset, ctx: Context, tmp_path: Path) -> None:
    list(luthier_bias.representation(data, ctx))
    svg = ElementTree.fromstring((tmp_path / "context" / "notes" / "figures" / "representation.svg").read_text())
    space = "{http://www.w3.org/2000/svg}"
    assert svg.get("role") == "img"
    assert len(svg.findall(f"{space}rect")) == 7
    assert "region, Europe:" in (svg.findtext(f"{space}desc") or "")
    assert "prefers-color-scheme: dark" in (svg.findtext(f"{space}style") or "")


def test_missing_column_is_an_error(data: Dataset, ctx: Context) -> None:
    with pytest.raises(InputError, match="no column 'package'") as error:
        list(luthier_bias.representation(data, ctx, by="package"))
    assert "It has: id, text, source, group" in error.value.remedy


def test_bars_without_values_and_with_markup() -> None:
    assert "none found" in bars([], "Title", "note")
    drawn = bars([Bar("<a>", "b & c", 2.0), Bar("<a>", "d", 1.0)], "Title", "note")
    widths = [
        float(rect.get("width") or 0) for rect in ElementTree.fromstring(drawn).iter("{http://www.w3.org/2000/svg}rect")
    ]
    assert widths[0] == pytest.approx(2 * widths[1])


def test_terms_are_lower_case_and_name_one_group() -> None:
    terms = [term for groups in GROUPS.values() for names in groups.values() for term in names]
    assert len(terms) == len(set(terms))
    assert all(term == term.lower() for term in terms)
