from __future__ import annotations

from pathlib import Path

import pytest

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
