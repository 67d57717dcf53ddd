"""Shards: their boundaries and bytes depend on the rows alone."""

from __future__ import annotations

import itertools
from pathlib import Path
from tempfile import TemporaryDirectory

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from luthier import PluginError, shards

ROWS, BYTES = 4, 20


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(shards, "SHARD_ROWS", ROWS)
    monkeypatch.setattr(shards, "SHARD_BYTES", BYTES)


def written(frames: list[pl.DataFrame]) -> dict[str, bytes]:
    with TemporaryDirectory() as directory:
        writer = shards.ShardWriter(Path(directory))
        for frame in frames:
            writer.write(frame, "the test")
        writer.close(pl.Schema({"text": pl.String}))
        return {path.name: path.read_bytes() for path in sorted(Path(directory).iterdir())}


def sizes(files: dict[str, bytes]) -> list[list[int]]:
    """The bytes of text of each row, shard by shard."""
    return [pl.read_parquet(file)["text"].str.len_bytes().to_list() for file in files.values()]


@settings(max_examples=25, deadline=None)
@given(st.lists(st.text(max_size=30)), st.lists(st.integers(0, 40)))
def test_however_rows_come_in_frames_the_files_are_the_same(texts, cuts):
    rows = pl.DataFrame({"text": texts}, schema={"text": pl.String})
    borders = [0, *sorted(min(cut, rows.height) for cut in cuts), rows.height]
    whole = written([rows])
    assert written([rows[start:end] for start, end in itertools.pairwise(borders)]) == whole
    assert [size for shard in sizes(whole) for size in shard] == [len(text.encode()) for text in texts]
    for shard, following in itertools.pairwise(sizes(whole)):
        assert len(shard) == ROWS or sum(shard) + following[0] > BYTES
    assert all(len(shard) <= ROWS and (sum(shard) <= BYTES or len(shard) == 1) for shard in sizes(whole))


def test_frames_of_different_columns_are_refused_by_name():
    with pytest.raises(PluginError, match="the test gave frames of different columns: text String, then text Int64"):
        written([pl.DataFrame({"text": ["a"]}), pl.DataFrame({"text": [1]})])


def test_shards_of_a_pass_get_the_types_that_only_some_of_them_know(tmp_path):
    parts = [pl.DataFrame({"text": ["a"], "n": [None]}), pl.DataFrame({"text": ["b"], "n": [1]})]
    paths = [tmp_path / f"{number}.parquet" for number in range(2)]
    for part, path in zip(parts, paths, strict=True):
        shards.write_shard(part, path)
    (tmp_path / "joined").mkdir()
    shards.join_shards(paths, tmp_path / "joined", "the test")
    joined = [pl.read_parquet(path) for path in sorted((tmp_path / "joined").iterdir())]
    assert [frame.schema for frame in joined] == [parts[1].schema] * 2
    assert pl.concat(joined).to_dicts() == [{"text": "a", "n": None}, {"text": "b", "n": 1}]
    shards.write_shard(pl.DataFrame({"other": ["c"]}), paths[1])
    with pytest.raises(PluginError, match="the test gave shards of different columns"):
        shards.join_shards(paths, tmp_path / "joined", "the test")
