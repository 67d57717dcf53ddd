"""Fixtures: a context, and a small lexicon in each form that the filter reads."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from luthier import Context, Location
from luthier.testing import make_context

# Mild words stand for worse ones; the rules have every feature of the pattern language.
RULES = [
    {"pattern": "(crud|crudd*|crudi*)", "category": "profanity", "severity": "medium"},
    {"pattern": "(ass|arse)", "category": "profanity", "severity": "medium"},
    {"pattern": "dang", "category": "profanity", "severity": "low"},
    {"pattern": "grobian*", "category": "hate", "severity": "critical"},
    {"pattern": "(you|u) (are|re)? (a)? (idiot*|clown)", "category": "harassment", "severity": "high"},
    {"pattern": "kill", "category": "violence", "severity": "medium"},
    {"pattern": "gay", "category": "hate", "severity": "high"},
]


@pytest.fixture
def ctx(tmp_path: Path) -> Context:
    return make_context(tmp_path / "context")


@pytest.fixture
def lexicon(tmp_path: Path) -> Location:
    path = tmp_path / "lexicon.json"
    path.write_text(json.dumps({"rules": RULES, "allowList": ["crudités"]}), encoding="utf-8")
    return Location(str(path))
