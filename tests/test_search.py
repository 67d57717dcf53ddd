"""Lists of values for a step's parameters: what is tried, what is kept, what is told of it."""

from __future__ import annotations

import json
import shutil
import signal
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

import luthier
from luthier.cli import app
from luthier.errors import InputError, PluginError
from luthier.nodes import RecipeError
from luthier.plugins import load_plugins
from luthier.rundiff import compare
from luthier.schema import recipe_schema
from luthier.store import Store

HERE = Path(__file__).parent / "searches"
ONE = {"fit.rank": 8}


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder with a recipe that searches four ranks by a loss that is known beforehand."""
    (tmp_path / "plugins.d").mkdir()
    shutil.copy(HERE / "tuners.py", tmp_path / "plugins.d" / "tuners.py")
    shutil.copy(HERE / "recipe.yaml", tmp_path / "recipe.yaml")
    monkeypatch.setenv("LUTHIER_PLUGINS", "tuners")
    monkeypatch.setenv("LUTHIER_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("LUTHIER_HOME", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def fit(run):
    return run.step("fit").search


def trials(run):
    return [(trial.values["rank"], trial.budget, trial.state) for trial in fit(run).trials]


def told(*arguments):
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


def searched(**overrides):
    return luthier.plan("recipe.yaml", overrides=overrides)[2].told


def problems(**overrides):
    values = {name.replace("__", "."): value for name, value in overrides.items()}
    with pytest.raises(RecipeError) as refused:
        luthier.plan("recipe.yaml", overrides=values)
    return [str(problem) for problem in refused.value.problems]


def test_the_best_of_all_goes_on_to_the_whole_budget_and_to_later_steps(run):
    found = run()
    assert trials(found) == [(8, 3, "done"), (10, 3, "done"), (16, 3, "done"), (32, 3, "done"), (10, 9, "done")]
    assert fit(found).chosen == {"rank": 10}
    assert json.loads((found.model("fit").path / "model.json").read_text()) == {"rank": 10, "rate": 0.5, "budget": 9}
    assert found.metrics["judge"] == {"rank": 10}
    assert found.metrics["fit"]["valid_loss"] == pytest.approx(2 + 0.5 + 10 / 9)


def test_the_winner_is_the_step_that_a_recipe_without_lists_has(run):
    searched = run()
    alone = run(overrides={"fit.rank": 10})
    assert all(step.cached for step in alone.steps)
    assert alone.step("fit").nodes == searched.step("fit").nodes
    assert alone.step("fit").search is None
    # And the other way round: what was done alone is a trial that is there already.
    first = run(overrides={"fit.rank": [8, 10], "fit.rate": 0.25}, home="other")
    again = run(overrides={"fit.rank": [10, 11], "fit.rate": 0.25}, home="other")
    assert [trial.cached for trial in fit(again).trials] == [True, False]
    assert fit(first).trials[1].key == fit(again).trials[0].key


def test_a_second_run_does_nothing_and_another_choice_of_lists_is_another_run(run):
    first = run()
    assert run().id == first.id
    other = run(overrides={"fit.rank": [8, 10, 16]})
    assert other.id != first.id
    assert other.step("fit").cached
    assert fit(other).lists == {"rank": [8, 10, 16]}


def test_every_combination_is_a_candidate_and_two_are_compared_at_the_whole_budget(run):
    found = run(overrides={"fit.rank": [10, 16], "fit.rate": 0.5})
    assert trials(found) == [(10, 9, "done"), (16, 9, "done")]
    many = run(overrides={"fit.rank": [8, 10, 11], "fit.rate": [0.5, 0.2, 0.4], "fit.max_steps": 27})
    assert [len([each for each in fit(many).trials if each.budget == steps]) for steps in (3, 9, 27)] == [9, 3, 1]
    assert fit(many).chosen == {"rank": 11, "rate": 0.2}


def test_a_budget_in_minutes_is_divided_too_and_none_means_a_plain_comparison(run):
    minutes = {"fit.max_steps": None, "fit.max_minutes": 4.0}
    assert "4 at 1.33, 1 at 4 minutes, 9.32 minutes in all" in searched(**minutes)
    assert [trial.budget for trial in fit(run(overrides=minutes)).trials] == [1.33] * 4 + [4.0]
    assert "search of 4 candidates by valid_loss, each in full" in searched(**{"fit.max_steps": None})
    # A budget that cannot be divided so far is divided less.
    assert "4 at 1 steps, 4 steps in all" in searched(**{"fit.max_steps": 1})
    small = searched(**{"fit.max_steps": 4, "fit.rank": list(range(1, 28))})
    assert "27 at 1, 9 at 2, 3 at 4 steps, 57 steps in all" in small


def test_a_type_that_has_lists_is_searched_by_a_list_of_them(run):
    plain = run(overrides=ONE | {"fit.targets": ["q", "v"]})
    assert plain.step("fit").search is None
    found = run(overrides=ONE | {"fit.targets": [["q"], ["q", "v"]]})
    assert fit(found).chosen == {"targets": ["q", "v"]}
    mixed = run(overrides=ONE | {"fit.targets": [["q"], "all"]})
    assert fit(mixed).chosen == {"targets": "all"}


def test_locations_are_searched_by_their_content(run, project):
    (project / "a.txt").write_text("one")
    (project / "b.txt").write_text("two")
    found = run(overrides=ONE | {"fit.words": ["a.txt", "b.txt"]})
    assert len({trial.key for trial in fit(found).trials}) == 2
    assert "c.txt does not exist" in " ".join(problems(fit__rank=8, fit__words=["a.txt", "c.txt"]))


def test_higher_may_be_better_and_no_data_be_needed(run, project):
    recipe = luthier.Recipe("climbing").step("architecture", "blank").step("tune", "climb", height=[1, 3, 2])
    found = luthier.run(recipe, display=False, jobs=1)
    assert found.step("climb").search.chosen == {"height": 3}
    recipe = luthier.Recipe("climbing").step("architecture", "blank").step("tune", "climb", height=[1, 0])
    with pytest.raises(InputError, match="tune:climb reported no score, by which its candidates are compared"):
        luthier.run(recipe, display=False, jobs=1)


# --- failures -----------------------------------------------------------------------------------------


def test_a_candidate_that_fails_is_lost_alone_and_not_tried_again(run, project):
    found = run(overrides={"fit.rank": 8, "fit.rate": [5.0, 0.5, 0.25]})
    search = fit(found)
    assert [(trial.values["rate"], trial.state) for trial in search.trials] == [
        (5.0, "failed"),
        (0.5, "done"),
        (0.25, "done"),
        (0.25, "done"),
    ]
    assert search.chosen == {"rate": 0.25}
    assert search.failures() == ["rate=5.0: training diverged: the loss is nan at the rate 5"]
    assert found.state == "done"
    shown = told("runs", "show", "latest")
    assert "failed: rate=5.0: training diverged" in shown
    assert run(overrides={"fit.rank": 8, "fit.rate": [5.0, 0.5, 0.25]}).id == found.id
    planned = luthier.plan("recipe.yaml", overrides={"fit.rank": 8, "fit.rate": [5.0, 0.5, 0.25]})
    assert planned[2].trials[0].told == "failed: training diverged: the loss is nan at the rate 5"
    forced = run(overrides={"fit.rank": 8, "fit.rate": [5.0, 0.5, 0.25]}, force=["fit"])
    assert [trial.cached for trial in fit(forced).trials] == [False] * 4


def test_the_next_best_takes_the_place_of_one_that_fails_late(run):
    found = run(overrides={"fit.rank": [13, 10, 16, 9]})
    assert trials(found)[4:] == [(13, 9, "failed"), (10, 9, "done")]
    assert fit(found).chosen == {"rank": 10}


def test_where_all_fail_the_error_says_why(run, project):
    with pytest.raises(InputError) as failed:
        run(overrides={"fit.rank": 8, "fit.rate": [5.0, 6.0]})
    assert "recipe.yaml:6:5: fit: every candidate of its search failed: rate=5.0: training div" in failed.value.message
    assert "rate=6.0: training diverged" in failed.value.message
    assert "--force fit" in failed.value.remedy


def test_a_bug_of_the_tuner_is_no_lost_candidate(run):
    with pytest.raises(luthier.LuthierError, match="ValueError: a bug"):
        run(overrides={"fit.rank": [10, 666]})
    # What was finished is not done again.
    assert fit(run(overrides={"fit.rank": [10, 11]})).trials[0].cached


def test_without_validation_rows_no_candidate_begins(run, project):
    events = []
    with pytest.raises(InputError, match="'pairs' gives no rows in the split `valid`, on which cand"):
        run(overrides={"pairs.valid": 0}, listen=events.append)
    assert not [event for event in events if event.type.startswith("trial")]


def test_a_killed_search_goes_on_where_it_stopped(project, command, run):
    slow = command("run", "recipe.yaml", "--set", "fit.pause=0.4", "--json")
    for line in slow.stdout:
        event = json.loads(line)
        if event["type"] == "trial_finished" and event["trial"] == "rank=10":
            break
    slow.send_signal(signal.SIGKILL)
    slow.wait()
    again = run(overrides={"fit.pause": 0.4})
    assert [trial.cached for trial in fit(again).trials] == [True, True, False, False, False]
    assert not again.step("fit").cached


def test_garbage_collection_keeps_what_lost(run, project):
    found = run()
    store = Store(project / ".luthier")
    time.sleep(0.01)
    from luthier.garbage import collect

    assert collect(store, grace_seconds=0).steps == 0
    assert all(store.step(trial.key) for trial in fit(found).trials)


# --- what is told -------------------------------------------------------------------------------------


def test_the_plan_says_how_many_get_how_much_and_what_is_cached(run, project):
    before = told("plan", "recipe.yaml")
    assert "depends on blank; search of 4 candidates by valid_loss: 4 at 3, 1 at 9 steps, 21 steps in all" in before
    assert before.count("rank=") == 4
    run(overrides={"fit.rank": [8, 10]})
    run(overrides={"fit.rank": 8, "fit.max_steps": 3})
    planned = luthier.plan("recipe.yaml")
    assert planned[2].state == "runs"
    assert planned[2].why.endswith("21 steps in all; 1 of 5 trials cached")
    assert [trial.told for trial in planned[2].trials] == ["cached: valid_loss 7.833", "runs", "runs", "runs"]
    assert planned[3].told == "depends on fit"
    run()
    after = told("plan", "recipe.yaml")
    assert "nothing to do" in after
    assert after.count("cached: valid_loss") == 5
    record = json.loads(told("plan", "recipe.yaml", "--json"))
    assert record["steps"][2]["state"] == "cached"
    assert [trial["budget"] for trial in record["steps"][2]["trials"]] == ["3 steps"] * 4 + ["9 steps"]


def test_the_run_shows_each_trial_and_its_record_the_table(run, project):
    events = []
    run(listen=events.append)
    last = [event for event in events if event.type == "trial_started"][-1]
    assert (last.trial, last.budget, last.number, last.of) == ("rank=10", "9 steps", 5, 5)
    finished = [event for event in events if event.type == "trial_finished"]
    assert [event.value for event in finished][:2] == pytest.approx([4 + 0.5 + 10 / 3, 2 + 0.5 + 10 / 3])
    shown = told("runs", "show", "latest").splitlines()
    table = shown[shown.index("fit was searched by valid_loss (lower is better)") + 1 :]
    assert table[0].split("  ")[1:3] != []
    assert [line.split()[:2] for line in table[1:4]] == [["✓", "10"], ["8", "7.833"], ["16", "7.833"]]
    record = json.loads(told("runs", "show", "latest", "--json"))
    assert record["steps"][2]["search"]["chosen"] == {"rank": 10}
    assert len(record["steps"][2]["search"]["trials"]) == 5


def test_plain_displays_tell_of_the_trials(project, command):
    process = command("run", "recipe.yaml", "--set", "fit.rank=[10, 11]", "--set", "fit.rate=[0.5, 5.0]")
    _, errors = process.communicate(timeout=60)
    assert "fit: rank=10 rate=0.5 at 3 steps: valid_loss 5.833" in errors
    assert "fit: rank=11 rate=5.0 at 3 steps: failed: training diverged" in errors
    assert "fit: the best of 4 candidates is rank=11 rate=0.5" in errors


def test_runs_are_compared_by_what_was_chosen_and_among_what(run, project):
    first = run()
    second = run(overrides={"fit.rank": [8, 11]})
    found = compare(first, second)
    by_kind = {change["kind"]: change for change in found["changes"] if change["step"] == "fit"}
    assert (by_kind["configuration"]["before"], by_kind["configuration"]["after"]) == (10, 11)
    assert by_kind["search"]["name"] == "rank"
    assert by_kind["search"]["after"] == [8, 11]
    assert by_kind["search"]["lines"]["before"] == ["recipe.yaml:7: rank: [8, 10, 16, 32]"]
    assert {"step": "judge", "metric": "rank", "before": 10.0, "after": 11.0} in found["metrics"]
    assert compare(first, first)["changes"] == []


def test_editors_are_told_of_lists_where_they_may_be(project):
    schema = recipe_schema(load_plugins(local=[project / "plugins.d" / "tuners.py"]))
    properties = schema["$defs"]["tune.fit"]["properties"]
    assert "array" in json.dumps(properties["rank"])
    assert "array" not in json.dumps(properties["max_steps"])
    assert "array" not in json.dumps(schema["$defs"]["tune.plain"]["properties"]["size"])


# --- what is refused ----------------------------------------------------------------------------------


def test_what_is_wrong_with_a_list_is_said_at_its_place(project):
    text = (project / "recipe.yaml").read_text()
    (project / "recipe.yaml").write_text(text.replace("[8, 10, 16, 32]", "[8, x, 8]").replace("rate: 0.5", "rate: []"))
    assert problems() == ["recipe.yaml:8:5: steps[2].rate: an empty list of values; a search needs some"]
    (project / "recipe.yaml").write_text(text.replace("[8, 10, 16, 32]", "[8, x, 8]"))
    (one,) = problems()
    assert one.startswith("recipe.yaml:7:15: steps[2].rank[1]: input should be a valid integer")
    (project / "recipe.yaml").write_text(text.replace("[8, 10, 16, 32]", "[8, 10, 8]"))
    assert problems() == ["recipe.yaml:7:19: steps[2].rank[2]: 8 again: it is the same as the value 1"]


def test_lists_that_cannot_be_searched_are_refused(project):
    assert problems(fit__rank=8, fit__rate=[1, 1.0]) == ["--set fit.rate: 1.0 again: it is the same as the value 1"]
    (budget,) = problems(fit__max_steps=[3, 9])
    assert "a list, but it is the budget, which all candidates of a search share" in budget
    (many,) = problems(fit__rank=list(range(1, 200)))
    assert "199 combinations of rank; a search has at most 100 candidates" in many
    (unmeasured, *_) = problems(fit__measured=False)
    assert "nothing is validated, so candidates cannot be compared" in unmeasured
    (unknown,) = problems(fit__rnak=[1, 2])
    assert "did you mean" in unknown


def test_a_component_that_compares_nothing_takes_no_lists(project):
    recipe = luthier.Recipe("plain").step("architecture", "blank").step("tune", "plain", size=[1, 2])
    with pytest.raises(RecipeError) as refused:
        luthier.plan(recipe)
    assert "tune:plain does not say how its results compare" in str(refused.value)
    assert "tune:climb, tune:fit do" in str(refused.value)


@pytest.mark.parametrize(
    ("declared", "wrong"),
    [
        ('Search("loss", better="less")', "`better` is 'less'"),
        ('Search("loss", budgets={"steps": "steps"})', "its budgets .'steps'. are no parameters with the default None"),
    ],
)
def test_a_declaration_that_cannot_be_followed_is_the_plugins_error(project, declared, wrong):
    plugin = project / "plugins.d" / "tuners.py"
    plugin.write_text(plugin.read_text().replace('Search("score", better="higher", split=None)', declared))
    broken = load_plugins(local=[plugin]).broken
    assert isinstance(broken[0].error, PluginError | str)
    with pytest.raises(Exception, match=wrong):
        raise AssertionError(str(broken[0].error))
