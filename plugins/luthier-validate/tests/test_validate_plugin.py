from __future__ import annotations

import subprocess
import sys

import pytest

import luthier_validate
from luthier.components import ConfigurationError
from luthier.core_stages import STAGES
from luthier.registering import read_component

HEAVY = (
    "torch",
    "transformers",
    "onnxruntime",
    "polars",
    "pyarrow",
    "numpy",
    "pydantic",
    "rouge_score",
    "nltk",
    "sacrebleu",
)


def test_importing_the_plugin_loads_no_heavy_library():
    code = f"import sys, luthier_validate; print([name for name in {HEAVY!r} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_the_components_satisfy_their_stage():
    stage = next(stage for stage in STAGES if stage.hook == "luthier_validators")
    found = {}
    for function in luthier_validate.luthier_validators():
        component = read_component(function, stage, distribution="luthier-validate", version="0", plugin="validate")
        found[component.name] = component
        assert component.configure({})["split"] == "test"
        with pytest.raises(ConfigurationError, match="max_examples"):
            component.configure({"max_examples": 0})
    assert sorted(found) == ["bits-per-byte", "bleu", "chrf", "classification", "parity", "perplexity", "rouge"]
    assert "language-modelling" not in found["rouge"].declared.needs["data"]
    with pytest.raises(ConfigurationError, match="cannot be measured on it"):
        found["bits-per-byte"].configure({"split": "train", "baselines": ["xz"]})
    with pytest.raises(ConfigurationError, match="there is no"):
        found["classification"].configure({"prompt": "Which label?"})
