"""`luthier runs diff`: which recipe line, data, plugin or library changed, and what it did to the metrics."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

import luthier
from luthier import resultdiff, rundiff
from luthier.cli import app
from luthier.runrecord import GateResult
from luthier.runs import Run, find_run, list_runs
from luthier.store import Store

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


GATE = "accuracy: {at_least: 0.9}"
FUSED = RECIPE.replace("  - format", "  - clean: longer\n    at_least: 20\n  - clean: capitals\n  - format")


@pytest.fixture
def cli(project):
    return lambda *arguments: CliRunner().invoke(app, [str(each) for each in arguments])


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A store with one run of the recipe; made once, since no test changes that run."""
    directory = tmp_path_factory.mktemp("made")
    (directory / "recipe.yaml").write_text(RECIPE)
    (directory / "plugins.d").mkdir()
    shutil.copy(Path(__file__).parent / "toys" / "toys.py", directory / "plugins.d")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LUTHIER_PLUGINS", "toys")
        patch.setenv("LUTHIER_CACHE", str(directory / "cache"))
        patch.delenv("LUTHIER_HOME", raising=False)
        luthier.run(directory / "recipe.yaml", display=False, jobs=1)
    return directory / ".luthier"


@pytest.fixture
def first(project, made) -> Run:
    (project / "recipe.yaml").write_text(RECIPE)
    shutil.copytree(made, project / ".luthier", symlinks=True)
    return find_run(Store(project / ".luthier"), "latest")


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


def test_two_data_runs_are_told_apart_by_their_documents(cli, project, run):
    (project / "recipe.yaml").write_text(RECIPE)
    first = run(until="riddles")
    second = run(until="riddles", overrides={"words.count": 1290})
    counts = rundiff.compare(first, second)["counts"]
    assert {"step": "words", "name": "added", "before": 300, "after": 1290} in counts
    assert {"step": "riddles", "name": "documents_in", "before": 300, "after": 1290} in counts
    assert all(each["before"] != each["after"] for each in counts)
    text = cli("runs", "diff", first.id, second.id).stdout
    rows = [line.split() for line in text.splitlines()]
    assert ["riddles", "in", "300", "1,290", "+990"] in rows
    assert json.loads(cli("runs", "diff", first.id, second.id, "--json").stdout)["counts"] == counts
    without = copy(first, "without", lambda data: data.steps.pop(1))
    absent = [each for each in rundiff.compare(without, second)["counts"] if each["step"] == "riddles"]
    assert {each["before"] for each in absent} == {None}
    assert "DOCUMENTS" not in cli("runs", "diff", first.id, first.id).stdout


def test_the_same_examples_are_compared_in_pairs(cli, first):
    assert cli("run", "recipe.yaml", "--quiet", "--set", "freeze.lossy=true").exit_code == 4
    second = find_run(first.store, "latest")
    found = {(each["step"], each["metric"]): each for each in rundiff.compare(first, second)["intervals"]}
    assert set(found) == {("accuracy", "accuracy"), ("accuracy", "initials")}
    interval = found["accuracy", "accuracy"]
    assert interval["low"] <= interval["difference"] <= interval["high"] < 0
    back = resultdiff.interval(second, first, "accuracy", "accuracy")
    assert back is not None
    assert back[0] > 0
    assert "ITS 95% INTERVAL" in cli("runs", "diff", first.id, second.id).stdout
    assert resultdiff.interval(first, second, "teach", "steps") is None  # Not measured on examples.


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
    # The recipe does not say the default.
    assert all(change["lines"] == {"before": [], "after": []} for change in told(first, "seed", after=second))
    (platform,) = told(first, "platform", after=second)
    assert platform["after"] == "arm64 darwin"
    environment = rundiff.compare(first, second)["environment"]
    assert [(each["name"], each["after"]) for each in environment] == [("pluggy", "0.0.1")]
    text = cli("runs", "diff", first.id, "second").stdout
    assert text.count("seed: 0 → 8") == 1  # Not once for each step.
    assert "library version: torch absent → 2.13.0" in text
    assert "code: toys toys.py (" in text
    assert "in no step's key" in text


def test_the_seed_has_a_line_where_the_recipe_says_it(cli, project, run):
    (project / "recipe.yaml").write_text(RECIPE.replace("name: toys", "name: toys\nseed: 4"))
    seeded = run(until="words")
    (project / "recipe.yaml").write_text(RECIPE)
    (change,) = told(seeded, "seed", after=run(until="words"))
    assert (change["before"], change["after"]) == (4, 0)
    assert change["lines"] == {"before": ["recipe.yaml:3: seed: 4"], "after": []}


