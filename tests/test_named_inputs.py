"""Inputs that a recipe names: `teacher: STEP`, in recipes, plans, keys, the cache, the schema."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest

import luthier
from luthier.nodes import RecipeError
from luthier.plugins import Registry, load_plugins
from luthier.schema import example_step, recipe_schema

PLUGIN = '''
import json

from luthier import Context, Model, component, hookimpl

@component(gives="toy-lm")
def blank(ctx: Context, *, knows: str = "nothing") -> None:
    """A model of one word."""
    (ctx.output / "model.json").write_text(json.dumps({"word": knows}))

@component(gives="other-lm")
def stranger(ctx: Context) -> None:
    """A model that nothing here can read."""
    (ctx.output / "model.json").write_text("{}")

# The teacher comes first: whose form the result has must not hang on the order.
@component(needs={"model": {"toy-lm"}, "teacher": {"toy-lm", "wise-lm"}})
def imitate(teacher: Model, model: Model, ctx: Context, *, louder: bool = False) -> None:
    """Say what the teacher says.

    Args:
        teacher: who is imitated.
        louder: in capitals.
    """
    said = json.loads((teacher.path / "model.json").read_text())["word"]
    own = json.loads((model.path / "model.json").read_text())["word"]
    (ctx.output / "model.json").write_text(json.dumps({"word": f"{own} and {said.upper() if louder else said}"}))

@component(gives="wise-lm")
def grow(model: Model, ctx: Context, *, steps: int = 1) -> None:
    """Know better, whatever the steps."""
    (ctx.output / "model.json").write_text(json.dumps({"word": "better"}))

@hookimpl
def luthier_architectures():
    return [blank, stranger]

@hookimpl
def luthier_tuners():
    return [imitate, grow]
'''
RECIPE = """\
luthier: 1
steps:
  - architecture: blank
    id: elder
    knows: fire
  - tune: grow
  - architecture: blank
    knows: water
  - tune: imitate
    teacher: {teacher}
