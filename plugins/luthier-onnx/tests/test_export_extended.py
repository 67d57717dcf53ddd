"""An extended vocabulary reaches the export: the same tokens and the same numbers as with transformers."""

from __future__ import annotations

import onnxruntime_genai as og
import polars as pl
import pytest

from luthier import Dataset, Model
from luthier.testing import make_context
from luthier_models import extend_vocabulary
from luthier_models.prompts import load_tokenizer
from luthier_models.runtime import TransformersGenerator
from luthier_onnx import genai
from luthier_onnx.runtime import GenaiGenerator

TEXTS = ["Angiotensin-converting enzyme inhibitors reduce the preload.\n", "Enzyme inhibitors; preload 12 mmHg: µ…"]


def test_both_runtimes_read_an_extended_vocabulary_alike(tiny_llama, tmp_path):
    rows = {"id": ["a", "b"], "group": ["a", "b"], "split": ["train", "train"], "text": TEXTS}
    (tmp_path / "data").mkdir()
    pl.DataFrame(rows).write_parquet(tmp_path / "data" / "shard-00000.parquet")
    data = Dataset.at(tmp_path / "data", "language-modelling")
    extended, exported = make_context(tmp_path / "extended"), make_context(tmp_path / "exported")
    extend_vocabulary(Model.at(tiny_llama, "causal-lm"), data, extended, min_frequency=2, valid_examples=0)
    genai(Model.at(extended.output, "causal-lm"), exported)
    ours, theirs = load_tokenizer(extended.output), og.Tokenizer(og.Model(str(exported.output)))
    for text in (*TEXTS, "Another  text, of which\n\nnothing was seen: ÆØÅ 你好"):
        ids = ours(text, add_special_tokens=False)["input_ids"]
        assert list(theirs.encode(text)) == ids
        assert theirs.decode(ids) == text
    # New tokens are among them.
    assert max(ours(TEXTS[0])["input_ids"]) >= len(load_tokenizer(tiny_llama))
    [expected] = TransformersGenerator(extended.output).score(["Which?"], TEXTS[:1])
    [got] = GenaiGenerator(exported.output).score(["Which?"], TEXTS[:1])
    assert got.log_probabilities == pytest.approx(expected.log_probabilities, abs=1e-3)
