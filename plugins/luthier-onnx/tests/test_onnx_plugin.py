from __future__ import annotations

import subprocess
import sys

import luthier_onnx
from luthier.core_stages import STAGES
from luthier.registering import read_component

HEAVY = ("torch", "transformers", "onnxruntime", "onnxruntime_genai", "onnx", "polars", "pyarrow", "numpy", "pydantic")


def test_importing_the_plugin_loads_no_heavy_library():
    code = f"import sys, luthier_onnx; print([name for name in {HEAVY!r} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_the_components_satisfy_their_stages():
    stages = {stage.hook: stage for stage in STAGES}
    found = {}
    for hook in ("luthier_exporters", "luthier_runtimes"):
        for function in getattr(luthier_onnx, hook)():
            component = read_component(function, stages[hook], distribution="luthier-onnx", version="0", plugin="onnx")
            found[component.name] = component.configure({})
    assert found["genai"] == {"adapter": "merged", "verified_tokens": 1024}
    assert found["onnxruntime-genai"] == {"adapter": "own"}
    assert found["dynamo"] == {"verified_tokens": 1024}
    assert found["onnxruntime"] == {"batch_size": 8}
