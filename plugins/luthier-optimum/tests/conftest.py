from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from luthier import environments


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The interpreter of the plugin's environment, built as a user does."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LUTHIER_CACHE", str(tmp_path_factory.mktemp("cache")))
        command = "from luthier.cli import main; main()"
        subprocess.run([sys.executable, "-c", command, "env", "build", "luthier-optimum"], check=True)
        # As the engine tells its workers.
        patch.setenv("LUTHIER_PYTHON", os.environ.get("LUTHIER_PYTHON", sys.executable))
        yield environments.require("luthier-optimum").python
