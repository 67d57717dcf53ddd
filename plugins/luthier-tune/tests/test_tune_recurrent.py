"""Recurrent models are trained as all others are."""

from __future__ import annotations

import polars as pl
import pytest

import luthier_tune
from luthier import Model
from luthier.testing import arguments, make_context
from luthier_models import Vocabulary, pretrained, rnn_lm

CONFIG = {"max_steps": 30, "learning_rate": 0.01, "warmup_steps": 2, "valid_examples": 0}


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_a_recurrent_model_learns_and_is_loaded_again(tmp_path, examples, cell):
    made = make_context(tmp_path / "made", seed=3)
    rnn_lm(examples, made, cell=cell, parameters="60K", tokenizer=Vocabulary(kind="byte"), layers=2, dropout=0.1)
    tuned = make_context(tmp_path / "tuned", seed=3)
    model = Model.at(made.output, "causal-lm", "0" * 64)
    luthier_tune.full(model, examples, tuned, **arguments(luthier_tune.full, **CONFIG))
    curve = pl.read_parquet(tuned.notes / "tables" / "learning-curve.parquet")["loss"]
    assert curve[-1] < 0.8 * curve[0]
    again = make_context(tmp_path / "again")
    pretrained(again, model=str(tuned.output))
    assert (again.output / "model.safetensors").read_bytes() == (tuned.output / "model.safetensors").read_bytes()
