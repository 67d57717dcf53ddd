"""The stage `prune`: a pruned model is the newest, of the form that it had, and can teach or be taught."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import luthier
from luthier.nodes import RecipeError

PLUGIN = '''
import json

from luthier import Context, Model, component, hookimpl

@component(gives="toy-lm")
def talker(ctx: Context) -> None:
    """A model of many words."""
    (ctx.output / "model.json").write_text(json.dumps({"words": ["fire", "water", "air"]}))

@component(needs={"model": {"toy-lm"}})
def terse(model: Model, ctx: Context, *, words: int = 1) -> None:
    """Keep the first words."""
    known = json.loads((model.path / "model.json").read_text())["words"]
    ctx.metric("removed", len(known) - words)
    (ctx.output / "model.json").write_text(json.dumps({"words": known[:words]}))

@component(needs={"model": {"toy-lm"}, "teacher": {"toy-lm"}})
def healed(model: Model, teacher: Model, ctx: Context) -> None:
    """Learn back how many words there were."""
    own, whole = (json.loads((each.path / "model.json").read_text())["words"] for each in (model, teacher))
    (ctx.output / "model.json").write_text(json.dumps({"words": [*own, f"of {len(whole)}"]}))

@hookimpl
def luthier_architectures():
    return [talker]

@hookimpl
def luthier_pruners():
    return [terse]

@hookimpl
def luthier_tuners():
    return [healed]
'''
RECIPE = """\
luthier: 1
steps:
  - architecture: talker
  - prune: terse
    words: 2
  - tune: healed
    teacher: talker
"""


@pytest.fixture
def recipe(project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (project / "plugins.d" / "brief.py").write_text(PLUGIN)
    monkeypatch.setenv("LUTHIER_PLUGINS", "brief")
    (project / "recipe.yaml").write_text(RECIPE, encoding="utf-8")
    return project / "recipe.yaml"


def test_the_pruned_model_goes_on_and_the_one_before_teaches(recipe):
    done = luthier.run(recipe, display=False, jobs=1)
    assert json.loads((done.model_path / "model.json").read_text())["words"] == ["fire", "water", "of 3"]
    assert done.step("terse").metrics == {"removed": 1}
    assert done.step("terse").form == "toy-lm"


def test_a_model_must_be_there_to_be_pruned(recipe):
    recipe.write_text(RECIPE.replace("  - architecture: talker\n", ""), encoding="utf-8")
    with pytest.raises(RecipeError, match="prune:terse needs a model, but no earlier step gives one"):
        luthier.plan(recipe)
