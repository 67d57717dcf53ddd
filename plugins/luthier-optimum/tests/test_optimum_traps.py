"""What goes wrong without an error between transformers 5, transformers 4 and optimum."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

import luthier_optimum
from luthier.components import ConfigurationError
from luthier.core_stages import STAGES
from luthier.registering import read_component
from luthier_models.testing import write_tiny_model
from luthier_optimum.legacy import as_transformers_4

READ = """
import sys
from transformers import AutoConfig

print(*(AutoConfig.from_pretrained(directory).rope_theta for directory in sys.argv[1:]))
"""
EXPORT_MISREAD = """
import shutil, sys
from pathlib import Path
from luthier import LuthierError
from luthier.testing import make_context
from luthier_optimum import export

rewrite = export.as_transformers_4

def misread(model, directory):
    rewrite(model, directory)
    shutil.copyfile(model / "config.json", directory / "config.json")
    return directory

export.as_transformers_4 = misread
ctx = make_context(Path(sys.argv[2]))
try:
    export.export_decoder(Path(sys.argv[1]), ctx, None, 1024)
except LuthierError as error:
    print(error.message)
print(sorted(path.name for path in ctx.output.iterdir()))
"""

ASK_TYPES = """
import optimum.exporters.onnx.model_configs
from luthier_optimum.families import MODEL_TYPES
from optimum.exporters.tasks import TasksManager

table = TasksManager._SUPPORTED_MODEL_TYPE
known = {name for name, ways in table.items() if "text-generation-with-past" in ways.get("onnx", {})}
print(sorted(known ^ MODEL_TYPES))
"""
EXPORT_UNKNOWN = """
import sys
from pathlib import Path
from luthier import InputError
from luthier.testing import make_context
from luthier_optimum.export import export_decoder

ctx = make_context(Path(sys.argv[2]))
try:
    export_decoder(Path(sys.argv[1]), ctx, None, 1024)
except InputError as error:
    print(error)
print(sorted(path.name for path in ctx.output.iterdir()))
"""


def run(python: Path, code: str, *arguments: Path) -> str:
    command = [str(python), "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=True).stdout


def test_transformers_4_misreads_the_rotary_base_and_not_in_what_it_is_given(environment, tmp_path):
    model = write_tiny_model(tmp_path / "model", rope_theta=100.0)
    legacy = as_transformers_4(model, tmp_path / "legacy")
    assert run(environment, READ, model, legacy).split() == ["10000.0", "100.0"]


@pytest.mark.slow
def test_an_export_of_a_misread_model_is_refused(environment, tmp_path):
    model = write_tiny_model(tmp_path / "model", rope_theta=100.0)
    printed = run(environment, EXPORT_MISREAD, model, tmp_path / "export")
    assert "does not compute what the model does in PyTorch: logits are off by" in printed
    assert printed.splitlines()[-1] == "[]"


def test_optimums_own_dynamo_which_it_ignores_is_not_offered():
    stage = next(stage for stage in STAGES if stage.hook == "luthier_exporters")
    [function] = luthier_optimum.luthier_exporters()
    component = read_component(function, stage, distribution="luthier-optimum", version="0", plugin="optimum")
    with pytest.raises(ConfigurationError, match="dynamo"):
        component.configure({"dynamo": True})


def test_what_planning_takes_for_known_is_what_optimum_knows(environment):
    assert run(environment, ASK_TYPES) == "[]\n"


def test_a_model_that_optimum_does_not_know_is_refused_with_the_routes_that_do(environment, tmp_path):
    model = tmp_path / "model"
    model.mkdir()
    config = {"model_type": "rnn-lm", "architectures": ["RnnForCausalLM"]}
    (model / "config.json").write_text(json.dumps(config), encoding="utf-8")
    refused, remedy, left = run(environment, EXPORT_UNKNOWN, model, tmp_path / "export").splitlines()
    assert refused == "optimum cannot export models of the type 'rnn-lm'"
    assert remedy.strip().startswith("Write `export: dynamo`, which knows it.")
    assert left == "[]"
