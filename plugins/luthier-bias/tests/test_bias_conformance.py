"""The plugin keeps the rules for plugins."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from luthier.testing import conformance


@pytest.fixture(scope="module")
def luthier_configurations(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """A lexicon that needs no download, with words that the kit's documents have."""
    lexicon: Path = tmp_path_factory.mktemp("lexicon") / "lexicon.json"
    rules = [{"pattern": word, "category": "profanity", "severity": "high"} for word in ("committee", "fish", "banana")]
    lexicon.write_text(json.dumps({"rules": rules, "allowList": []}), encoding="utf-8")
    return {"toxicity": {"lexicon": lexicon}}


test_conformance = conformance("bias")
