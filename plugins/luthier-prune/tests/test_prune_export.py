"""Pruned models are models like any other: they are exported, healed, and pruned again."""

from __future__ import annotations

import numpy as np
import pytest

from luthier import Model
from luthier.testing import make_context
from luthier_models.runtime import TransformersGenerator
from luthier_prune import layers, vocabulary, weights, width
from luthier_prune.options import Pruning
from luthier_tune import distill
from luthier_tune.options import ParallelTraining

HALF = Pruning(ratio=0.5, curve=0)
PRUNERS = {
    "layers": lambda *inputs: layers(*inputs, pruning=HALF),
    "width": lambda *inputs: width(*inputs, parts=["mlp", "heads"], multiple_of=8, pruning=HALF),
    "weights": lambda *inputs: weights(*inputs, pruning=HALF),
}
PROMPTS, COMPLETIONS = ["Which table?", "Öffne die Datei: 開く"], ["The row of the table.", "12 numbers"]


@pytest.mark.parametrize("name", list(PRUNERS))
def test_onnxruntime_genai_gives_the_logits_of_the_pruned_model(llama, examples, tmp_path, name):
    from luthier_onnx import genai
    from luthier_onnx.runtime import GenaiGenerator

    pruned, exported = make_context(tmp_path / "pruned", seed=1), make_context(tmp_path / "exported")
    PRUNERS[name](llama, examples, pruned)
    genai(Model.at(pruned.output, "causal-lm"), exported)
    ours = GenaiGenerator(exported.output).logits(PROMPTS, COMPLETIONS)
    theirs = TransformersGenerator(pruned.output).logits(PROMPTS, COMPLETIONS)
    for mine, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-3, atol=1e-3)


def test_the_unpruned_model_heals_the_pruned_one(llama, examples, tmp_path):
    narrow, short, healed = (make_context(tmp_path / name, seed=1) for name in ("narrow", "short", "healed"))
    vocabulary(llama, examples, narrow)
    teacher = Model.at(narrow.output, "causal-lm")
    layers(teacher, examples, short, pruning=Pruning(ratio=0.5, curve=0))
    training = ParallelTraining(learning_rate=3e-3, max_steps=24, max_length=256, warmup_steps=1)
    distill(Model.at(short.output, "causal-lm"), teacher, examples, healed, teacher_weight=1.0, training=training)
    metrics = {name: metric.value for name, metric in healed.metrics.items()}
    # The same examples of the same split: the pruner's measure is the tuner's.
    assert metrics["teacher_kl_before"] == pytest.approx(short.metrics["mean_kl"].value, rel=1e-3)
    assert metrics["teacher_kl"] < 0.9 * metrics["teacher_kl_before"]
