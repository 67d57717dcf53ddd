"""Forms that follow from a configuration, and forms of inputs that do not go together: found while planning."""

from __future__ import annotations

import pytest

import luthier
from luthier.errors import InputError
from luthier.keys import Planned

PLUGIN = """
from luthier import InputError, component, hookimpl

def form_of(*, speaks):
    return "talker" if speaks else "mime"

def traits_of(*, speaks):
    return {"language": "Italian" if speaks else None, "nose": "red"}

@component(gives=form_of, traits=traits_of)
def clown(ctx, *, speaks: bool = True):
    "A model of two forms."
    ctx.output.joinpath("clown.json").write_text("{}")

def together(configuration, *, model, data):
    if model.form == "mime" and data.form == "language-modelling":
        raise InputError("a mime learns no words", "Let it speak.")

@component(needs={"model": {"talker", "mime"}}, check_inputs=together)
def rehearse(model, data, ctx):
    "Learn by heart."
    ctx.output.joinpath("clown.json").write_text("{}")

@component(gives={"talker": "radio", "mime": "film"}, needs={"model": {"talker", "mime"}})
def record(model, ctx):
    "Where it depends on what is recorded."
    ctx.output.joinpath("record.onnx").write_text("{}")

def applause(configuration, *, subject, data):
    together(configuration, model=subject, data=data)

@component(check_inputs=applause)
def laughter(subject, data, ctx):
    "Count it."

@component(gives="language-modelling")
def verses(frame):
    "Each text is one."
    return frame.select("id", "group", "text", split=__import__("polars").lit("train"))

def noses(configuration, *, model):
    if model.traits["nose"] == configuration["refused"]:
        raise InputError(f"no {model.traits['nose']} noses, in {model.traits['language']}", "Paint it.")

@component(check_inputs=noses)
def powder(model, ctx, *, refused: str = "blue"):
    "Make it another clown."
    ctx.output.joinpath("clown.json").write_text("{}")

@component(check_inputs=noses, traits=lambda **_: {"nose": "blue"})
def paint(model, ctx, *, refused: str = ""):
    "Of another colour."
    ctx.output.joinpath("clown.json").write_text("{}")

@hookimpl
def luthier_architectures():
    return [clown]

@hookimpl
def luthier_exporters():
    return [record]

@hookimpl
def luthier_tuners():
    return [rehearse, powder, paint]

@hookimpl
def luthier_validators():
    return [laughter]

@hookimpl
def luthier_formatters():
    return [verses]
"""


@pytest.fixture
def plan(project, monkeypatch):
    (project / "plugins.d" / "circus.py").write_text(PLUGIN)
    monkeypatch.setenv("LUTHIER_PLUGINS", "toys,circus")

    def make(steps: str) -> list[Planned]:
        (project / "recipe.yaml").write_text(f"luthier: 1\nname: circus\nsteps:\n  - source: words\n{steps}")
        return luthier.plan(project / "recipe.yaml")

    return make


def test_the_form_follows_from_the_configuration_and_is_kept(plan, run):
    steps = "  - architecture: clown\n    speaks: {}\n  - tune: rehearse\n"
    for speaks, form in (("true", "talker"), ("false", "mime")):
        nodes = [planned.node for planned in plan(steps.format(speaks))]
        assert [node.form for node in nodes if node.kind == "model"] == [form, form]
    assert run().model().form == "mime"


@pytest.mark.parametrize(("speaks", "form"), [("true", "radio"), ("false", "film")])
def test_the_form_follows_from_that_of_an_input(plan, speaks, form):
    *_, record = plan(f"  - architecture: clown\n    speaks: {speaks}\n  - export: record\n")
    assert record.node.form == form


def test_forms_that_do_not_go_together_are_refused_while_planning(plan):
    steps = "  - format: verses\n  - architecture: clown\n    speaks: {}\n  - tune: rehearse\n  - validate: laughter\n"
    plan(steps.format("true"))
    with pytest.raises(InputError) as caught:
        plan(steps.format("false"))
    assert "tune:rehearse: a mime learns no words; Let it speak." in str(caught.value)
    assert "validate:laughter: a mime learns no words" in str(caught.value)


def test_what_a_step_tells_of_its_result_reaches_the_steps_after_it(plan):
    steps = "  - architecture: clown\n  - tune: powder\n{}  - tune: powder\n    id: again\n    refused: {}\n"
    plan(steps.format("", "blue"))
    with pytest.raises(InputError, match=r"again: tune:powder: no red noses, in Italian; Paint it\."):
        plan(steps.format("", "red"))
    with pytest.raises(InputError, match="again: tune:powder: no blue noses, in Italian"):
        plan(steps.format("  - tune: paint\n", "blue"))
    plan(steps.format("  - tune: paint\n", "red"))


def test_traits_that_cannot_be_told_are_the_plugins_fault(project, plan):
    (project / "plugins.d" / "circus.py").write_text(PLUGIN.replace('"nose": "red"', '"nose": nose'))
    with pytest.raises(luthier.errors.PluginError, match=r"its `traits` failed: NameError.*\n  See traits_of "):
        plan("  - architecture: clown\n")


def test_what_is_missing_is_said_once(plan):
    with pytest.raises(InputError, match="tune:rehearse needs a model, but no earlier step gives one"):
        plan("  - format: verses\n  - tune: rehearse\n")


def test_a_form_that_cannot_be_told_is_the_plugins_fault(project, plan):
    broken = PLUGIN.replace('"talker" if speaks else "mime"', "forms[speaks]")
    (project / "plugins.d" / "circus.py").write_text(broken)
    with pytest.raises(luthier.errors.PluginError, match=r"its `gives` failed: NameError.*\n  See form_of "):
        plan("  - architecture: clown\n")
