"""The plugin keeps the rules for plugins."""

from __future__ import annotations

from typing import Any

import pytest

from luthier import Model
from luthier.testing import conformance


@pytest.fixture(scope="session")
def luthier_samples(tiny: Model) -> dict[str, Any]:
    return {"model": tiny, "teacher": tiny}


SHORT = {"max_steps": 4, "max_length": 64, "valid_examples": 4, "checkpoint_minutes": 0.0}

TUNERS = ["lora", "full", "layers", "ia3", "soft-prompt", "distill"]

# They keep their checkpoints by one trainer, so the first and the last stand for all.
test_conformance = conformance(
    "tune",
    configurations=dict.fromkeys(TUNERS, SHORT),
    slow={f"tune:{name}/killed" for name in TUNERS[1:-1]},
)
