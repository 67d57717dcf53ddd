"""The plugin keeps the rules for plugins."""

from __future__ import annotations

from luthier.testing import conformance

test_conformance = conformance("ray")
