"""The lifecycle hooks: which are called, in what order, with what."""

from __future__ import annotations

import json

import pytest

import luthier
from luthier import LuthierError
from luthier.api import open_store
from luthier.runs import list_runs

WATCHER = """
import json
from pathlib import Path
from luthier import hookimpl

def note(run, event, **more):
    with Path("seen.jsonl").open("a") as file:
        file.write(json.dumps({"hook": event.type, "run": run.id, **more}) + "\\n")

@hookimpl
def luthier_run_started(run, event):
    note(run, event, steps=event.steps)

@hookimpl
def luthier_step_started(run, event):
    note(run, event, step=event.step, why=event.why)

@hookimpl
def luthier_step_finished(run, event):
    note(run, event, step=event.step, cached=event.cached, metrics=event.metrics, known=run.step(event.step).state)

@hookimpl
def luthier_step_failed(run, event):
    note(run, event, step=event.step, message=event.message)

@hookimpl
def luthier_gate_decided(run, event):
    note(run, event, step=event.step, passed=event.passed, known=len(run.gates))

@hookimpl
def luthier_run_finished(run, event):
    note(run, event, state=event.state, known=run.state)

@hookimpl
def luthier_promoted(run, event):
    note(run, event, name=event.name, number=event.number, restored=event.restored, replaced=event.replaced)
"""
RECIPE = """\
luthier: 1
name: watched
steps:
  - source: words
  - format: riddles
  - architecture: parrot
  - tune: teach
  - validate: accuracy
    split: train
    gate:
      accuracy: {at_least: 0.5}
"""


@pytest.fixture
def seen(project, monkeypatch):
    """What the hooks were told since the last call."""
    (project / "plugins.d" / "watcher.py").write_text(WATCHER)
    (project / "recipe.yaml").write_text(RECIPE)
    monkeypatch.setenv("LUTHIER_PLUGINS", "toys,watcher")
    told = project / "seen.jsonl"

    def call():
        lines = told.read_text().splitlines() if told.exists() else []
        told.unlink(missing_ok=True)
        return list(map(json.loads, lines))

    return call


def test_every_step_is_told_in_order_with_what_is_known_by_then(run, seen):
    done = run()
    calls = seen()
    steps = ["words", "riddles", "parrot", "teach", "accuracy"]
    assert calls[0] == {"hook": "run_started", "run": done.id, "steps": steps}
    started = [call["step"] for call in calls if call["hook"] == "step_started"]
    assert list(dict.fromkeys(started)) == steps  # A validator starts once for each subject.
    assert {call["why"] for call in calls if call["hook"] == "step_started"} == {"not done yet"}
    finished = [call for call in calls if call["hook"] == "step_finished"]
    assert [call["step"] for call in finished] == steps
    assert {(call["cached"], call["known"]) for call in finished} == {(False, "done")}
    assert finished[-1]["metrics"]["accuracy"] == done.metrics["accuracy"]["accuracy"]
    *_, gate, end = calls
    assert (gate["hook"], gate["step"], gate["passed"], gate["known"]) == ("gate_decided", "accuracy", True, 1)
    assert (end["hook"], end["state"], end["known"]) == ("run_finished", "done", "done")
    run()
    assert seen() == []  # Nothing was left to do, so there was no run.


def test_a_failure_is_told_and_then_the_end(run, seen):
    with pytest.raises(LuthierError, match="the teacher is ill"):
        run(overrides={"teach.fail": "value"})
    *_, failed, end = seen()
    assert (failed["hook"], failed["step"]) == ("step_failed", "teach")
    assert "the teacher is ill" in failed["message"]
    assert (end["hook"], end["state"]) == ("run_finished", "failed")
    run()
    calls = seen()
    cached = {call["step"]: call["cached"] for call in calls if call["hook"] == "step_finished"}
    assert cached == {"words": True, "riddles": True, "parrot": True, "teach": False, "accuracy": False}
    assert {call["step"] for call in calls if call["hook"] == "step_started"} == {"teach", "accuracy"}


MEDDLER = """
from luthier import hookimpl

@hookimpl
def luthier_step_finished(run, event):
    print("the meddler was here")
    event.metrics["accuracy"] = 3.0
    run.step(event.step).metrics["accuracy"] = 3.0

@hookimpl
def luthier_gate_decided(run, event):
    run.gates.clear()

@hookimpl
def luthier_run_finished(run, event):
    run.data.state = "done"
    run.save()

@hookimpl
def luthier_promoted(run, event):
    raise ValueError("not that one")
"""


def test_hooks_observe_and_change_nothing(project, command, seen):
    (project / "plugins.d" / "meddler.py").write_text(MEDDLER)
    process = command(
        "run", "recipe.yaml", "--json", "--set", 'accuracy.gate={"accuracy": {"at_least": 1.5}}',
        LUTHIER_PLUGINS="toys,watcher,meddler",
    )  # fmt: skip
    out, errors = process.communicate(timeout=60)
    assert process.returncode == 4, errors
    events = [json.loads(line) for line in out.splitlines()]  # What a hook prints is not among them.
    assert next(event for event in events if event["type"] == "run_finished")["state"] == "refused"
    assert "the meddler was here" in errors
    assert "is written by the engine alone" in out
    assert {call.get("metrics", {}).get("accuracy") for call in seen()} <= {None, 1.0}
    run = next(list_runs(open_store(project)))
    assert run.metrics["accuracy"]["accuracy"] == 1.0
    assert [gate.passed for gate in run.gates] == [False]
    assert run.state == "refused"


def test_a_promotion_and_a_rollback_are_told_with_the_run_that_made_the_model(run, seen, project, monkeypatch):
    first = run()
    other = run(overrides={"words.count": 20})
    seen()
    luthier.promote(first)
    luthier.promote(first)  # Nothing changed, so nothing is told.
    luthier.promote(other)
    (project / "plugins.d" / "meddler.py").write_text(MEDDLER)
    monkeypatch.setenv("LUTHIER_PLUGINS", "toys,watcher,meddler")
    heard = []
    assert luthier.rollback(listen=heard.append).entry.run == first.id
    common = {"hook": "promoted", "name": "watched"}
    assert seen() == [
        {**common, "run": first.id, "number": 1, "restored": False, "replaced": ""},
        {**common, "run": other.id, "number": 2, "restored": False, "replaced": first.id},
        {**common, "run": first.id, "number": 3, "restored": True, "replaced": other.id},
    ]
    # A hook that fails is recorded, and the champion is changed all the same.
    [failed] = [event for event in heard if event.type == "plugin_hook_failed"]
    assert (failed.plugin, failed.hook, failed.error) == ("meddler", "luthier_promoted", "ValueError: not that one")
    assert failed.to_json() in (first.path / "events.jsonl").read_text().splitlines()
