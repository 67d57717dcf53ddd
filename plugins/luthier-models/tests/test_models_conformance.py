"""The plugin keeps the rules for plugins."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from luthier.testing import conformance


@pytest.fixture(scope="session")
def luthier_samples(tiny: Path) -> dict[str, Any]:
    return {"model": tiny}


@pytest.fixture(scope="session")
def luthier_configurations(tiny: Path) -> dict[str, dict[str, Any]]:
    return {"pretrained": {"model": tiny}}


test_conformance = conformance("models")
