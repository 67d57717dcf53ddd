"""A device that is not there is told of before the work: here there is no GPU."""

from __future__ import annotations

import json

import pytest

import luthier
from luthier.api import open_store
from luthier.runs import list_runs

RECIPE = """
luthier: 1
name: device
steps:
  - source: jsonl
    path: data.jsonl
  - format: language-modelling
  - architecture: rnn-lm
  - tune: full
"""


@pytest.mark.parametrize(("device", "says"), [("gpu", "'gpu' is no device"), ("cuda:7", "'cuda:7' was asked for")])
def test_a_run_on_a_device_that_is_not_there_does_nothing(tmp_path, monkeypatch, device, says):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LUTHIER_PLUGINS", "models,text,tune")
    monkeypatch.delenv("LUTHIER_HOME", raising=False)
    (tmp_path / "data.jsonl").write_text(json.dumps({"text": "the bridge is old"}) + "\n")
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    with pytest.raises(luthier.LuthierError, match=says):
        luthier.run(tmp_path / "recipe.yaml", display=False, jobs=1, device=device)
    [ended] = list_runs(open_store(tmp_path))
    assert {step.state for step in ended.steps} == {"waiting"}
