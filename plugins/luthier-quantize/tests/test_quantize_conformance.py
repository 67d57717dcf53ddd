"""The plugin keeps the rules for plugins."""

from __future__ import annotations

import subprocess
import sys

from luthier.testing import conformance

HEAVY = ("torch", "transformers", "onnxruntime", "onnxruntime_genai", "onnx", "polars", "numpy", "pydantic")

test_conformance = conformance("quantize")


def test_importing_the_plugin_loads_no_heavy_library():
    code = f"import sys, luthier_quantize; print([name for name in {HEAVY!r} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
