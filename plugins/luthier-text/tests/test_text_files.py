"""The text-files source."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from luthier import Context, InputError, Location
from luthier_text import sources


def read(ctx: Context, path: Path, **configuration: Any) -> list[tuple[Any, ...]]:
    frames = sources.text_files(ctx, path=Location(str(path)), **configuration)
    return pl.concat(list(frames)).select("source", "text", "group").rows()


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    root = tmp_path / "corpus"
    (root / "deep").mkdir(parents=True)
    (root / "b.txt").write_bytes(b"second\r\n\r\n \t\r\nparagraph\n")
    (root / "deep" / "a.txt").write_bytes("\ufefffirst".encode())
    (root / "c.md").write_bytes(b"not text files")
    return root


def test_files_of_any_depth_in_order(ctx: Context, corpus: Path) -> None:
    assert read(ctx, corpus) == [
        ("b.txt", "second\n\n \t\nparagraph", "b.txt"),
        ("deep/a.txt", "first", "deep/a.txt"),
    ]


def test_paragraphs_share_the_group_of_their_file(ctx: Context, corpus: Path) -> None:
    assert read(ctx, corpus, unit="paragraph", pattern="*.txt") == [
        ("b.txt", "second", "b.txt"),
        ("b.txt", "paragraph", "b.txt"),
    ]


def test_one_file(ctx: Context, corpus: Path) -> None:
    # Its name is no part of its rows: a renamed file gives the same.
    assert read(ctx, corpus / "c.md") == [("text-files", "not text files", "text-files")]


@pytest.mark.parametrize("content", [b"caf\xe9", b"binary\0file"])
def test_what_is_no_text_is_quarantined(
    ctx: Context, corpus: Path, quarantined: Callable[[], list[dict[str, Any]]], content: bytes
) -> None:
    (corpus / "aa.txt").write_bytes(content)
    assert len(read(ctx, corpus)) == 2
    assert [record["where"] for record in quarantined()] == ["aa.txt"]


def test_encoding(ctx: Context, tmp_path: Path) -> None:
    (tmp_path / "l.txt").write_bytes(b"caf\xe9")
    assert read(ctx, tmp_path / "l.txt", encoding="latin-1")[0][1] == "café"


@pytest.mark.parametrize("encoding", ["utf-99", "base64"])
def test_unknown_encoding_is_an_error(ctx: Context, corpus: Path, encoding: str) -> None:
    with pytest.raises(InputError, match="encoding"):
        read(ctx, corpus, encoding=encoding)


@pytest.mark.parametrize("pattern", ["/*.txt", "**.txt/x", "../*.txt"])
def test_a_pattern_that_is_none_is_an_error(ctx: Context, corpus: Path, pattern: str) -> None:
    with pytest.raises(InputError, match="pattern"):
        read(ctx, corpus, pattern=pattern)


def test_nothing_to_read_is_an_error(ctx: Context, corpus: Path) -> None:
    with pytest.raises(InputError, match="no file that matches"):
        read(ctx, corpus, pattern="*.rst")
    (corpus / "empty.log").write_bytes(b" \n")
    with pytest.raises(InputError, match="has no documents"):
        read(ctx, corpus, pattern="*.log")
