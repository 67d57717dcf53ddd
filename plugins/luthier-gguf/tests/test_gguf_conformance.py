"""The plugin keeps the rules for plugins."""

from __future__ import annotations

from typing import Any

import pytest

from luthier import Model
from luthier.testing import conformance


@pytest.fixture(scope="session")
def luthier_samples(tiny: Any) -> dict[str, Any]:
    return {"model": Model.at(tiny("llama"), "causal-lm", "0" * 64)}


test_conformance = conformance("gguf")
