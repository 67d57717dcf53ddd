"""What cannot work is told in one line, where it can be known before anything is loaded."""

from __future__ import annotations

import subprocess
import sys

import polars as pl
import pytest
import yaml

import luthier
from luthier import InputError
from luthier.testing import make_context
from luthier_models import Vocabulary, rnn_lm
from luthier_prune import layers, weights, width
from luthier_prune.options import Pruning

from .conftest import write_family

HEAVY = ("torch", "transformers", "tokenizers", "polars", "numpy")


def test_importing_the_plugin_loads_no_heavy_library():
    code = f"import sys, luthier_prune; print([name for name in {HEAVY!r} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.mark.parametrize(
    ("step", "told"),
    [
        ({"prune": "layers"}, "nothing says how far to prune"),
        ({"prune": "layers", "ratio": 1.0}, "ratio: input should be less than 1"),
        ({"prune": "layers", "ratio": 0.2, "max_kl": 1.0}, "several targets: ratio, max_kl"),
        ({"prune": "width", "parameters": "many"}, "'many' is no number of parameters"),
        ({"prune": "width", "ratio": 0.2, "parts": []}, "parts"),
        ({"prune": "vocabulary", "ratio": 0.2, "min_frequency": 2}, "both say which tokens go"),
        ({"prune": "weights", "pattern": "2:4", "ratio": 0.5}, "the pattern 2:4 sets half of the weights to zero"),
        ({"prune": "weights", "pattern": "1:4"}, "pattern"),
    ],
)
def test_a_target_that_makes_no_sense_is_told_while_planning(tmp_path, step, told):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump({"luthier": 1, "steps": [step]}, sort_keys=False), encoding="utf-8")
    with pytest.raises(luthier.LuthierError) as caught:
        luthier.plan(recipe)
    assert told in str(caught.value)


def test_the_form_of_data_and_model_is_checked_while_planning(tmp_path):
    recipe = {
        "luthier": 1,
        "steps": [
            {"source": "docstrings", "packages": ["json"]},
            {"format": "summarization"},
            {"architecture": "fresh", "family": "t5"},
            {"prune": "layers", "ratio": 0.2},
        ],
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")
    with pytest.raises(luthier.LuthierError) as caught:
        luthier.plan(tmp_path / "recipe.yaml")
    assert "seq2seq-lm" in str(caught.value)
    assert "causal-lm" in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"ratio": 0.9}, "a ratio of 0.9 leaves nothing: 3 of 4 layers can be removed"),
        ({"ratio": 0.1}, "a ratio of 0.1 of 4 layers removes none"),
        ({"parameters": "10"}, "10 parameters cannot be reached"),
        ({"parameters": "5M"}, "there is nothing to remove for 5,000,000"),
        ({"max_kl": 1e-9}, "without one of 4 layers the divergence is"),
    ],
)
def test_a_target_that_cannot_be_reached_is_told(llama, examples, tmp_path, settings, told):
    ctx = make_context(tmp_path)
    with pytest.raises(InputError) as caught:
        layers(llama, examples, ctx, pruning=Pruning(**settings))
    assert told in caught.value.message
    assert caught.value.remedy
    assert list(ctx.output.iterdir()) == []


def test_units_of_several_words_are_told_in_words(llama, examples, tmp_path):
    ctx = make_context(tmp_path)
    with pytest.raises(InputError, match="head groups can be removed"):
        width(llama, examples, ctx, parts=["heads"], pruning=Pruning(ratio=0.9))
    assert list(ctx.output.iterdir()) == []


def test_too_little_to_calibrate_on_is_told(llama, make_dataset, rows, tmp_path):
    few = make_dataset(rows().head(1))
    with pytest.raises(InputError, match="too little to calibrate on: 1 usable examples"):
        layers(llama, few, make_context(tmp_path), pruning=Pruning(ratio=0.5))
    unsplit = make_dataset(rows().drop("split"))
    with pytest.raises(InputError, match="the dataset has no column `split`"):
        layers(llama, unsplit, make_context(tmp_path), pruning=Pruning(ratio=0.5))


def test_without_a_validation_split_the_damage_is_measured_on_the_training_split(
    llama, make_dataset, rows, tmp_path, caplog
):
    ctx = make_context(tmp_path)
    data = make_dataset(rows().with_columns(pl.lit("train").alias("split")))
    layers(llama, data, ctx, pruning=Pruning(ratio=0.5, curve=0))
    assert "the damage is measured where importance is" in caplog.text
    assert ctx.metrics["mean_kl"].value > 0


@pytest.mark.parametrize("pruner", [layers, width, weights])
def test_a_family_that_is_not_known_is_told_with_those_that_are(make_dataset, rows, tmp_path, pruner):
    data = make_dataset(rows(), "language-modelling")
    made = make_context(tmp_path / "made")
    rnn_lm(data, made, parameters="60K", tokenizer=Vocabulary(kind="byte"))
    with pytest.raises(InputError, match=r"layers of a .* model cannot be pruned") as caught:
        pruner(luthier.Model.at(made.output, "causal-lm"), data, make_context(tmp_path), pruning=Pruning(ratio=0.5))
    assert "llama" in caught.value.remedy


def test_a_matrix_that_a_pattern_does_not_fit_is_named(tmp_path, examples):
    model = luthier.Model.at(write_family(tmp_path / "model", "llama", layers=1, channels=36), "causal-lm")
    with pytest.raises(InputError, match=r"model\.layers\.0\.mlp\.down_proj has 36 inputs, no multiple of 8"):
        weights(model, examples, make_context(tmp_path / "out"), pattern="4:8")
