"""The JSONL source: bad lines are set aside with the reason, and never lose their neighbours."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from luthier import Context, InputError, Location
from luthier.jsonlines import BadLineError, Line, read_lines
from luthier.testing import make_context
from luthier_text import sources
from luthier_text._jsonl import Columns, parse_line

Quarantined = Callable[[], list[dict[str, Any]]]
GOOD = [b'{"text": "first"}', b'{"text": "last"}']


def read(ctx: Context, path: Path, **configuration: Any) -> pl.DataFrame:
    return pl.concat(list(sources.jsonl(ctx, path=Location(str(path)), **configuration)))


def write(path: Path, *lines: bytes) -> Path:
    path.write_bytes(b"\n".join(lines) + b"\n")
    return path


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        pytest.param(b'{"text": "cut of', "not JSON", id="truncated"),
        pytest.param(b'{"text": "caf\xe9"}', "not UTF-8: byte 13 is 0xe9", id="invalid byte"),
        pytest.param(b'{"text": "a\x00b"}', "not JSON", id="raw NUL"),
        pytest.param(b'{"text": "a\\u0000b"}', "a NUL character in 'text'", id="escaped NUL"),
        pytest.param(b'{"text": "a \\ud800 b"}', "a lone surrogate at character 2 of 'text'", id="lone surrogate"),
        pytest.param(b'{"text": "fine", "note": "\\udc00"}', "a lone surrogate", id="surrogate in a further column"),
        pytest.param(b'{"text": "fine", "\\udc00": 1}', "a lone surrogate", id="surrogate in a key"),
        pytest.param(b'{"body": "no text"}', "'text' is missing", id="no text"),
        pytest.param(b'{"text": 7}', "'text' is int, not a string", id="text is a number"),
        pytest.param(b'{"text": null}', "'text' is NoneType", id="text is null"),
        pytest.param(b'{"text": "  "}', "'text' is empty", id="empty text"),
        pytest.param(b'["text"]', "not an object but list", id="no object"),
        pytest.param(b'"text"', "not an object but str", id="a string"),
        pytest.param(b'{"text": ' + b"[" * 100_000, "nested too deeply", id="deep"),
        pytest.param(b'{"text": "x", "n": ' + b"9" * 5000 + b"}", "not usable", id="too many digits"),
    ],
)
def test_bad_line_is_quarantined_and_neighbours_are_kept(
    tmp_path: Path, ctx: Context, quarantined: Quarantined, line: bytes, reason: str
) -> None:
    path = write(tmp_path / "corpus.jsonl", GOOD[0], line, GOOD[1])
    assert read(ctx, path)["text"].to_list() == ["first", "last"]
    (record,) = quarantined()
    assert record["where"] == "corpus.jsonl:2"
    assert reason in record["reason"]
    assert record["record"] == line.decode("utf-8", "backslashreplace")


def test_surrogate_pair_is_a_character(tmp_path: Path, ctx: Context) -> None:
    path = write(tmp_path / "corpus.jsonl", b'{"text": "\\ud83d\\ude00"}')
    assert read(ctx, path)["text"].to_list() == ["\U0001f600"]


def test_line_of_50_megabytes(tmp_path: Path, ctx: Context) -> None:
    long = b"x" * 50_000_000
    path = write(tmp_path / "corpus.jsonl", GOOD[0], b'{"text": "' + long + b'"}', GOOD[1])
    assert read(ctx, path)["text"].str.len_bytes().to_list() == [5, 50_000_000, 4]


def test_line_over_the_limit_is_quarantined_unread(tmp_path: Path, ctx: Context, quarantined: Quarantined) -> None:
    path = write(tmp_path / "corpus.jsonl", GOOD[0], b'{"text": "' + b"x" * 3_000_000 + b'"}', GOOD[1])
    assert read(ctx, path, max_line_megabytes=1)["text"].to_list() == ["first", "last"]
    (record,) = quarantined()
    assert record["reason"] == "longer than the limit"
    assert len(record["record"]) == 200


@pytest.mark.parametrize("content", [b"", b"\n \n\n", b"\xef\xbb\xbf"])
def test_empty_file_is_an_error_that_says_so(tmp_path: Path, ctx: Context, content: bytes) -> None:
    path = tmp_path / "empty.jsonl"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"empty\.jsonl has no documents") as error:
        read(ctx, path)
    assert "text: KEY" in error.value.remedy


def test_file_of_bad_lines_only_is_an_error_and_they_are_kept(
    tmp_path: Path, ctx: Context, quarantined: Quarantined
) -> None:
    path = write(tmp_path / "bad.jsonl", b"{", b"[]")
    with pytest.raises(InputError, match="has no documents"):
        read(ctx, path)
    assert [record["where"] for record in quarantined()] == ["bad.jsonl:1", "bad.jsonl:2"]


def test_directory_is_read_in_order_gzip_too(tmp_path: Path, ctx: Context) -> None:
    write(tmp_path / "b.jsonl", b'{"text": "two"}')
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(b'{"text": "one"}\r\n'))
    write(tmp_path / "c.txt", b"not read")
    assert read(ctx, tmp_path).rows() == [("one", "a.jsonl.gz"), ("two", "b.jsonl")]


def test_truncated_gzip_is_an_error(tmp_path: Path, ctx: Context) -> None:
    path = tmp_path / "cut.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"text": "one"}\n' * 1000)[:-12])
    with pytest.raises(InputError, match="no intact gzip file"):
        read(ctx, path)


def test_directory_without_files_is_an_error(tmp_path: Path, ctx: Context) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"no \.jsonl"):
        read(ctx, tmp_path / "empty")


def test_keys_become_columns(tmp_path: Path, ctx: Context) -> None:
    lines = (
        b'{"id": 7, "from": "web", "doc": "d1", "body": "a"}',
        b'{"id": "x", "from": "web", "doc": "d1", "body": "b"}',
    )
    frame = read(ctx, write(tmp_path / "c.jsonl", *lines), text="body", identifier="id", origin="from", siblings="doc")
    assert frame.select("id", "source", "group", "text").rows() == [("7", "web", "d1", "a"), ("x", "web", "d1", "b")]


def test_one_key_may_be_several_columns(tmp_path: Path, ctx: Context) -> None:
    path = write(tmp_path / "c.jsonl", b'{"url": "u1", "text": "a"}', b'{"url": "u2", "text": "b"}')
    frame = read(ctx, path, identifier="url", origin="url", siblings="url")
    assert frame.columns == ["text", "source", "id", "group"]
    assert frame.select("id", "source", "group").rows() == [("u1", "u1", "u1"), ("u2", "u2", "u2")]


def test_id_without_identifier_does_not_become_the_id(tmp_path: Path, ctx: Context) -> None:
    frame = read(ctx, write(tmp_path / "c.jsonl", b'{"id": 7, "text": "a"}', b'{"id": 7, "text": "b"}'))
    assert frame["id_in_file"].to_list() == [7, 7]
    assert "id" not in frame.columns


def test_missing_identifier_is_quarantined(tmp_path: Path, ctx: Context, quarantined: Quarantined) -> None:
    path = write(tmp_path / "c.jsonl", b'{"id": "1", "text": "a"}', b'{"text": "b"}', b'{"id": true, "text": "c"}')
    assert read(ctx, path, identifier="id")["text"].to_list() == ["a"]
    assert len(quarantined()) == 2


def test_columns_have_one_type_over_all_frames(tmp_path: Path, ctx: Context) -> None:
    lines = [
        json.dumps({"text": "t", "n": row, "mixed": row if row < 3000 else "late"}).encode() for row in range(5000)
    ]
    lines.append(b'{"text": "t", "n": 0.5, "late": true, "huge": 99999999999999999999, "list": [1]}')
    frames = list(sources.jsonl(ctx, path=Location(str(write(tmp_path / "c.jsonl", *lines)))))
    assert len(frames) > 2
    assert len({tuple(frame.schema.items()) for frame in frames}) == 1
    types = {"n": pl.Float64, "mixed": pl.String, "late": pl.Boolean, "huge": pl.String}
    assert {name: frames[0].schema[name] for name in types} == types
    assert "list" not in frames[0].columns
    assert frames[-1]["huge"].to_list()[-1] == "99999999999999999999"


TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1).filter(str.strip)


@given(texts=st.lists(TEXT, min_size=1, max_size=5), noise=st.lists(st.binary(max_size=60), max_size=5), data=st.data())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_between_good_lines(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], noise: list[bytes], data: st.DataObject
) -> None:
    directory = tmp_path_factory.mktemp("fuzz")
    # The first line has no byte order mark of the noise before it, and noise ends where its line ends.
    good = [json.dumps({"text": text}, ensure_ascii=data.draw(st.booleans())).encode() for text in texts]
    lines = [(line, True) for line in good]
    for piece in noise:
        lines.insert(data.draw(st.integers(0, len(lines))), (piece.replace(b"\n", b" "), False))
    path = write(directory / "c.jsonl", *(line for line, _ in lines))
    frame = read(make_context(directory / "context"), path)
    kept = iter(frame["text"].to_list())
    for text in texts:
        assert text in kept  # all of them, in order; noise may happen to be a document too


@given(st.binary(max_size=400))
@settings(max_examples=300, deadline=None)
def test_any_line_is_a_row_or_a_bad_line(content: bytes) -> None:
    for line in read_lines(Path("x.jsonl"), io.BytesIO(content), 100):
        try:
            row = parse_line(line, Columns("text"))
        except BadLineError:
            continue
        assert isinstance(row["text"], str)


def test_lines_are_numbered_with_blank_ones() -> None:
    lines = list(read_lines(Path("x.jsonl"), io.BytesIO(b"\xef\xbb\xbfa\r\n\n  b  \nc"), 100))
    assert lines == [Line(Path("x.jsonl"), 1, b"a"), Line(Path("x.jsonl"), 3, b"b"), Line(Path("x.jsonl"), 4, b"c")]
