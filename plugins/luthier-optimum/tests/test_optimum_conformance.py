"""The plugin keeps the rules for plugins, in the environment that it declares."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from luthier import Model
from luthier.testing import conformance


@pytest.fixture(scope="module", autouse=True)
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Build the plugin's environment as a user does."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LUTHIER_CACHE", str(tmp_path_factory.mktemp("cache")))
        command = "from luthier.cli import main; main()"
        subprocess.run([sys.executable, "-c", command, "env", "build", "luthier-optimum"], check=True)
        yield


@pytest.fixture(scope="session")
def luthier_samples(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Model]:
    from luthier_models.testing import write_tiny_model

    directory: Path = tmp_path_factory.mktemp("tiny") / "model"
    return {"model": Model.at(write_tiny_model(directory, rope_theta=100.0), "causal-lm", "0" * 64)}


test_conformance = conformance("optimum")
