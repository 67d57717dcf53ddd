"""The component modules are light, and every signature is one that the engine accepts."""

from __future__ import annotations

import subprocess
import sys

import pytest

from luthier.components import Component
from luthier.core_stages import STAGES
from luthier.registering import read_component
from luthier_text import luthier_cleaners, luthier_formatters, luthier_sources

HEAVY = ("torch", "transformers", "onnxruntime", "polars", "pyarrow", "numpy", "pydantic", "ftfy", "rensa")

GIVEN = {"gettext": {"path": "somewhere"}, "chat": {"answer": "{text}"}, "values": {"values": ["games"]}}
"""What components need that is no string, or of which no single parameter is required."""


def components() -> list[Component]:
    hooks = {"source": luthier_sources, "clean": luthier_cleaners, "format": luthier_formatters}
    stages = {stage.name: stage for stage in STAGES}
    return [
        read_component(function, stages[name], distribution="luthier-text", version="0", plugin="text")
        for name, hook in hooks.items()
        for function in hook()
    ]


def test_import_loads_no_heavy_library() -> None:
    code = f"import luthier_text, sys; print([name for name in {HEAVY!r} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_fingerprint_loads_no_heavy_library() -> None:
    code = (
        "import sys; from luthier_text import sources; text = sources.docstrings.__luthier__.fingerprint();"
        f"assert 'luthier-text==' in text; print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


@pytest.mark.parametrize("component", components(), ids=str)
def test_configuration_is_valid_and_documented(component: Component) -> None:
    required = {p.name: "{somewhere}" for p in component.parameters if p.default is p.empty}
    required |= GIVEN.get(component.name, {})
    assert component.configure(required)
    arguments = component.doc.partition("Args:")[2]
    assert all(f"{parameter.name}:" in arguments for parameter in component.parameters)


def test_split_is_configured_as_a_mapping() -> None:
    (summarization,) = [component for component in components() if component.name == "summarization"]
    split = summarization.configure({"split": {"valid": 0.1, "by": "package"}})["split"]
    assert (split.valid, split.test, split.by) == (0.1, 0.05, "package")
    with pytest.raises(Exception, match="unknown key"):
        summarization.configure({"split": {"vaild": 0.1}})
