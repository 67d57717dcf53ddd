"""The engine on the toy plugin: caching, fusion, explanations, gates, forcing, bad components."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import luthier
from luthier import pool
from luthier.api import open_store
from luthier.errors import GateRefused, InputError, LuthierError, WorkerError
from luthier.nodes import RecipeError
from luthier.runs import list_runs

ANY = {"at_least": 0.0}
LENIENT = {"accuracy.gate": {"accuracy": ANY}, "agreement.gate": {"agreement": ANY}}


def states(run: luthier.Run) -> dict[str, bool]:
    return {step.id: step.cached for step in run.steps}


def digest(directory: Path) -> dict[str, str]:
    return {
        path.relative_to(directory).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


def test_a_first_run_does_everything_and_the_gates_pass(run):
    finished = run()
    assert finished.state == "done"
    assert not any(states(finished).values())
    assert finished.metrics["accuracy"]["accuracy"] == 1.0
    assert finished.metrics["accuracy"]["base.accuracy"] < 0.5
    assert finished.metrics["agreement"] == {"agreement": 1.0}
    assert [(gate.step, gate.passed) for gate in finished.gates] == [("accuracy", True), ("agreement", True)]
    assert (finished.model_path / "frozen.json").exists()


def test_counts_balance_and_samples_show_what_happened(run):
    finished = run()
    longer = finished.step("longer").counts
    assert longer["documents_in"] == 300 == finished.step("words").counts["added"]
    assert longer["documents_in"] == longer["kept"] + longer["dropped"] + longer["quarantined"]
    assert longer["dropped"] > 0
    report = finished.report("longer")
    assert report.metrics == {"gone": longer["dropped"]}
    assert report.table("gone").height == longer["dropped"]
    outcome = json.loads((finished.report("capitals").path / "outcome.json").read_text())
    assert outcome["samples"]["changed"]
    assert all("CEDAR" in sample["after"] for sample in outcome["samples"]["changed"])


def test_a_second_run_does_nothing(run):
    first = run()
    assert run().id == first.id


def test_a_changed_step_runs_and_what_it_did_not_change_stays_cached(run, project):
    run()
    planned = {known.node.id: known for known in luthier.plan(project / "recipe.yaml", overrides={"teach.steps": 6})}
    assert planned["teach"].why == "configuration changed: steps 5 → 6"
    assert planned["unique"].state == "cached"
    assert planned["freeze"].state == "depends"
    # Six lessons teach the same as five: the change stops there.
    second = run(overrides={"teach.steps": 6})
    assert states(second) == {**dict.fromkeys(states(second), True), "teach": False}


def test_ids_comments_and_order_of_keys_are_no_reason_to_run(run, project):
    run()
    recipe = project / "recipe.yaml"
    text = recipe.read_text().replace(
        "  - source: words\n    count: 300", "  # many\n  - source: words\n    id: raw\n    count: 300"
    )
    recipe.write_text(text)
    assert all(states(run()).values())


def test_neighbouring_frame_components_are_one_pass_with_the_unfused_bytes(run, project):
    fused = run(until="capitals")
    planned = luthier.plan(project / "recipe.yaml")
    assert [step.id for step in planned[1].node.parts] == ["longer", "capitals"]
    apart = run(until="longer", home=project / "other")
    assert apart.dataset("longer").shards
    rest = run(force=["longer"], until="capitals", home=project / "other")
    assert digest(fused.dataset("capitals").path) == digest(rest.dataset("capitals").path)
    with pytest.raises(InputError, match="not in the store"):
        fused.dataset("longer")


@pytest.mark.parametrize("jobs", [1, 3])
def test_the_number_of_jobs_changes_no_byte(run, project, jobs):
    finished = run(overrides={"words.count": 9000}, until="capitals", jobs=jobs, home=project / f"home-{jobs}")
    data = finished.dataset("capitals")
    assert len(data.shards) > 1
    assert digest(data.path) == digest(
        run(overrides={"words.count": 9000}, until="capitals", jobs=2, home=project / "two").dataset("capitals").path
    )


def test_force_does_one_step_again_and_from_all_after_it(run):
    run()
    assert states(run(force=["teach"]))["teach"] is False
    again = states(run(start="teach"))
    assert [step for step, cached in again.items() if not cached] == ["teach", "freeze", "accuracy", "agreement"]


def test_a_changed_plugin_file_runs_its_steps_again(run, project):
    run()
    plugin = project / "plugins.d" / "toys.py"
    plugin.write_text(plugin.read_text() + "\n# changed\n")
    why = luthier.plan(project / "recipe.yaml")[0].why
    assert why == "the code of toys changed"


def test_a_device_that_is_not_there_is_refused_before_the_first_step(run, project):
    with pytest.raises(LuthierError, match="there is no cuda here") as raised:
        run(device="cuda")
    assert (raised.value.remedy, raised.value.exit_code) == ("Use the loom.", 1)
    [ended] = list_runs(open_store(project))
    assert {step.state for step in ended.steps} == {"waiting"}
    assert ended.state == "failed"
    # What computes on no device of the user's, what is cached and what is found by itself are not asked.
    run(device="cuda", until="riddles")
    assert run(device="loom").state == "done"
    assert run(device="cuda").state == "done"
    assert run(device="cpu", force=["teach"]).state == "done"


def test_a_location_counts_by_its_content(run, project):
    extra = project / "extra.txt"
    extra.write_text("kelp lagoon")
    first = run(overrides={"words.path": "extra.txt"}, until="words")
    (project / "moved.txt").write_text("kelp lagoon")
    assert run(overrides={"words.path": "moved.txt"}, until="words").id == first.id
    extra.write_text("kelp lagoon marsh")
    assert luthier.plan(project / "recipe.yaml", overrides={"words.path": "extra.txt"})[0].state == "runs"


def test_a_refused_gate_keeps_what_was_measured_and_links_no_model(run, project):
    with pytest.raises(GateRefused, match="agreement"):
        run(overrides={"freeze.lossy": True})
    refused = next(iter(list_runs(open_store(project))))
    assert refused.state == "refused"
    assert not refused.model_path.exists()
    assert refused.metrics["agreement"]["agreement"] < 1
    assert [gate.passed for gate in refused.gates] == [False, False]
    with pytest.raises(GateRefused):
        run(overrides={"freeze.lossy": True})


def test_an_error_in_a_component_is_told_with_its_place_and_the_rest_is_kept(run, project):
    with pytest.raises(LuthierError, match=r"ValueError: the teacher is ill at .*toys\.py:\d+") as caught:
        run(overrides={"teach.fail": "value"})
    assert caught.value.exit_code == 3
    kept = Path(caught.value.remedy.partition("Its traceback: ")[2])
    assert "ValueError: the teacher is ill" in kept.read_text(encoding="utf-8")
    assert states(run())["riddles"] is True


def test_an_error_of_a_library_is_told_with_the_plugins_line(run, project):
    plugin = project / "plugins.d" / "toys.py"
    text = plugin.read_text(encoding="utf-8")
    called = 'if fail == "value":\n        json.loads("no JSON")\n'
    plugin.write_text(text.replace('if fail == "value":\n', called, 1), encoding="utf-8")
    line = plugin.read_text(encoding="utf-8").splitlines().index('        json.loads("no JSON")') + 1
    with pytest.raises(LuthierError, match=rf"JSONDecodeError: .* at .*toys\.py:{line}"):
        run(overrides={"teach.fail": "value"})


def test_a_worker_that_exits_is_one_clear_error(run):
    with pytest.raises(LuthierError, match="exited with status 7"):
        run(overrides={"teach.fail": "exit"})


def test_memory_that_runs_out_within_a_component_is_the_users_to_mend(run):
    with pytest.raises(LuthierError, match="memory") as caught:
        run(overrides={"teach.fail": "memory"})
    assert caught.value.exit_code == 1


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
@pytest.mark.parametrize(("kills", "message"), [((0, 1), "teach: .*out of memory"), ((1, 1), "teach: .*SIGKILL")])
def test_a_killed_worker_says_which_step_and_whether_memory_was_the_reason(run, monkeypatch, kills, message):
    counted = iter([kills[0], kills[0]])
    # What the kernel's own counter says before and after: filling a machine's memory is no test.
    monkeypatch.setattr(pool, "_out_of_memory_kills", lambda: next(counted, kills[1]))
    with pytest.raises(WorkerError, match=message):
        run(overrides={"teach.fail": "killed"})


def test_a_silent_worker_is_ended_after_the_timeout(run):
    with pytest.raises(LuthierError, match="reported nothing for 2 seconds"):
        run(overrides={"teach.fail": "hang"}, step_timeout=2)


def test_cleaning_that_leaves_nothing_says_so(run):
    with pytest.raises(InputError, match=r"recipe\.yaml:7:5: longer: ") as caught:
        run(overrides={"longer.at_least": 10_000})
    assert "no rows are left" in str(caught.value)
    assert "longer: 300 in, 0 kept, 300 dropped" in str(caught.value)


@pytest.mark.parametrize("raised", ["InputError('this text is no riddle', 'Give it riddles.')", "SystemExit(3)"])
@pytest.mark.parametrize("option", [(), ("--quiet",)])
def test_an_error_names_the_place_in_the_recipe_and_the_step_of_a_fused_pass(project, command, option, raised):
    plugin = project / "plugins.d" / "brittle.py"
    plugin.write_text(
        "from luthier import InputError, hookimpl\n\n\n"
        "def brittle(frame, ctx):\n"
        '    """Refuse every row."""\n'
        f"    raise {raised}\n\n\n"
        "@hookimpl\ndef luthier_cleaners():\n    return [brittle]\n",
        encoding="utf-8",
    )
    recipe = project / "recipe.yaml"
    text = recipe.read_text(encoding="utf-8")
    recipe.write_text(
        text.replace("  - clean: capitals\n", "  - clean: brittle\n  - clean: capitals\n"), encoding="utf-8"
    )
    process = command("run", "recipe.yaml", *option, LUTHIER_PLUGINS="toys,brittle")
    _, errors = process.communicate(timeout=60)
    assert process.returncode == (1 if "InputError" in raised else 3), errors
    line = recipe.read_text(encoding="utf-8").splitlines().index("  - clean: brittle") + 1
    assert f"recipe.yaml:{line}:5: brittle: " in errors
    assert ("✗ brittle failed" in errors) == (not option)
    states = {step.id: step.state for step in next(list_runs(open_store(project))).steps}
    assert states["brittle"] == "failed"
    assert states["capitals"] == "waiting"


def test_from_after_until_would_do_nothing_so_it_is_refused(run):
    with pytest.raises(InputError, match="--until unique stops before --from teach"):
        run(until="unique", start="teach")


def test_a_damaged_artifact_is_noticed_and_made_again(run, project):
    first = run(until="unique")
    shard = first.dataset("unique").shards[0]
    original = shard.read_bytes()
    shard.chmod(0o644)
    shard.write_bytes(original[:-1] + bytes([original[-1] ^ 1]))
    finished = run()
    assert finished.state == "done"
    assert finished.step("unique").cached is False
    assert finished.dataset("unique").shards[0].read_bytes() == original


def test_a_gate_never_judges_a_report_that_was_changed(run, project):
    run(overrides=LENIENT)
    changed = next(path for path in project.rglob("metrics.json") if '"accuracy"' in path.read_text())
    text = changed.read_text()
    changed.chmod(0o644)
    changed.write_text(re.sub(r'"value": [01]', '"value": 9', text, count=1))
    assert changed.read_text() != text
    again = run(overrides={**LENIENT, "agreement.gate": {"agreement": {"at_least": 0.5}}})
    metrics = again.step("accuracy").metrics
    assert max(value for name, value in metrics.items() if name.endswith("accuracy")) <= 1


def test_a_damaged_model_is_never_given_out(run, project):
    first = run(until="freeze", overrides=LENIENT)
    stored = first.model().path / "frozen.json"
    sound = stored.read_bytes()
    stored.chmod(0o644)
    stored.write_bytes(sound[:-1] + b" ")
    again = run(force=["accuracy"], overrides=LENIENT)
    assert (again.path / "model" / "frozen.json").read_bytes() == sound


def test_until_before_a_gate_gives_no_model_out(run):
    finished = run(until="freeze")
    assert finished.state == "done"
    assert finished.model().path.is_dir()
    assert not (finished.path / "model").exists()


def test_events_and_the_recipe_are_kept_with_the_run(run):
    heard: list[str] = []
    finished = run(listen=lambda event: heard.append(event.type))
    lines = [json.loads(line) for line in (finished.path / "events.jsonl").read_text().splitlines()]
    assert [line["type"] for line in lines] == heard
    assert heard[0] == "run_started"
    assert heard[-1] == "run_finished"
    assert "step_progress" in heard
    assert (finished.path / "recipe.yaml").read_text().startswith("luthier: 1")


def test_lifecycle_hooks_are_told_and_an_error_in_one_stops_nothing(run, project, monkeypatch):
    hook = "from luthier import hookimpl\n\n@hookimpl\ndef luthier_run_finished(run, event):\n    "
    (project / "plugins.d" / "watch.py").write_text(hook + "(run.path / 'note.txt').write_text(event.state)\n")
    (project / "plugins.d" / "sulk.py").write_text(hook + "raise RuntimeError('not today')\n")
    monkeypatch.setenv("LUTHIER_PLUGINS", "toys,watch,sulk")
    heard = []
    finished = run(listen=heard.append)
    assert finished.state == "done"
    assert (finished.path / "note.txt").read_text() == "done"
    failed = [event for event in heard if event.type == "plugin_hook_failed"]
    assert [(event.plugin, event.error) for event in failed] == [("sulk", "RuntimeError: not today")]


def test_a_recipe_built_in_python_runs(project):
    recipe = luthier.Recipe("by-hand", seed=3)
    recipe.step("source", "words", count=40).step("clean", "unique").step("format", "riddles")
    finished = luthier.run(recipe, display=False, jobs=1)
    assert finished.dataset("unique").frame()["text"].is_unique().all()
    assert finished.dataset("riddles").form == "prompt-completion"


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ("  - tune: teach\n", "needs a model"),
        ("  - source: words\n  - tune: teach\n", "needs a model"),
        (
            "  - source: words\n  - architecture: parrot\n  - tune: teach\n",
            "of the form prompt-completion; 'words' gives documents",
        ),
        ("  - clean: longer\n", "needs a dataset"),
        ("  - source: words\n  - format: riddles\n  - clean: longer\n", "of the form documents"),
        (
            "  - source: words\n  - architecture: parrot\n  - format: riddles\n  - validate: agreement\n",
            "was not exported",
        ),
    ],
)
def test_kinds_and_forms_are_checked_before_any_work(project, steps, message):
    (project / "recipe.yaml").write_text("luthier: 1\nname: wrong\nsteps:\n" + steps)
    with pytest.raises(InputError) as caught:
        luthier.plan(project / "recipe.yaml")
    assert message in str(caught.value)
    assert "recipe.yaml:" in str(caught.value)


def test_a_validator_measures_the_subjects_that_are_asked_for_and_those_of_its_gate(run, project):
    recipe = project / "recipe.yaml"
    text = recipe.read_text().replace("    split: train\n", "    split: train\n    subjects: [candidate]\n")
    recipe.write_text(text)
    both = {"accuracy", "initials", "base.accuracy", "base.initials"}
    assert set(run().metrics["accuracy"]) == both
    recipe.write_text(text.replace("base + 0.5, confidence: 0.95", "0.5"))
    assert set(run().metrics["accuracy"]) == {"accuracy", "initials"}


def test_a_metric_may_have_several_bounds(run, project):
    recipe = project / "recipe.yaml"
    bounds = "[{at_least: 0.2}, {at_least: base, confidence: 0.95}]"
    recipe.write_text(recipe.read_text().replace("{at_least: base + 0.5, confidence: 0.95}", bounds))
    assert [gate.bound for gate in run().gates if gate.step == "accuracy"] == [
        "at least 0.2",
        "at least base (95% confidence)",
    ]


def test_a_gate_holds_a_metric_against_another_of_the_same_report(run, project):
    recipe = project / "recipe.yaml"
    text = recipe.read_text()
    recipe.write_text(text.replace("base + 0.5", "candidate.initials - 0.5"))
    [held] = [gate for gate in run().gates if gate.step == "accuracy"]
    assert held.bound == "at least candidate.initials - 0.5 (95% confidence)"
    assert held.passed
    recipe.write_text(text.replace("base + 0.5", "base.initials + 1.5"))
    with pytest.raises(GateRefused, match=re.escape("at least base.initials + 1.5")):
        run()


def test_a_validator_that_records_what_it_does_not_say_is_at_fault(run, project):
    plugin = project / "plugins.d" / "toys.py"
    plugin.write_text(plugin.read_text().replace('metrics=("accuracy", "initials")', 'metrics=("accuracy",)'))
    with pytest.raises(LuthierError, match="records initials, which its `metrics` do not name"):
        run()


@pytest.mark.parametrize("subjects", ["[base]", "candidate", "[candidate, winner]"])
def test_subjects_that_there_are_not_are_refused(project, subjects):
    recipe = project / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("    split: train\n", f"    split: train\n    subjects: {subjects}\n"))
    with pytest.raises(InputError, match="a list of candidate, base, reference, champion, with candidate"):
        luthier.plan(recipe)


def test_a_branch_that_moves_while_a_recipe_runs_does_not_split_key_and_content(project):
    old, new = "a" * 40, "b" * 40
    repository = project / "hf" / "hub" / "models--org--words"
    for commit, word in ((old, "walrus"), (new, "yucca")):
        (repository / "snapshots" / commit).mkdir(parents=True)
        (repository / "snapshots" / commit / "words.txt").write_text(word)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(old)
    script = f"""
