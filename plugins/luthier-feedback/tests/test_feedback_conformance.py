"""The plugin keeps the rules for plugins."""

from __future__ import annotations

from typing import Any

import pytest

from luthier.testing import conformance
from luthier_feedback import Feedback, FeedbackLog


@pytest.fixture(scope="module")
def luthier_configurations(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """A log with something to learn from."""
    path = tmp_path_factory.mktemp("log") / "feedback.db"
    with FeedbackLog(path) as log:
        for number in range(20):
            said = {"prompt": f"Number {number}?", "answer": "None", "correction": str(number), "consent": True}
            log.add(Feedback.model_validate(said))
    return {"feedback": {"log": path}}


test_conformance = conformance("feedback")
