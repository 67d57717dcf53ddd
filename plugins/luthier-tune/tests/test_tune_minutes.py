"""`max_minutes` of every tuner: kept to a tenth, loading and the first forward passes included.

The clock is moved on by forward passes only, so that nothing depends on the machine.
"""

from __future__ import annotations

import pytest

import luthier_tune
from luthier import Model
from luthier.testing import arguments, make_context
from luthier_models.packing import PackedModel
from luthier_models.pairing import PairedModel
from luthier_models.testing import write_tiny_encoder_decoder
from luthier_tune.lean import LeanModel

SECONDS = 90


@pytest.fixture
def clock(monkeypatch):
    """A list of one number, the seconds so far: a forward pass takes as long as there is to predict."""
    now = [0.0]

    def slow(kind):
        hidden = kind.hidden

        def passed(self, row):
            now[0] += 0.03 * len(row.labels)
            return hidden(self, row)

        monkeypatch.setattr(kind, "hidden", passed)

    for kind in (PackedModel, LeanModel, PairedModel):
        slow(kind)
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    return now


@pytest.fixture(scope="module")
def t5(tmp_path_factory) -> Model:
    return Model.at(write_tiny_encoder_decoder(tmp_path_factory.mktemp("t5") / "model"), "seq2seq-lm", "0" * 64)


@pytest.mark.parametrize(
    ("tuner", "options"),
    [
        ("lora", {"rank": 2, "evaluate_every": 10}),
        ("full", {}),
        ("layers", {"top": 1}),
        ("ia3", {"patience": 50}),
        ("soft_prompt", {"keep": "last"}),
        ("distill", {"rank": 2}),
    ],
    ids=["lora", "full", "layers", "ia3", "soft-prompt", "distill"],
)
def test_minutes_are_honoured(tmp_path, tiny, examples, clock, tuner, options):
    component = getattr(luthier_tune, tuner)
    models = [tiny, tiny] if tuner == "distill" else [tiny]
    config = {"max_minutes": SECONDS / 60, "valid_examples": 4, "max_length": 96} | options
    ctx = make_context(tmp_path, seed=3)
    component(*models, examples, ctx, **arguments(component, **config))
    assert 0.9 * SECONDS <= clock[0] <= 1.1 * SECONDS
    assert ctx.metrics["steps"].value > 10


@pytest.mark.parametrize("tuner", ["lora", pytest.param("distill", marks=pytest.mark.slow)])
def test_minutes_are_honoured_with_an_encoder_decoder(tmp_path, t5, examples, clock, tuner):
    component = getattr(luthier_tune, tuner)
    models = [t5, t5] if tuner == "distill" else [t5]
    ctx = make_context(tmp_path, seed=3)
    config = {"max_minutes": SECONDS / 60, "rank": 2, "valid_examples": 4}
    component(*models, examples, ctx, **arguments(component, **config))
    assert 0.9 * SECONDS <= clock[0] <= 1.1 * SECONDS
