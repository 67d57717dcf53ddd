"""The component module is light, and its signatures are ones that the engine accepts."""

from __future__ import annotations

import subprocess
import sys

import pytest

from luthier.components import Component
from luthier.core_stages import STAGES
from luthier.registering import read_component
from luthier_bias import luthier_bias_filters

HEAVY = ("torch", "transformers", "onnxruntime", "polars", "pyarrow", "numpy", "pydantic")
STAGE = next(stage for stage in STAGES if stage.name == "bias")
COMPONENTS = [
    read_component(function, STAGE, distribution="luthier-bias", version="0", plugin="bias")
    for function in luthier_bias_filters()
]


def test_import_loads_no_heavy_library() -> None:
    code = f"import luthier_bias, sys; print([name for name in {HEAVY!r} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


@pytest.mark.parametrize("component", COMPONENTS, ids=str)
def test_configuration_is_valid_and_documented(component: Component) -> None:
    assert component.configure({})
    arguments = component.doc.partition("Args:")[2]
    assert all(f"{parameter.name}:" in arguments for parameter in component.parameters)


def test_names() -> None:
    assert [str(component) for component in COMPONENTS] == ["bias:toxicity", "bias:representation"]