from pathlib import Path
from luthier import api
overrides = {{"words.path": "hf:org/words@main/words.txt"}}
session = api.open_session("recipe.yaml", overrides=overrides, until="words")
session.resolve()
Path({str(repository / "refs" / "main")!r}).write_text({new!r})
run = api.run_session(session, jobs=1)
print(" ".join(run.dataset("words").frame()["text"]))
"""
    environment = {**os.environ, "HF_HOME": str(project / "hf"), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=project, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "walrus" in done.stdout
    assert "yucca" not in done.stdout


def test_what_is_wrong_with_steps_and_with_their_order_is_told_at_once(project):
    steps = """
  - source: words
    path: gone.txt
  - clean: longer
    at_leest: 20
  - tune: teach
    fail: [1]
  - validate: accuracy
    gate: {accuracy: {at_least: reference}}
  - export: freezer
  - validate: agreement
  - clean: capitals
    from: teach
"""
    (project / "recipe.yaml").write_text(f"luthier: 1\nsteps:{steps}", encoding="utf-8")
    with pytest.raises(RecipeError) as caught:
        luthier.plan(project / "recipe.yaml")
    told = [
        f"{problem.position.line if problem.position else 0} {problem.message}" for problem in caught.value.problems
    ]
    assert any(line.startswith("4 ") and "gone.txt" in line for line in told)
    assert any(line.startswith("6 ") and "unknown key" in line for line in told)
    assert any(line.startswith("8 ") for line in told)
    assert any(line.startswith("9 ") and "reference" in line for line in told)
    assert any(line.startswith("11 ") and "freezer" in line for line in told)
    # What the unreadable steps would have given is not reported as missing.
    assert not any("no earlier step" in line for line in told)


def test_until_and_force_take_a_stage_and_say_what_is_close(run):
    assert [step.id for step in run(until="source").steps] == ["words"]
    with pytest.raises(InputError, match="no step is called 'longr'"):
        run(until="longr")


def test_shards_of_one_pass_share_their_columns(project, run, monkeypatch):
    plugin = """
