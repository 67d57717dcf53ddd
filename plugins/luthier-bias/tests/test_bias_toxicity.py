# ruff: noqa: RUF001 - letters that look like others are the matter here
"""The toxicity filter: disguises are seen through, innocent words and neutral mentions are kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import luthier_bias
from luthier import Context, InputError, Location
from luthier_bias._fold import tokens
from luthier_bias._groups import GROUPS
from luthier_bias._lexicon import Lexicon, read_lexicon
from luthier_bias._toxicity import matches, suspects

NEUTRAL = [
    "My neighbours are gay and Muslim, and the Jewish bakery is run by a Black woman.",
    "Disabled people, refugees and old men live here. She is lesbian, he is an immigrant.",
    "The class passes the assessment; Scunthorpe is in Lincolnshire, Cockburn in Scotland.",
    "The brass bass is a mass of grass. Crude oil is no free pass, as such.",
    "The dish came with crudités.",
]


def filtered(texts: list[str], ctx: Context, lexicon: Location, **configuration: Any) -> pl.DataFrame:
    frame = pl.DataFrame({"id": [str(n) for n in range(len(texts))], "text": texts, "source": ["s"] * len(texts)})
    return luthier_bias.toxicity(frame, ctx, lexicon=lexicon, **configuration)


def table(tmp_path: Path) -> pl.DataFrame:
    return pl.read_parquet(tmp_path / "context" / "notes" / "tables" / "toxicity.parquet")


@pytest.mark.parametrize(
    "text",
    [
        "What crud is this",
        "CRUD!",
        "full of cruddiness",
        "cr\u00fcd",
        "c\u200br\u00adud",
        "сrud with a Cyrillic letter",
        "ｃｒｕｄ in wide letters",
        "crrruuud",
        "What c.r.u.d is this",
        "c r u d",
        "an @rse",
        "an a$s",
        "4rse that",
        "grob1an",
        "gr0b!an here",
        "you are a clown",
        "u clown",
        "YOU ARE A IDIOT",
        "snake_crud_case",
    ],
)
def test_planted_documents_are_dropped(ctx: Context, lexicon: Location, text: str) -> None:
    assert filtered(["A clean one.", text, "Another."], ctx, lexicon)["id"].to_list() == ["0", "2"]


@pytest.mark.parametrize("text", NEUTRAL)
def test_neutral_documents_are_kept(ctx: Context, lexicon: Location, text: str) -> None:
    assert filtered([text], ctx, lexicon, min_severity="low").height == 1


@pytest.mark.parametrize(
    ("text", "decision"),
    [
        ("The word crud comes from curd.", "kept: mention"),
        ("It is called 'crud' by most.", "kept: mention"),
        ("A filter that detects crud in chats", "kept: mention"),
        ("Send a signal to kill the process.", "kept: technical"),
        ("kill the server and its worker threads", "kept: technical"),
        ("Load ass subtitles from the file", "kept: technical"),
        ("I will kill them all", "dropped"),
        ("This file is crud, as you know well", "dropped"),
    ],
)
def test_context_decides(ctx: Context, lexicon: Location, tmp_path: Path, text: str, decision: str) -> None:
    kept = filtered([text], ctx, lexicon).height
    assert table(tmp_path)["decision"].to_list() == [decision]
    assert kept == decision.startswith("kept")


@pytest.mark.parametrize(
    "text",
    [
        "Thank you. Clown fish live here.",
        "It pays you, clown or not",
        "lambda k: 1-k**(-3), [-inf, -2]",
        "for a, s, s in pairs",
        "as she said",
        "crude crew, cruise",
    ],
)
def test_what_only_looks_like_a_match_is_kept(ctx: Context, lexicon: Location, text: str) -> None:
    assert filtered([text], ctx, lexicon).height == 1


def test_identity_terms_of_a_lexicon_never_count(tmp_path: Path, ctx: Context) -> None:
    terms = sorted({term for groups in GROUPS.values() for names in groups.values() for term in names})
    path = tmp_path / "hostile.json"
    entries = [{"term": term, "category": "hate", "severity": "critical"} for term in [*terms, "crud"]]
    path.write_text(json.dumps(entries))
    assert [rule.pattern for rule in read_lexicon(path).rules] == ["crud"]
    assert filtered([f"We met the {term} today." for term in terms], ctx, Location(str(path))).height == len(terms)


def test_severities_categories_and_columns(ctx: Context, lexicon: Location) -> None:
    texts = ["dang it", "oh crud", "a grobian"]
    assert filtered(texts, ctx, lexicon)["id"].to_list() == ["0"]
    assert filtered(texts, ctx, lexicon, min_severity="low").height == 0
    assert filtered(texts, ctx, lexicon, min_severity="high")["id"].to_list() == ["0", "1"]
    assert filtered(texts, ctx, lexicon, max_severity="medium")["id"].to_list() == ["0", "2"]
    assert filtered(texts, ctx, lexicon, categories=["hate"])["id"].to_list() == ["0", "1"]
    frame = pl.DataFrame({"id": ["0"], "text": ["fine"], "summary": ["crud"], "source": ["s"]})
    assert luthier_bias.toxicity(frame, ctx, lexicon=lexicon).height == 1
    assert luthier_bias.toxicity(frame, ctx, lexicon=lexicon, columns=["text", "summary"]).height == 0


def test_flag_keeps_all_rows_with_the_worst_severity(ctx: Context, lexicon: Location, tmp_path: Path) -> None:
    frame = filtered(["crud of a grobian", "fine", "the word crud"], ctx, lexicon, action="flag")
    assert frame["toxicity"].to_list() == ["critical", None, None]
    assert table(tmp_path)["decision"].to_list() == ["flagged", "flagged", "kept: mention"]
    assert filtered(["fine"], ctx, lexicon, action="flag").schema["toxicity"] == pl.String


def test_report_says_what_and_why(ctx: Context, lexicon: Location, tmp_path: Path) -> None:
    filtered(["fine", f"{'before ' * 20}CRUDDY\nthing {'after ' * 20}"], ctx, lexicon)
    (row,) = table(tmp_path).to_dicts()
    excerpt = row.pop("excerpt")
    assert list(row.values()) == ["1", "s", "cruddy", "profanity", "medium", "dropped"]
    assert "before CRUDDY thing after" in excerpt
    assert len(excerpt) < 120
    assert {name: metric.value for name, metric in ctx.metrics.items()} == {
        "documents_dropped": 1,
        "matches_harassment": 0,
        "matches_hate": 0,
        "matches_profanity": 1,
        "matches_violence": 0,
        "matches_kept_in_context": 0,
    }


def test_clean_shard_has_the_table_too(ctx: Context, lexicon: Location, tmp_path: Path) -> None:
    filtered(["fine"], ctx, lexicon)
    clean = table(tmp_path).schema
    filtered(["crud"], ctx, lexicon)
    assert table(tmp_path).schema == clean


def test_csv_lexicon(tmp_path: Path, ctx: Context) -> None:
    path = tmp_path / "words.csv"
    path.write_text("term,category,severity\nblast,profanity,High\n")
    assert filtered(["fine", "oh blast"], ctx, Location(str(path)))["id"].to_list() == ["0"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("words.json", "{"),
        ("words.json", "7"),
        ("words.json", "[]"),
        ("words.json", '[{"term": "x"}]'),
        ("words.json", '[{"term": "x", "category": "c", "severity": "huge"}]'),
        ("words.json", '[{"term": "(x", "category": "c", "severity": "low"}]'),
        ("words.json", '[{"term": "?", "category": "c", "severity": "low"}]'),
        ("words.csv", "term\nblast\n"),
    ],
)
def test_wrong_lexicon_is_an_error(tmp_path: Path, ctx: Context, name: str, content: str) -> None:
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(InputError, match="words") as error:
        filtered(["text"], ctx, Location(str(path)))
    assert "A lexicon is" in error.value.remedy


def test_unknown_category_column_and_empty_range_are_errors(ctx: Context, lexicon: Location) -> None:
    with pytest.raises(InputError, match="no category 'hat'") as error:
        filtered(["text"], ctx, lexicon, categories=["hat"])
    assert "harassment" in error.value.remedy
    with pytest.raises(InputError, match="no column 'body'"):
        filtered(["text"], ctx, lexicon, columns=["body"])
    with pytest.raises(InputError, match="no entry from severity"):
        filtered(["text"], ctx, lexicon, min_severity="critical", max_severity="low")


ALPHABET = "crudgobianskyeth 013457@$!.-_*'\"\n\u200b\u0301ÜéсаｋKİß"


@given(st.text(st.sampled_from(ALPHABET), max_size=30))
@settings(max_examples=1500, deadline=None)
def test_gate_misses_nothing(text: str) -> None:
    found = matches(text, LEXICON)
    frame = pl.DataFrame({"text": [text]})
    assert not found or suspects(frame, LEXICON, ("text",)) == [(0, "text")]


def _lexicon() -> Lexicon:
    import tempfile

    words = ["crud*", "(as|kid)", "grob", "(you|u) (are)? (a)? (kid|dog*)", "bid do", "abc"]
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump([{"term": word, "category": "c", "severity": "high"} for word in words], file)
        file.flush()
        return read_lexicon(Path(file.name))


LEXICON = _lexicon()


@given(st.text(max_size=60))
def test_tokens_lie_in_the_text_in_order(text: str) -> None:
    end = 0
    for token in tokens(text):
        assert end <= token.start < token.end <= len(text)
        assert token.folded
        end = token.end


def test_published_lexicon(ctx: Context) -> None:
    texts = [
        *NEUTRAL,
        "The column sex holds male or female; kill the job.",
        "what a piece of sh1t, you are a worthless moron",
    ]
    frame = pl.DataFrame({"id": [str(n) for n in range(len(texts))], "text": texts, "source": ["s"] * len(texts)})
    kept = luthier_bias.toxicity(frame, ctx, min_severity="low")
    assert kept["id"].to_list() == [str(n) for n in range(len(texts) - 1)]
    assert len(read_lexicon(ctx.open(luthier_bias.SAFETYPE)).rules) == 43
