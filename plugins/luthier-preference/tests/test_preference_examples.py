"""Preferences as tokens and as rewards: without any training."""

from __future__ import annotations

import math

import polars as pl
import pytest

from luthier_models.prompts import PromptEncoder
from luthier_preference.examples import Answers, encode_split, rows_of_judgements
from luthier_preference.rewards import Rewards
from luthier_preference.tuning import balanced

from .conftest import pair_rows, write_dataset


def test_what_cannot_be_used_is_counted(tmp_path, tiny):
    encoder = PromptEncoder.from_directory(tiny.path)
    frame = pair_rows(6).to_dicts()
    frame[0]["chosen"] = "  "
    frame[1]["rejected"] = frame[1]["chosen"]
    frame[2]["prompt"] = ""
    frame[4]["prompt"] *= 9
    frame[5]["rejected"] *= 9
    data = write_dataset(tmp_path / "data", pl.DataFrame(frame).with_columns(split=pl.lit("train")), "preference")
    length = max(
        len(each.given) + max(map(len, each.completions))
        for each in encode_split(data, "train", encoder, 10_000).examples[:1]
    )
    encoded = encode_split(data, "train", encoder, length + 4)
    assert (len(encoded.examples), encoded.skipped, encoded.shortened) == (2, 4, 1)
    shortened = encoded.examples[1]
    assert len(shortened.given) + max(map(len, shortened.completions)) <= length + 4
    # The user's text is cut, not the template around it.
    assert shortened.given[-3:] == encoded.examples[0].given[-3:]


@pytest.mark.parametrize("count", [6, 7, 9, 1])
def test_each_judgement_has_another_answer_of_its_batch(count):
    examples = [Answers([1, 2], ([100 + number],), liked=number % 2 == 0) for number in range(count)]
    rows = rows_of_judgements(examples, 4, seed=5)
    own, other = ([row[key][0] for row in rows] for key in ("completion_ids", "KL_completion_ids"))
    assert sorted(own) == [100 + number for number in range(count)]
    if count > 1:
        assert all(mine != theirs for mine, theirs in zip(own, other, strict=True))
        assert own != sorted(own)
    for start in range(0, count, 4):
        batch = slice(start, start + 4)
        if len(own[batch]) > 1:
            assert sorted(own[batch]) == sorted(other[batch])
    assert rows == rows_of_judgements(examples, 4, seed=5)


def test_both_kinds_of_judgement_count_alike_unless_told():
    assert balanced((None, None), [True] * 3 + [False]) == (1.0, 3.0)
    assert balanced((None, None), [True] + [False] * 4) == (4.0, 1.0)
    assert balanced((None, None), [True] * 3) == (1.0, 1.0)
    assert balanced((2.0, None), [True] * 3 + [False]) == (2.0, 1.0)


def test_rewards():
    pairs = Rewards([1.0, 0.5, 0.0], [0.0, 0.5, 1.0], paired=True)
    assert pairs.wins == [1.0, 0.5, 0.0]
    assert pairs.margin == 0.0
    assert pairs.losses[0] == pytest.approx(math.log1p(math.exp(-1)))
    assert pairs.losses[2] == pytest.approx(math.log1p(math.exp(1)))
    far = Rewards([1000.0, -1000.0], [0.0, 0.0], paired=True)
    assert far.losses == pytest.approx([0.0, 1000.0])
    apart = Rewards([2.0, 0.0], [1.0, -1.0, 0.0], paired=False)
    assert apart.wins == pytest.approx([1.0, 0.5])
    assert apart.margin == pytest.approx(1.0)