import polars as pl
from luthier import hookimpl

def mark(frame: pl.DataFrame, *, mixed: bool = False) -> pl.DataFrame:
    \"\"\"Note the first text, which some shards have and others have not.\"\"\"
    value = pl.lit("yes") if frame.height == 4096 else (pl.lit(1) if mixed else pl.lit(None))
    return frame.with_columns(value.alias("mark"))

@hookimpl
def luthier_cleaners():
    return [mark]
"""
    (project / "plugins.d" / "marker.py").write_text(plugin)
    monkeypatch.setenv("LUTHIER_PLUGINS", "toys,marker")
    recipe = "luthier: 1\nname: marks\nsteps:\n  - source: words\n    count: 5000\n  - clean: mark\n"
    (project / "recipe.yaml").write_text(recipe)
    frame = run().dataset("mark").frame()
    assert sorted(frame["mark"].unique().to_list(), key=str) == [None, "yes"]
    with pytest.raises(LuthierError, match="gave shards of different columns"):
        run(overrides={"mark.mixed": True})


@pytest.mark.parametrize(
    ("declared", "says"),
    [
        ("fingerprint=lambda **_: None", "its `fingerprint` gave None"),
        ("fingerprint=lambda **_: 1 / 0", "its `fingerprint` failed: ZeroDivisionError"),
        ("files=lambda **_: '*.txt'", r"its `files` gave '\*\.txt'"),
        ("files=lambda **_: {}['a']", "its `files` failed: KeyError"),
        ("check=lambda **_: 1 / 0", "its `check` failed: ZeroDivisionError"),
    ],
)
def test_what_a_component_declares_wrongly_is_the_plugins_mistake(project, monkeypatch, declared, says):
    plugin = project / "plugins.d" / "odd.py"
    plugin.write_text(
        "from luthier import component, hookimpl\n\n\n"
        f"@component({declared})\n"
        "def odd(ctx):\n"
        '    """Give nothing."""\n'
        "    yield from ()\n\n\n"
        "@hookimpl\ndef luthier_sources():\n    return [odd]\n",
        encoding="utf-8",
    )
    (project / "recipe.yaml").write_text("luthier: 1\nsteps:\n  - source: odd\n", encoding="utf-8")
    monkeypatch.setenv("LUTHIER_PLUGINS", "odd")
    with pytest.raises(LuthierError, match=says):
        luthier.plan(project / "recipe.yaml")
