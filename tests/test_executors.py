"""A step that several processes do at once: who calls it, what of it is heard, what is wrong with it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import luthier
from luthier import InputError, PluginError
from luthier.core_stages import STAGES
from luthier.declaration import component as declare
from luthier.nodes import RecipeError
from luthier.plugins import load_plugins
from luthier.registering import read_component
from luthier.schema import example_step, recipe_schema

STAGE = {stage.label: stage for stage in STAGES}
RECIPE = """
luthier: 1
steps:
  - architecture: parrot
  - tune: choir
"""


@pytest.fixture
def sing(project):
    """Run the recipe of a choir with more lines for its last step; gives the run, and hears what it logs."""

    def call(*lines: str, **options) -> luthier.Run:
        recipe = project / "choir.yaml"
        recipe.write_text(RECIPE + "".join(f"    {line}\n" for line in lines))
        return luthier.run(recipe, display=False, jobs=1, **options)

    return call


def voices(run: luthier.Run) -> dict[str, dict[str, int]]:
    return json.loads((run.model().path / "model.json").read_text())


def test_every_process_calls_the_component_and_the_first_one_gives_the_result(sing):
    run = sing("processes: 3", "executor: one-by-one")
    assert sorted(voices(run)) == ["0", "1", "2"]
    assert run.metrics["choir"] == {"voices": 3}
    events = [json.loads(line) for line in (run.path / "events.jsonl").read_text().splitlines()]
    assert [event["message"] for event in events if event["type"] == "step_log"] == ["process 0 sings"]
    assert [event["done"] for event in events if event["type"] == "step_progress"] == [0]


def test_one_process_too_goes_where_the_recipe_says(sing):
    assert sorted(voices(sing("processes: 1", "executor: one-by-one"))) == ["0"]
    with pytest.raises(luthier.LuthierError, match="executor:forgetful ended with 0 of 1 processes done"):
        sing("processes: 1", "executor: {name: forgetful, told: 0}", force=["choir"])


def test_a_device_is_only_asked_for_where_no_executor_may_have_one(sing):
    with pytest.raises(luthier.LuthierError, match="there is no cuda here"):
        sing("processes: 1", device="cuda")
    assert sing("processes: 1", "executor: one-by-one", device="cuda").state == "done"


def test_where_it_runs_is_not_what_it_gives(sing):
    first = sing("processes: 1")
    again = sing("processes: 1", "executor: forgetful")
    assert again.path == first.path, "a run with nothing to do is none"


@pytest.mark.parametrize(
    ("fail", "error", "told"),
    [
        ("refuse", InputError, "the last voice is hoarse"),
        ("value", luthier.LuthierError, "ValueError: the last voice is hoarse at .*toys.py"),
    ],
)
def test_an_error_of_any_process_is_the_steps(sing, fail, error, told):
    with pytest.raises(luthier.LuthierError, match=told) as raised:
        sing("processes: 2", "executor: one-by-one", f"fail: {fail}")
    assert raised.value.exit_code == (1 if fail == "refuse" else 3)
    assert "this is a bug" in raised.value.remedy.lower() or "honey" in raised.value.remedy


def test_an_executor_that_ends_before_its_processes_is_told(sing):
    with pytest.raises(luthier.LuthierError, match="executor:forgetful ended with 1 of 3 processes done"):
        sing("processes: 3", "executor: forgetful")


def test_a_store_that_a_process_cannot_reach_is_told(project):
    from luthier.jobs import Job

    heard = []
    request = {"stage": "tune", "component": "choir", "config": {}, "inputs": {}, "checkpoint": "/not/there"}
    Job(2, "cpu", request).do(1, heard.append)
    assert heard[0]["type"] == "error"
    assert heard[0]["refused"]
    assert heard[0]["message"].startswith("/not/there is not there on ")
    assert "file system that all the machines share" in heard[0]["remedy"]


def test_several_processes_need_somebody_who_starts_them(sing):
    with pytest.raises(RecipeError, match=r"processes: no executor component is called 'local'.*luthier-tune"):
        sing("processes: 2")
    assert sorted(voices(sing("processes: 1"))) == ["0"]


@pytest.mark.slow
def test_the_default_executor_starts_them_on_this_machine(monkeypatch, sing):
    monkeypatch.setenv("LUTHIER_PLUGINS", "toys,tune")
    run = sing("processes: 2")
    expected = {str(rank): {"RANK": rank, "WORLD_SIZE": 2, "LOCAL_RANK": rank} for rank in (0, 1)}
    assert voices(run) == expected
    with pytest.raises(luthier.LuthierError, match="process 1 of 2 exited with status 7 in the middle of its work"):
        sing("processes: 2", "fail: exit")
    with pytest.raises(luthier.LuthierError, match="the last voice is hoarse"):
        sing("processes: 2", "fail: refuse")


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("executor: forgetfull", "did you mean 'forgetful'"),
        ("executor: 7", "the name of an executor"),
        ("executor: {name: forgetful, tld: 1}", "did you mean 'told'"),
        ("executor: {name: forgetful, told: many}", "a valid integer"),
    ],
)
def test_a_wrong_executor_is_found_before_the_work(sing, line, told):
    with pytest.raises(RecipeError, match=told):
        sing(line)


def test_a_component_of_one_process_has_no_executor(project):
    recipe = project / "one.yaml"
    recipe.write_text("luthier: 1\nsteps:\n  - architecture: parrot\n    executor: forgetful\n")
    with pytest.raises(
        RecipeError,
        match=r"architecture:parrot runs where the worker does.*tune:choir can be done by several processes",
    ):
        luthier.plan(recipe)


def test_the_schema_and_the_examples_know_executors(project):
    registry = load_plugins(local=[project / "plugins.d" / "toys.py"])
    steps = recipe_schema(registry)["$defs"]
    assert steps["tune.choir"]["properties"]["executor"]["anyOf"][0] == {"enum": ["forgetful", "one-by-one"]}
    assert "executor" not in steps["architecture.parrot"]["properties"]
    shown = example_step(registry.find("executor", "forgetful"))
    assert shown.splitlines()[2:] == [
        "  executor: forgetful",
        "  # or with its parameters: {name: forgetful, told: 1}",
    ]


def plain(job):
    """No generator."""
    return []


@declare(processes=True)
def single(model, ctx):
    """Without the parameter."""


@declare(processes=True)
def silent(model, *, processes: int = 1):
    """Without ctx."""


@pytest.mark.parametrize(
    ("function", "stage", "told"),
    [
        (plain, "executor", "is not a generator function"),
        (single, "tune", "declares processes, but it has no parameter"),
        (silent, "tune", "declares processes, but only what makes a model, and asks for `ctx`"),
    ],
)
def test_what_cannot_be_called_so_is_refused(function, stage, told):
    with pytest.raises(PluginError, match=told):
        read_component(function, STAGE[stage], distribution="", version="", plugin="")


def test_there_is_no_template_for_an_executor():
    from luthier.scaffold import Naming, find_stage, write

    with pytest.raises(InputError, match="there is no template for the stage 'executor'"):
        write(Naming.of("cluster"), find_stage("executor"), Path())
