"""`luthier runs diff`: which recipe line, data, plugin or library changed, and what it did to the metrics."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest
from typer.testing import CliRunner

from luthier import rundiff
from luthier.cli import app
from luthier.runs import Run, find_run

RECIPE = """\
luthier: 1
name: toys
steps:
  - source: words
    count: 300
  - format: riddles
  - architecture: parrot
  - tune: teach
    steps: 2
  - export: freeze
  - validate: accuracy
    split: train
    gate:
      accuracy: {at_least: 0.9}
"""


@pytest.fixture
def cli(project):
    return lambda *arguments: CliRunner().invoke(app, [str(each) for each in arguments])


@pytest.fixture
def first(project, run) -> Run:
    (project / "recipe.yaml").write_text(RECIPE)
    return run()


def copy(run: Run, name: str, change=lambda data: None) -> Run:
    """The same run under another name, as if something of it had been otherwise."""
    path = run.path.with_name(name)
    shutil.copytree(run.path, path)
    other = Run.at(path)
    other._data = replace(other.data, id=name)
    change(other.data)
    other.save()
    return other


def told(run, kind, *, after):
    return [change for change in rundiff.compare(run, after)["changes"] if change["kind"] == kind]


def test_the_lines_of_both_recipes_the_data_and_what_they_did(cli, project, run, first):
    changed = RECIPE.replace("count: 300", "count: 290")
    (project / "recipe.yaml").write_text(f"# a comment, which is no change\n{changed}")
    options = ("--set", "teach.steps=3", "--set", "freeze.lossy=true")
    assert cli("run", "recipe.yaml", "--quiet", *options).exit_code == 4
    second = find_run(first.store, "latest")
    lines = {change["step"]: change for change in told(first, "configuration", after=second)}
    words, teach = lines["words"], lines["teach"]
    assert (words["name"], words["before"], words["after"]) == ("count", 300, 290)
    assert words["lines"] == {"before": ["recipe.yaml:5: count: 300"], "after": ["recipe.yaml:8: count: 290"]}
    assert teach["lines"] == {"before": ["recipe.yaml:9: steps: 2"], "after": ["recipe.yaml:1: # --set teach.steps=3"]}
    data = next(change for change in told(first, "input", after=second) if change["step"] == "riddles")
    assert (data["before"]["rows"], data["after"]["rows"]) == (300, 290)
    assert (data["before"]["columns"], data["before"]["from"]) == (4, "words")
    difference = rundiff.compare(first, second)
    assert [(gate["before"], gate["after"]) for gate in difference["gates"]] == [(True, False)]
    # The examples are others, so there is nothing to pair.
    assert difference["intervals"] == []
    text = cli("runs", "diff", first.id, second.id).stdout
    assert "A  recipe.yaml:5: count: 300" in text
    assert "input data: data 300 rows, 4 columns" in text
    assert "passed → refused" in text
    assert "different recipes" not in text
    assert json.loads(cli("runs", "diff", first.id, second.id, "--json").stdout) == difference


def test_the_same_examples_are_compared_in_pairs(cli, first):
    assert cli("run", "recipe.yaml", "--quiet", "--set", "freeze.lossy=true").exit_code == 4
    second = find_run(first.store, "latest")
    (interval,) = rundiff.compare(first, second)["intervals"]
    assert (interval["step"], interval["metric"]) == ("accuracy", "accuracy")
    assert interval["low"] <= interval["difference"] <= interval["high"] < 0
    back = rundiff.interval(second, first, "accuracy", "accuracy")
    assert back is not None
    assert back[0] > 0
    assert "ITS 95% INTERVAL" in cli("runs", "diff", first.id, second.id).stdout
    assert rundiff.interval(first, second, "teach", "steps") is None  # Not measured on examples.


def test_code_libraries_seed_and_platform(cli, first):
    def change(data):
        for step in data.steps:
            for node in step.nodes:
                part = node.ingredients["parts"][node.part]
                if step.id == "teach":
                    part["code"], part["requires"] = "ff" * 32, {"torch": "2.13.0"}
                    node.ingredients["platform"] = "arm64 darwin"
                if "seed" in node.ingredients:
                    node.ingredients["seed"] = 8
        data.environment["distributions"]["pluggy"] = "0.0.1"

    second = copy(first, "second", change)
    (code,) = told(first, "code", after=second)
    assert (code["step"], code["name"], code["after"]["code"]) == ("teach", "toys", "ff" * 32)
    assert code["before"]["version"] == "toys.py"
    (library,) = told(first, "library", after=second)
    assert (library["name"], library["before"], library["after"]) == ("torch", None, "2.13.0")
    assert {change["before"] for change in told(first, "seed", after=second)} == {0}
    (platform,) = told(first, "platform", after=second)
    assert platform["after"] == "arm64 darwin"
    environment = rundiff.compare(first, second)["environment"]
    assert [(each["name"], each["after"]) for each in environment] == [("pluggy", "0.0.1")]
    text = cli("runs", "diff", first.id, "second").stdout
    assert text.count("seed: 0 → 8") == 1  # Not once for each step.
    assert "library version: torch absent → 2.13.0" in text
    assert "code: toys toys.py (" in text
    assert "in no step's key" in text


def test_content_behind_a_location_is_data(first):
    def behind(letter):
        def change(data):
            data.steps[0].nodes[0].ingredients["parts"][0]["config"]["path"] = f"sha256:{letter * 64}"

        return change

    one, other = copy(first, "one", behind("a")), copy(first, "other", behind("b"))
    (change,) = rundiff.compare(one, other)["changes"]
    assert (change["kind"], change["name"]) == ("data", "path")


def test_runs_of_different_recipes_are_compared_and_it_is_said(cli, first):
    def change(data):
        data.recipe = "others"
        data.steps = [step for step in data.steps if step.id != "teach"]

    copy(first, "other", change)
    text = cli("runs", "diff", first.id, "other").stdout
    assert text.startswith("different recipes, toys and others: steps are compared by their ids")
    assert "only in A: tune: teach" in text
    assert "A  recipe.yaml:8: - tune: teach" in text


def test_the_same_run_differs_in_nothing_and_an_unknown_one_is_told(cli, first):
    assert "the same steps, done the same way" in cli("runs", "diff", first.id, "latest").stdout
    unknown = cli("runs", "diff", first.id, "20200101")
    assert unknown.exit_code == 1
    assert "there is no run '20200101'" in unknown.stderr