def test_a_library_that_a_key_has_is_told_once(first):
    def at(version, own):
        def change(data):
            teach = next(step for step in data.steps if step.id == "teach").nodes[0]
            teach.ingredients["parts"][0]["requires"] = {
                "fast-words": version,
                "luthier-words": f"{version} {'ab' * 32}",
            }
            data.environment["distributions"] |= {"Fast_Words": version, "luthier_words": version, "other": version}
            data.environment["environments"] = {"luthier-optimum": {"fast-words": own}}

        return change

    one, other = copy(first, "one", at("1.0", "1.0")), copy(first, "other", at("2.0", "2.0"))
    assert [change["name"] for change in told(one, "library", after=other)] == ["fast-words", "luthier-words"]
    assert [each["name"] for each in rundiff.compare(one, other)["environment"]] == ["other"]
    # Another version of it in an environment of its own is no part of what the step's key told.
    third = copy(first, "third", at("2.0", "3.0"))
    rows = [each["name"] for each in rundiff.compare(one, third)["environment"]]
    assert rows == ["other", "fast-words in the environment of luthier-optimum"]


# --- what no key holds --------------------------------------------------------------------------------


def rewritten(first, name, old, new):
    """The first run, as if its recipe had said something else."""
    other = copy(first, name)
    path = other.path / "recipe.yaml"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    return other


def test_a_gate_that_was_loosened_is_told_with_its_lines(cli, project, run):
    (project / "recipe.yaml").write_text(RECIPE.replace("0.9", "1.9"))
    assert cli("run", "recipe.yaml", "--quiet").exit_code == 4
    (project / "recipe.yaml").write_text(RECIPE.replace("0.9", "0.5"))
    loose = run()
    strict = next(each for each in list_runs(loose.store) if each.id != loose.id)
    difference = rundiff.compare(strict, loose)
    assert difference["states"] == {"before": "refused", "after": "done"}
    (change,) = difference["changes"]
    assert (change["step"], change["kind"], change["name"]) == ("accuracy", "gate", "accuracy.at_least")
    assert (change["before"], change["after"]) == (1.9, 0.5)
    assert change["lines"]["before"] == ["recipe.yaml:14: accuracy: {at_least: 1.9}"]
    assert change["lines"]["after"] == ["recipe.yaml:14: accuracy: {at_least: 0.5}"]
    assert [(gate["before"], gate["after"]) for gate in difference["gates"]] == [(False, True)]
    text = cli("runs", "diff", strict.id, loose.id).stdout
    assert "A is refused, B is done" in text
    assert "  gate: accuracy.at_least 1.9 → 0.5\n    A  recipe.yaml:14" in text
    assert "refused → passed" in text
    assert "the same steps" not in text


def test_the_same_bound_in_other_words_is_no_change(first):
    several = "accuracy: [{at_least: base + 0.10}, {at_least: 0.9}]"
    one = rewritten(first, "one", GATE, several)
    assert told(one, "gate", after=rewritten(first, "other", GATE, several.replace("base + 0.10", "base+.1"))) == []
    (change,) = told(one, "gate", after=rewritten(first, "third", GATE, several.replace("0.9", "0.8")))
    assert (change["name"], change["before"], change["after"]) == ("accuracy[1].at_least", 0.9, 0.8)
    removed = told(first, "gate", after=rewritten(first, "without", f"    gate:\n      {GATE}\n", ""))
    assert [(change["after"], change["lines"]["after"]) for change in removed] == [(None, [])]


def test_a_bound_that_a_set_or_a_variable_brought_in_is_told(cli, project, run, monkeypatch):
    (project / "recipe.yaml").write_text(RECIPE.replace(GATE, "accuracy:\n        at_least: ${env:BOUND}"))
    monkeypatch.setenv("BOUND", "0.9")
    first = run()
    monkeypatch.setenv("BOUND", "0.8")
    second = run()
    (change,) = told(first, "gate", after=second)
    assert (change["name"], change["before"], change["after"]) == ("accuracy", "at least 0.9", "at least 0.8")
    third = run(overrides={"accuracy.gate.accuracy.at_least": 0.7})
    (change,) = told(second, "gate", after=third)
    assert change["lines"]["after"] == ["recipe.yaml:1: # --set accuracy.gate.accuracy.at_least=0.7"]


