"""The plugin keeps the rules for plugins."""

from __future__ import annotations

from typing import Any

import pytest

from luthier import Model
from luthier.testing import conformance


@pytest.fixture(scope="session")
def luthier_samples(tiny: Model) -> dict[str, Any]:
    return {"model": tiny}


SHORT = {"max_steps": 2, "rank": 2, "max_length": 128, "valid_examples": 4, "checkpoint_minutes": 0.0}
test_conformance = conformance("preference", configurations={"dpo": SHORT, "kto": SHORT}, slow={"tune:dpo/killed"})
