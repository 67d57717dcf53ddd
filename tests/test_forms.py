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

@component(gives=form_of)
def clown(ctx, *, speaks: bool = True):
    "A model of two forms."
    ctx.output.joinpath("clown.json").write_text("{}")

def together(*, model, data):
    if model == "mime" and data == "language-modelling":
        raise InputError("a mime learns no words", "Let it speak.")

@component(needs={"model": {"talker", "mime"}}, check_forms=together)
def rehearse(model, data, ctx):
    "Learn by heart."
    ctx.output.joinpath("clown.json").write_text("{}")

@component(gives={"talker": "radio", "mime": "film"}, needs={"model": {"talker", "mime"}})
def record(model, ctx):
    "Where it depends on what is recorded."
    ctx.output.joinpath("record.onnx").write_text("{}")

def applause(*, subject, data):
    together(model=subject, data=data)

@component(check_forms=applause)
def laughter(subject, data, ctx):
    "Count it."

@component(gives="language-modelling")
def verses(frame):
    "Each text is one."
    return frame.select("id", "group", "text", split=__import__("polars").lit("train"))

@hookimpl
def luthier_architectures():
    return [clown]

@hookimpl
def luthier_exporters():
    return [record]

@hookimpl
def luthier_tuners():
    return [rehearse]

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


def test_what_is_missing_is_said_once(plan):
    with pytest.raises(InputError, match="tune:rehearse needs a model, but no earlier step gives one"):
        plan("  - format: verses\n  - tune: rehearse\n")


def test_a_form_that_cannot_be_told_is_the_plugins_fault(project, plan):
    broken = PLUGIN.replace('"talker" if speaks else "mime"', "forms[speaks]")
    (project / "plugins.d" / "circus.py").write_text(broken)
    with pytest.raises(luthier.errors.PluginError, match=r"its `gives` failed: NameError.*\n  See form_of "):
        plan("  - architecture: clown\n")
