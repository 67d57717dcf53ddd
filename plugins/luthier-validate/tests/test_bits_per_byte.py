from __future__ import annotations

import lzma
import math

import polars as pl
import pytest
from toy_generator import ToyGenerator

from luthier import Dataset, InputError
from luthier.testing import make_context
from luthier_validate import bits_per_byte, perplexity
from luthier_validate.compression import added_bytes
from luthier_validate.ngrams import ByteNgrams

TRAIN = ["the cat sat on the mat", "the dog sat on the cat"] * 10
TEST = ["the cat sat on the dog", "größer"]


def splits(pairs, texts, form: str) -> Dataset:
    """The test's rows with training ones beside them."""
    data = pairs(*(("say", text) for text in TEST)) if form == "prompt-completion" else texts(*TEST)
    column = "completion" if form == "prompt-completion" else "text"
    ids = [f"train-{number}" for number in range(len(TRAIN))]
    more = pl.DataFrame({"id": ids, "group": ids, "split": "train", column: TRAIN})
    if form == "prompt-completion":
        more = more.with_columns(pl.lit("say").alias("prompt"))
    more.select(pl.read_parquet(data.shards[0]).columns).write_parquet(data.path / "shard-00001.parquet")
    return data


def test_it_is_the_number_that_perplexity_gives(texts, tmp_path):
    one, two = make_context(tmp_path / "one"), make_context(tmp_path / "two")
    bits_per_byte(ToyGenerator(), texts(*TEST), one)
    perplexity(ToyGenerator(), texts(*TEST), two)
    assert set(one.metrics) == {"bits_per_byte"}
    assert one.metrics["bits_per_byte"] == two.metrics["bits_per_byte"]


@pytest.mark.parametrize("form", ["prompt-completion", "language-modelling"])
def test_baselines_stand_in_one_table_with_the_model(pairs, texts, tmp_path, form):
    ctx, ends = make_context(tmp_path), form == "prompt-completion"
    bits_per_byte(ToyGenerator(), splits(pairs, texts, form), ctx, baselines=["xz", "ngram"])
    table = pl.read_parquet(tmp_path / "notes" / "tables" / "bits_per_byte.parquet")
    assert table["what"].to_list() == ["model", "baseline: 5-gram of bytes", "baseline: xz -9e"]
    names = ["bits_per_byte", "ngram_bits_per_byte", "xz_bits_per_byte"]
    assert table["bits_per_byte"].to_list() == pytest.approx([ctx.metrics[name].value for name in names])
    assert table["bytes"].to_list() == [22 + 8] * 3
    learned, measured = ([text.encode() for text in rows] for rows in (sorted(TRAIN), TEST))
    nats = ByteNgrams(learned, ends=ends).nats(measured)
    assert table["nats"][1] == pytest.approx(math.fsum(nats))
    assert ctx.metrics["ngram_bits_per_byte"].weights == (22.0, 8.0)
    examples = pl.read_parquet(tmp_path / "notes" / "tables" / "bits_per_byte_examples.parquet")
    assert examples.columns == ["id", "bytes", "nats", "bits_per_byte", "ngram_bits_per_byte"]


def test_what_xz_adds_is_the_difference_of_two_archives():
    learned, measured = [b"to be or not to be " * 50], [b"that is the question " * 3, b"whether"]
    archive = {True: b"", False: b""}
    for whole in archive:
        texts = [*learned, *(measured if whole else [])]
        archive[whole] = lzma.compress(b"".join(text + b"\n" for text in texts), preset=9 | lzma.PRESET_EXTREME)
    # An archive is padded to four bytes; its frame is the same for both.
    assert added_bytes(learned, measured, ends=True) == pytest.approx(len(archive[True]) - len(archive[False]), abs=4)
    assert added_bytes(learned, [learned[0]], ends=True) < 12
    assert added_bytes(learned, [], ends=True) == 0


def test_baselines_without_anything_to_learn_from_are_refused(texts, tmp_path):
    with pytest.raises(InputError, match="'train'"):
        bits_per_byte(ToyGenerator(), texts(*TEST), make_context(tmp_path), baselines=["ngram"])