"""

Write = Callable[[str], Path]


@pytest.fixture
def write(project: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    (project / "plugins.d" / "school.py").write_text(PLUGIN)
    monkeypatch.setenv("LUTHIER_PLUGINS", "school,toys")

    def put(text: str) -> Path:
        (project / "recipe.yaml").write_text(text, encoding="utf-8")
        return project / "recipe.yaml"

    return put


@pytest.fixture
def registry(write: Write, project: Path) -> Registry:
    return load_plugins(local=[project / "plugins.d" / "school.py"], environ={"LUTHIER_PLUGINS": "school"})


def run(recipe: Path, **options: Any) -> luthier.Run:
    return luthier.run(recipe, display=False, jobs=1, **options)


def word(run: luthier.Run) -> str:
    return str(json.loads((run.model_path / "model.json").read_text())["word"])


def problems(recipe: Path, **overrides: Any) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        luthier.plan(recipe, overrides=overrides)
    return str(caught.value).splitlines()


@pytest.mark.parametrize(("teacher", "said"), [("elder", "fire"), ("grow", "better"), ("blank", "water")])
def test_the_named_step_gives_it_and_the_newest_is_the_model(write, teacher, said):
    done = run(write(RECIPE.format(teacher=teacher)))
    assert word(done) == f"water and {said}"
    # The form is the model's, not the teacher's.
    assert done.model().form == "toy-lm"


def test_a_step_may_be_named_by_its_stage_and_set_from_the_command_line(write):
    assert word(run(write(RECIPE.format(teacher="elder")), overrides={"imitate.teacher": "tune"})) == "water and better"


def test_its_content_is_in_the_key(write):
    recipe = write(RECIPE.format(teacher="grow"))
    run(recipe)
    # A step that is done again with the same result changes nothing after it.
    again = run(recipe, overrides={"grow.steps": 2})
    assert {step.id: step.cached for step in again.steps} == {
        "elder": True,
        "grow": False,
        "blank": True,
        "imitate": True,
    }
    planned = {each.node.id: each for each in luthier.plan(recipe, overrides={"imitate.teacher": "elder"})}
    assert planned["imitate"].why == "its input changed: teacher"
    planned = {each.node.id: each for each in luthier.plan(recipe, force=["grow"])}
    assert planned["imitate"].told == "depends on grow"


@pytest.mark.parametrize(
    ("teacher", "expected"),
    [
        ("eldr", "recipe.yaml:10:5: steps[3].teacher: no step is called 'eldr'; did you mean 'elder'?"),
        ("hf:org/large", "steps[3].teacher: no step is called 'hf:org/large'; earlier steps: elder, grow, blank; "),
        ("hf:org/large", "what comes from elsewhere has an `architecture` step of its own"),
        ("imitate", "recipe.yaml:10:5: steps[3].teacher: 'imitate' is not an earlier step; move it up"),
        ("architecture", "steps[3].teacher: 'architecture' could be any of the steps elder, blank"),
        ("[elder]", "recipe.yaml:10:5: steps[3].teacher: the id of an earlier step, not ['elder']"),
    ],
)
def test_a_step_that_is_not_there_is_told_with_its_place(write, teacher, expected):
    assert any(expected in line for line in problems(write(RECIPE.format(teacher=teacher))))


def test_it_cannot_be_left_out(write):
    text = RECIPE.format(teacher="x").replace("    teacher: x\n", "")
    assert any(
        "recipe.yaml:9:5: steps[3].teacher: required, but missing; write `teacher: STEP`" in line
        for line in problems(write(text))
    )


def test_what_gives_no_model_or_one_of_another_form_is_refused(write):
    text = RECIPE.format(teacher="x").replace(
        "  - architecture: blank\n    id", "  - source: words\n  - architecture: blank\n    id", 1
    )
    told = problems(write(text), **{"imitate.teacher": "words"})
    assert any(
        "the teacher of tune:imitate is a model, and 'words' gives a dataset; Steps that give one: elder, grow, blank."
        in line
        for line in told
    )
    told = problems(write(text.replace("teacher: x", "teacher: words")))
    assert any("recipe.yaml:11:5: imitate.teacher: " in line for line in told)
    text = RECIPE.format(teacher="stranger").replace("steps:\n", "steps:\n  - architecture: stranger\n")
    told = problems(write(text))
    assert any("takes teacher of the form toy-lm or wise-lm; 'stranger' gives other-lm" in line for line in told)
    assert any("name another step with `teacher:`" in line for line in told)


def test_a_component_that_asks_for_none_has_no_such_key(write):
    text = RECIPE.format(teacher="elder").replace("  - tune: grow\n", "  - tune: grow\n    teacher: elder\n")
    assert any(
        "recipe.yaml:7:5: steps[1].teacher: tune:grow takes no teacher" in line for line in problems(write(text))
    )


def test_a_step_that_could_not_be_read_is_not_held_against_its_pupil(write):
    text = RECIPE.format(teacher="grow").replace("  - tune: grow\n", "  - tune: grow\n    stepz: 3\n")
    told = problems(write(text))
    assert len(told) == 1
    assert "unknown key" in told[0]


def test_the_schema_and_the_example_have_the_key(registry):
    schema = recipe_schema(registry)
    head = {"luthier": 1, "steps": [{"architecture": "blank", "id": "elder"}]}
    good, bad = (
        {**head, "steps": [*head["steps"], {"tune": "imitate", **more}]} for more in ({"teacher": "elder"}, {})
    )
    jsonschema.validate(good, schema)
    with pytest.raises(jsonschema.ValidationError, match="'teacher' is a required property"):
        jsonschema.validate(bad, schema)
    described = schema["$defs"]["tune.imitate"]["properties"]["teacher"]["description"]
    assert described == "The step that gives it: who is imitated."
    assert "teacher" not in schema["$defs"]["tune.grow"]["properties"]
    assert "  teacher: …\n" in example_step(registry.find("tune", "imitate"))
