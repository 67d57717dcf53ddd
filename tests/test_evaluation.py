"""`luthier evaluate`: the champion is measured again, and held against what it measured when it was promoted."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

import luthier
from luthier import InputError
from luthier.cli import app

LOADS = 'return Memory(onnx.path / "frozen.json")'
FORGETS = "Memory._known = property(lambda self: {}, lambda self, known: None)\n    " + LOADS
TOYS = Path(__file__).parent / "toys"


@pytest.fixture(scope="session")
def promoted(tmp_path_factory):
    """A project whose recipe was run, and its model promoted."""
    place = tmp_path_factory.mktemp("evaluated")
    (place / "plugins.d").mkdir()
    shutil.copy(TOYS / "toys.py", place / "plugins.d")
    shutil.copy(TOYS / "recipe.yaml", place)
    (place / "more.txt").write_text("kudos lemon")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LUTHIER_PLUGINS", "toys")
        patch.delenv("LUTHIER_HOME", raising=False)
        patch.chdir(place)
        luthier.promote(luthier.run("recipe.yaml", display=False, jobs=1))
    return place


@pytest.fixture
def champion(promoted, project):
    shutil.copytree(promoted, project, dirs_exist_ok=True)
    return luthier.find_champion()


def evaluate(**options):
    return luthier.evaluate("recipe.yaml", display=False, jobs=1, **options)


def examples(run):
    return len(run.report("accuracy").metric_records()[0]["per_example"])


def test_where_nothing_changed_it_measures_what_it_did(champion, run):
    heard = []
    found = evaluate(listen=heard.append)
    assert (found.state, found.data.evaluates, found.data.champion) == ("done", champion.entry.run, champion.hash)
    assert [step.id for step in found.steps] == ["words", "longer", "capitals", "unique", "riddles", "accuracy"]
    assert all(step.cached for step in found.steps)
    then = champion.run.metrics["accuracy"]
    assert found.metrics["accuracy"] == {name: then[name] for name in ("accuracy", "initials")}
    [gate] = found.gates
    assert (gate.verdict, gate.bound) == ("passed", "at least champion (95% confidence)")
    assert f"over the same {examples(found):,} examples is 0 to 0: not surely worse" in gate.reason
    decided = [event for event in heard if event.type == "gate_decided"]
    assert [(event.step, event.passed, event.reason) for event in decided] == [("accuracy", True, gate.reason)]
    # It is no run of the recipe, and no model.
    assert luthier.find_run().id == champion.entry.run
    assert run().id == champion.entry.run
    with pytest.raises(InputError, match="has made no model"):
        luthier.promote(found)
    # It is in the history, once.
    assert evaluate().id == found.id
    told = [(entry.event, entry.run) for entry in champion.history()]
    assert told == [("promoted", champion.entry.run), ("evaluated", found.id)]
    assert champion.current() == champion
    assert luthier.find_model("champion").hash == champion.hash
    assert f"evaluated {found.id}" in CliRunner().invoke(app, ["registry", "history"]).output


def test_on_other_data_each_side_is_drawn_by_itself_and_a_fall_is_told(champion):
    result = CliRunner().invoke(app, ["evaluate", "recipe.yaml", "--set", "words.path=more.txt", "--json"])
    assert result.exit_code == 4, result.output
    assert "the champion 'toys' is worse than when it was promoted: accuracy.accuracy" in result.stderr
    assert "luthier registry rollback toys" in result.stderr
    told = json.loads(result.stdout)
    run = luthier.find_run(told["id"])
    [gate] = run.gates
    assert (told["state"], run.state, gate.verdict) == ("refused", "refused", "refused")
    assert examples(run) > examples(champion.run)
    assert f"over {examples(run):,} examples against {examples(champion.run):,}" in gate.reason
    assert gate.value < 1 == champion.run.metrics["accuracy"]["accuracy"]
    entry = champion.history()[-1]
    assert (entry.event, entry.run, entry.why) == ("evaluated", run.id, f"accuracy: {gate.reason}")
    assert luthier.find_champion() == champion
    # Nothing is new, and it is still worse.
    again = evaluate(overrides={"words.path": "more.txt"})
    assert (again.id, again.state, len(champion.history())) == (run.id, "refused", 2)


def test_a_fall_that_chance_may_have_made_is_none(champion):
    found = evaluate(overrides={"longer.at_least": 12})
    [gate] = found.gates
    assert gate.value < 1
    assert f"over {examples(found)} examples against {examples(champion.run)}" in gate.reason
    assert (gate.verdict, gate.reason.rpartition(": ")[2]) == ("passed", "not surely worse")


def test_code_that_loads_the_model_otherwise_is_seen_on_the_same_examples(champion, project):
    plugin = project / "plugins.d" / "toys.py"
    code = plugin.read_text()
    assert LOADS in code
    plugin.write_text(code.replace(LOADS, FORGETS))
    found = evaluate(only=["accuracy"])
    assert found.state == "refused"
    assert f"over the same {examples(champion.run):,} examples" in found.gates[0].reason
    assert found.gates[0].reason.endswith(": worse")


def test_what_cannot_be_compared_is_skipped_and_said(champion, project):
    [gate] = evaluate(overrides={"accuracy.split": "test"}).gates
    assert gate.verdict == "skipped"
    assert f"the step is not configured as it was in the run {champion.entry.run}" in gate.reason
    both = {"accuracy.gate": {"accuracy": {"at_least": 0}, "initials": {"at_least": 0.1, "at_most": 0.9}}}
    assert [gate.metric for gate in evaluate(overrides=both).gates] == ["accuracy"]
    recipe = project / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("validate: accuracy\n", "validate: accuracy\n    id: again\n"))
    [gate] = evaluate().gates
    assert (gate.step, gate.verdict) == ("again", "skipped")
    assert f"the run {champion.entry.run} did not measure it of this model" in gate.reason
    assert champion.history()[-1].why == "0 of 1 metrics compared, none surely worse"


def test_what_cannot_be_evaluated_is_an_error_before_any_work(champion, damage):
    with pytest.raises(InputError, match="there is no champion of the name 'toys'"):
        evaluate(home="elsewhere")
    with pytest.raises(InputError, match=r"no step 'acuracy' with a gate measures the champion\n.*'accuracy'"):
        evaluate(only=["acuracy"])
    with pytest.raises(InputError, match="no step 'agreement' with a gate measures the champion"):
        evaluate(only=["agreement"])
    with pytest.raises(InputError, match="no gate names a metric that is measured of the champion"):
        evaluate(overrides={"accuracy.subjects": ["candidate", "base"]})
    (champion.run.path / "run.json").rename("run.json")
    with pytest.raises(InputError, match="which made the champion 'toys', is no longer in"):
        evaluate()
    Path("run.json").rename(champion.store.runs / champion.entry.run / "run.json")
    damage(champion.hash)
    with pytest.raises(InputError, match="the model of the champion 'toys' is damaged"):
        evaluate(force=["accuracy"])
    assert len(champion.history()) == 1