def test_gates_are_paired_by_what_they_hold_and_then_by_their_order(first):
    def judged(*bounds):
        def change(data):
            data.gates = [GateResult("accuracy", "accuracy", 0.5, text, passed, "") for text, passed in bounds]

        return change

    one = copy(first, "one", judged(("at least 0.4", True), ("at most 0.4", False)))
    fewer = copy(first, "fewer", judged(("at most 0.3", False)))
    assert rundiff.compare(one, fewer)["gates"] == []
    tighter = copy(first, "tighter", judged(("at least 0.6", False), ("at most 0.4", False)))
    (flipped,) = rundiff.compare(one, tighter)["gates"]
    assert (flipped["bound"], flipped["before"], flipped["after"]) == ("at least 0.6", True, False)


@pytest.mark.parametrize(
    ("kind", "said", "value"),
    [("subjects", "[candidate]", ["candidate"]), ("environment", "main", "main"), ("from", "riddles", "riddles")],
)
def test_keys_that_are_in_no_key_of_a_step_are_told(first, kind, said, value):
    other = rewritten(first, "other", "    split: train", f"    split: train\n    {kind}: {said}")
    (change,) = rundiff.compare(first, other)["changes"]
    assert (change["kind"], change["name"], change["before"], change["after"]) == (kind, kind, None, value)
    assert change["lines"] == {"before": [], "after": [f"recipe.yaml:13: {kind}: {said}"]}


def test_another_runtime_is_told_once_with_its_line(first):
    def change(data):
        candidate = next(node for node in data.steps[-1].nodes if node.subject == "candidate")
        candidate.ingredients["runtimes"]["subject"] |= {"component": "slow", "config": {"threads": 1}}

    other = copy(first, "other", change)
    path = other.path / "recipe.yaml"
    path.write_text(RECIPE.replace("split: train", "split: train\n    runtime: {name: slow, threads: 1}"))
    name, threads = told(first, "runtime", after=other)
    assert (name["name"], name["before"], name["after"]) == ("runtime", "onnxruntime-genai", "slow")
    assert (threads["name"], threads["before"], threads["after"]) == ("threads", None, 1)
    for change in (name, threads):
        assert change["lines"]["after"] == ["recipe.yaml:13: runtime: {name: slow, threads: 1}"]


# --- fused passes -------------------------------------------------------------------------------------


def test_a_pass_tells_its_input_once_and_each_step_its_own_changes(cli, project, run):
    (project / "recipe.yaml").write_text(FUSED)
    first = run(until="riddles")
    second = run(until="riddles", overrides={"words.count": 290, "capitals.word": "delta"})
    (change,) = told(first, "input", after=second)
    assert (change["step"], change["after"]["from"]) == ("longer", "words")
    words = {step["id"]: step["change"] for step in rundiff.compare(first, second)["steps"]}
    assert words["longer"] == "its input changed: data"
    assert words["capitals"] == 'configuration changed: word "cedar" → "delta"'
    # The last of the pass has another result because of what stands before it.
    assert "riddles" not in words
    assert told(first, "result", after=second) == []


def test_steps_that_another_until_fused_otherwise_are_compared(project, run):
    (project / "recipe.yaml").write_text(FUSED)
    whole = run(until="riddles")
    part = run(until="longer", overrides={"longer.at_least": 25})
    (change,) = told(whole, "configuration", after=part)
    assert (change["step"], change["name"], change["after"]) == ("longer", "at_least", 25)


def test_content_behind_a_location_is_data(first):
    def behind(letter):
        def change(data):
            data.steps[0].nodes[0].ingredients["parts"][0]["config"]["path"] = f"sha256:{letter * 64}"

        return change

    one, other = copy(first, "one", behind("a")), copy(first, "other", behind("b"))
    (change,) = rundiff.compare(one, other)["changes"]
    assert (change["kind"], change["name"]) == ("data", "path")


def test_a_plan_says_data_where_a_local_file_changed(cli, project):
    words = project / "words.txt"
    words.write_text("kelp")
    (project / "recipe.yaml").write_text(RECIPE.replace("count: 300", "count: 300\n    path: words.txt"))
    cli("run", "recipe.yaml", "--quiet", "--until", "words")
    before = hashlib.sha256(words.read_bytes()).hexdigest()[:12]
    words.write_text("lagoon")
    after = hashlib.sha256(words.read_bytes()).hexdigest()[:12]
    assert f"runs (data changed: path {before} → {after})" in cli("plan", "recipe.yaml").stdout.replace("\n", " ")


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
