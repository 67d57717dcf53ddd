from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from luthier import Model
from luthier.testing import make_context

# Not the default: an exporter that does not find it in transformers 5's nested form is found out.
ROPE_THETA = 123.0


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from luthier_models.testing import write_tiny_model

    return write_tiny_model(tmp_path_factory.mktemp("tiny-llama") / "model", rope_theta=ROPE_THETA)


@pytest.fixture(scope="session")
def untied_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from luthier_models.testing import write_tiny_model

    directory = tmp_path_factory.mktemp("untied-llama") / "model"
    return write_tiny_model(directory, rope_theta=ROPE_THETA, tied=False)


class Exported(NamedTuple):
    """A model and what `dynamo` made of it."""

    family: str
    model: Path
    onnx: Path
    metrics: dict[str, float]


ENCODER_DECODERS = ("t5", "marian", "rnn-seq2seq")
IN_EVERY_RUN = ("gru", "t5", "llama")
SLOW = ("lstm", "rnn-seq2seq", "marian", "qwen3", "smollm3", "olmo2", "stablelm", "gpt2", "opt")


def export_family(family: str, room: Path) -> Exported:
    """Make a tiny model and export it."""
    from luthier_models.testing import write_tiny_decoder, write_tiny_encoder_decoder, write_tiny_model

    if family in ENCODER_DECODERS:
        model = write_tiny_encoder_decoder(room / "model", family)
    elif family == "llama":
        model = write_tiny_model(room / "model", rope_theta=ROPE_THETA)
    else:
        model = write_tiny_decoder(room / "model", family)
    return Exported(family, model, *export_dynamo(model, room / "export"))


def export_dynamo(model: Path, room: Path) -> tuple[Path, dict[str, float]]:
    """The directory that the exporter `dynamo` wrote, and its metrics."""
    from luthier_onnx import dynamo

    ctx = make_context(room)
    dynamo(Model.at(model, ""), ctx)
    return ctx.output, {name: metric.value for name, metric in ctx.metrics.items()}


@pytest.fixture(scope="session", params=[*IN_EVERY_RUN, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)])
def exported_family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """An exported model of each form of layers; in every run one of each way to carry states."""
    return export_family(request.param, tmp_path_factory.mktemp("dynamo"))


@pytest.fixture(scope="session")
def recurrent(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """The one that is exported fastest."""
    return export_family("gru", tmp_path_factory.mktemp("recurrent"))


@pytest.fixture
def export(tmp_path: Path) -> Callable[[Path], Path]:
    """Exports a model into a directory of its own."""
    return lambda model: export_dynamo(model, tmp_path / "export")[0]
