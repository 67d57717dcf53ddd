"""The plugin keeps the rules for plugins."""

from __future__ import annotations

from typing import Any

import pytest

from luthier import Dataset, Model
from luthier.testing import conformance


@pytest.fixture(scope="session")
def luthier_samples(llama: Model, examples: Dataset) -> dict[str, Any]:
    return {"model": llama, "data": examples}


test_conformance = conformance(
    "prune",
    configurations={
        "layers": {"ratio": 0.25},
        "width": {"ratio": 0.34, "parts": ["mlp"]},
        "weights": {"ratio": 0.5, "curve": 1},
    },
)
