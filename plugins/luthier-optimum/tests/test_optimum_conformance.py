"""The plugin keeps the rules for plugins, in the environment that it declares."""

from __future__ import annotations

from pathlib import Path

import pytest

from luthier import Model
from luthier.testing import conformance


@pytest.fixture(scope="session")
def luthier_samples(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Model]:
    from luthier_models.testing import write_tiny_model

    directory: Path = tmp_path_factory.mktemp("tiny") / "model"
    return {"model": Model.at(write_tiny_model(directory, rope_theta=100.0), "causal-lm", "0" * 64)}


@pytest.fixture(autouse=True)
def built(environment: Path) -> None:
    """The plugin's environment is there."""


test_conformance = conformance("optimum", slow={"export:optimum/killed"})
