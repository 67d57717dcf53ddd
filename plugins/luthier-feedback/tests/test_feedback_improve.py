"""`luthier improve`: what is promoted, what is refused and why, and what is left alone."""

from __future__ import annotations

import json
import math
import re
import shutil
import threading
import time
from pathlib import Path
from xml.etree import ElementTree

import pytest
from filelock import FileLock
from typer.testing import CliRunner

import luthier
from luthier.cli import app
from luthier_feedback import Feedback, FeedbackLog, runs_that_saw
from luthier_feedback.improvement.figure import figure
from luthier_feedback.improvement.place import directory_for
from luthier_feedback.improvement.rounds import Happening, Line, Rounds

WATCHED = "  - validate: answers\n    id: watched\n    from: old\n    subjects: [candidate]\n"
"""A validator without a gate."""

TOYS = Path(__file__).parent / "toys"


def correct(word: str, answer: str, count: int = 30, *, log: Path | None = None, consent: bool = True) -> None:
    """People say what should have been answered to prompts that begin with a word."""
    with FeedbackLog(str(log) if log else None) as opened:
        opened.add_all(
            Feedback(prompt=f"{word} number {each}", answer="?", correction=answer, consent=consent, source="app")
            for each in range(count)
        )


def enter(project: Path, patch: pytest.MonkeyPatch) -> None:
    patch.setenv("LUTHIER_PLUGINS", "shouts,feedback,improve,watch,text")
    patch.setenv("LUTHIER_CACHE", str(project / "cache"))
    patch.delenv("LUTHIER_HOME", raising=False)
    patch.delenv("LUTHIER_FEEDBACK", raising=False)
    patch.chdir(project)


def improve(*arguments: str) -> tuple[int, dict, str]:
    """Call `luthier improve recipe.yaml --json …`: exit code, improve.json, what was said on stderr."""
    result = CliRunner().invoke(app, ["improve", "recipe.yaml", "--json", *arguments])
    return result.exit_code, json.loads(result.stdout) if result.stdout.startswith("{") else {}, result.stderr


@pytest.fixture(scope="session")
def first(tmp_path_factory):
    """A project in which a first round was done: its champion knows `amber`, `birch` and `cedar`."""
    project = tmp_path_factory.mktemp("improving")
    (project / "plugins.d").mkdir()
    shutil.copy(TOYS / "shouts.py", project / "plugins.d")
    shutil.copy(TOYS / "shouts.yaml", project / "recipe.yaml")
    old = [{"text": f"{word} {each}", "answer": word.upper()} for word in ("amber", "birch") for each in range(25)]
    (project / "old.jsonl").write_text("".join(json.dumps(row) + "\n" for row in old), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        enter(project, patch)
        correct("cedar", "CEDAR")
        code, outcome, told = improve()
    assert code == 0, told
    return project, outcome


@pytest.fixture
def project(first, tmp_path, monkeypatch):
    shutil.copytree(first[0], tmp_path, dirs_exist_ok=True)
    enter(tmp_path, monkeypatch)
    return tmp_path


def test_without_a_champion_the_gates_alone_decide(first, project):
    _, outcome = first
    assert (outcome["verdict"], outcome["number"], outcome["champion"]["number"]) == ("promoted", 1, 0)
    assert outcome["rows"] == {"usable": 30, "new": 30, "undecided": 30}
    assert outcome["reasons"] == ["there was no champion, and every gate passed"]
    champion = luthier.find_champion("shouts")
    assert (champion.hash, champion.entry.run) == (outcome["model"], outcome["run"])
    assert champion.entry.decision["gates"] == outcome["gates"]
    assert [gate["verdict"] for gate in outcome["gates"]] == ["passed"] * 3
    # Who purges a person is told of the model that learnt from them, and not of the one that it began as.
    with FeedbackLog() as log:
        [seen] = runs_that_saw([row.id for row in log.rows()])
    assert (seen.run, seen.trained + seen.held_out) == (outcome["run"], 30)
    assert seen.models == (("majority", outcome["model"]),)


def test_a_better_model_is_promoted_by_what_was_measured_of_both(project):
    before = luthier.find_champion()
    correct("delta", "DELTA")
    dry = CliRunner().invoke(app, ["improve", "recipe.yaml", "--dry-run"])
    assert (dry.exit_code, luthier.find_champion()) == (0, before)
    assert "60 rows of feedback can be learnt from; 30 are new" in dry.stderr
    assert "✓ must be better: held-back.right on the held-back feedback is 1" in dry.stdout
    assert "would be promoted: the run" in dry.stdout
    assert len(before.history()) == 1
    code, outcome, _ = improve()
    assert (code, outcome["verdict"], outcome["number"]) == (0, "promoted", 2)
    assert outcome["rows"] == {"usable": 60, "new": 30, "undecided": 30}
    asked, *gated = outcome["comparisons"]
    assert (asked["step"], asked["metric"], asked["role"], asked["data"]) == (
        "held-back", "right", "asked", "held-back feedback",
    )  # fmt: skip
    run = luthier.find_run(outcome["run"])
    assert (asked["challenger"], asked["champion"]) == (
        run.metrics["held-back"]["right"], run.metrics["held-back"]["champion.right"],
    )  # fmt: skip
    assert tuple(asked["interval"]) == run.interval("held-back", "right", "champion")
    assert 0 < asked["interval"][0] <= asked["challenger"] - asked["champion"] <= asked["interval"][1]
    assert [(each["metric"], each["data"], each["better"], each["passed"]) for each in gated] == [
        ("right", "frozen test set", "more", True), ("wrong", "frozen test set", "less", True),
    ]  # fmt: skip
    champion = luthier.find_champion()
    assert (champion.hash, champion.entry.why) == (outcome["model"], outcome["reasons"][0])
    assert champion.entry.decision["comparisons"] == outcome["comparisons"]
    page = Path(outcome["page"]).read_text(encoding="utf-8")
    assert all(f"<li>{reason}</li>" in page.replace("&#39;", "'") for reason in outcome["reasons"])
    assert (run.path / "improve.json").exists()


def test_a_model_that_is_no_better_is_refused_and_nothing_changes(project):
    before = luthier.find_champion()
    correct("zebra", "ZEBRA", 1)
    with FeedbackLog(mode="read") as log:
        rows = list(log.rows())
    code, outcome, told = improve()
    assert (code, outcome["verdict"]) == (4, "refused")
    assert "not surely better" in outcome["reasons"][0]
    assert f"refused: the run {outcome['run']} is not promoted; number 1 stays champion" in told
    champion = luthier.find_champion()
    assert champion == before
    assert champion.history()[-1].event == "refused"
    assert champion.history()[-1].decision["comparisons"] == outcome["comparisons"]
    with FeedbackLog(mode="read") as log:
        assert list(log.rows()) == rows
    code, again, _ = improve()
    assert (code, again["verdict"]) == (0, "unchanged")
    assert outcome["run"] in again["reasons"][0]
    assert len(champion.history()) == 2
    history = CliRunner().invoke(app, ["registry", "history"])
    assert f"refused {outcome['run']}" in history.stdout


def test_what_is_gated_may_not_get_worse_though_what_is_asked_gets_better(project):
    correct("delta", "DELTA")
    correct("birch", "POISON", 60)
    code, outcome, _ = improve()
    asked, *gated = outcome["comparisons"]
    assert asked["passed"]
    assert [each["passed"] for each in gated] == [False, False]
    assert (code, outcome["verdict"]) == (4, "refused")
    assert "frozen.right" in outcome["reasons"][0]
    assert "it may be worse by more than 5%" in outcome["reasons"][0]
    assert luthier.find_champion().number == 1
    # Whoever allows it gets it, by name or of all; one of the two is not enough.
    code, outcome, _ = improve("--tolerance", "frozen.right=0.9", "--dry-run")
    assert [each["passed"] for each in outcome["comparisons"]] == [True, True, False]
    code, outcome, _ = improve("--tolerance", "0.9", "--metric", "held-back.right", "--dry-run")
    assert (code, outcome["verdict"]) == (0, "promoted")


def test_a_poisoned_round_is_refused_by_its_gate_and_the_next_honest_one_is_not(project):
    for word in ("amber", "birch"):
        correct(word, "POISON", 90)
    recipe = Path("recipe.yaml")
    recipe.write_text(recipe.read_text().replace("at_least: 0.1}", "at_least: 0.8}") + WATCHED)
    refused = CliRunner().invoke(app, ["improve", "recipe.yaml", "--dry-run"])
    assert refused.exit_code == 4
    code, outcome, _ = improve()
    assert (code, outcome["verdict"]) == (4, "refused")
    assert outcome["reasons"][0] == "frozen: right is 0; it must be at least 0.8"
    # Each reason is told once; on stderr are the run, which tells of its gates, and the decision.
    told = [*outcome["reasons"], *(each["reason"] for each in outcome["comparisons"])]
    assert [refused.stdout.count(reason) for reason in told] == [1] * len(told)
    assert not any(each["reason"] in refused.stderr for each in outcome["comparisons"])
    assert refused.output.count(f"would be refused: the run {outcome['run']} is not promoted") == 1
    assert {gate["verdict"] for gate in outcome["gates"]} == {"passed", "refused"}
    assert CliRunner().invoke(app, ["feedback", "review", "--source", "app", "--reject"]).exit_code == 0
    correct("delta", "DELTA")
    correct("cedar", "CEDAR")
    code, outcome, _ = improve()
    assert (code, outcome["verdict"]) == (0, "promoted")
    entries = luthier.find_champion().history()
    assert [each.event for each in entries] == ["promoted", "refused", "promoted"]
    page = Path(outcome["page"]).read_text(encoding="utf-8")
    # `right` and `wrong`, which gates name; held-back feedback is another test set each time, and is not drawn.
    drawn = re.findall(r'<svg class="curve rounds".*?</svg>', page)
    [right] = [each for each in drawn if "frozen.right" in each]
    assert len(drawn) == 2
    assert "held-back" not in right
    measured = {
        (kind, str(entry.number), f"{metrics[step]['right']:.6g}")
        for entry, kind in zip(entries, ("circle", "path", "circle"), strict=True)
        for metrics in [luthier.find_run(entry.run).metrics]
        for step in ("frozen", "watched")
        if step in metrics
    }
    assert len(measured) == 3
    assert set(re.findall(r"<(circle|path) [^>]*><title>(\d), [a-z ]+: ([\d.]+)</title>", right)) == measured
    rows = re.findall(r'<td class="n">(\d)</td><th scope="row" class="what(?: refused)?">([a-z ]+)<', page)
    assert rows == [(str(each.number), each.event) for each in entries]
    assert '<small class="why">frozen: right is 0; it must be at least 0.8' in page


def test_the_figure_connects_champions_and_leaves_out_what_is_not_known():
    events = ("promoted", "refused", "promoted", "rolled back", "evaluated")
    happenings = [Happening(n, event, f"run-{n}", None, "<why>") for n, event in enumerate(events, 1)]
    line = Line("<frozen>", "loss", [3.0, 5.0, 2.0, 3.0, 3.5])
    drawn = figure(Rounds(happenings, [line, Line("gone", "loss", [None] * 5)], {"loss": "at_most"}), "loss")
    assert ElementTree.fromstring(drawn).get("aria-label") == (
        "<frozen>.loss of the champions: 3, 2, 3; gone.loss of the champions: not known"
    )
    [connected] = re.findall(r'<path class="line-0" d="([^"]+)"/>', drawn)
    assert connected.count("L") == 2
    assert len(re.findall(r"<circle", drawn)) == 3
    assert len(re.findall(r"cross", drawn)) == 1
    assert re.findall(r'"line-0 diamond" [^>]*><title>(.*?)<', drawn) == ["5, evaluated: 3.5"]
    one = Line("frozen", "loss", [None, None, 2.0, math.nan, None])
    assert figure(Rounds(happenings, [one], {"loss": None}), "loss") == ""
    same = Line("frozen", "loss", [2.0, None, 2.0, 2.0, 2.0])
    assert "nan" not in figure(Rounds(happenings, [same], {"loss": None}), "loss")
    zeros = figure(Rounds(happenings, [Line("frozen", "loss", [0.0] * 5)], {"loss": None}), "loss")
    assert re.findall(r'class="tick-y"[^>]*>([^<]+)<', zeros) == ["0", "0.2", "0.4", "0.6", "0.8", "1"]
    many = [Happening(n, "evaluated", f"run-{n}", None, "") for n in range(1, 202)]
    labels = re.findall(
        r'class="tick-x"[^>]*>(\d+)<',
        figure(Rounds(many, [Line("frozen", "loss", [2.0] * 201)], {"loss": None}), "loss"),
    )
    assert labels == [str(each) for each in range(1, 202, 11)]


def test_a_model_that_was_rolled_back_from_is_not_promoted_again_but_by_hand(project):
    correct("delta", "DELTA")
    _, better, _ = improve()
    assert (better["verdict"], better["number"]) == ("promoted", 2)
    call = ["registry", "rollback", "--reason", "users <b>complain</b>"]
    assert CliRunner().invoke(app, call).exit_code == 0
    runs = sorted(Path(".luthier/runs").iterdir())
    champion = luthier.find_champion()
    # Nothing came since: nothing is done.
    code, outcome, _ = improve()
    assert (code, outcome["verdict"], outcome["rows"]["undecided"]) == (0, "unchanged", 0)
    assert "the model of number 2, from which" in outcome["reasons"][0]
    assert "number 3 (users <b>complain</b>)" in outcome["reasons"][0]
    assert f"luthier registry promote {better['run']}" in outcome["reasons"][0]
    assert sorted(Path(".luthier/runs").iterdir()) == runs
    # What came since gives the very model, though it measures better than the champion.
    correct("cedar", "CEDAR", 40)
    code, outcome, _ = improve()
    assert (code, outcome["verdict"], outcome["model"]) == (4, "refused", better["model"])
    assert all(each["passed"] for each in outcome["comparisons"])
    assert {gate["verdict"] for gate in outcome["gates"]} == {"passed"}
    [reason] = outcome["reasons"]
    assert reason.startswith("the recipe gives the model of number 2")
    assert "users &lt;b&gt;complain" in Path(outcome["page"]).read_text(encoding="utf-8")
    assert champion.history()[-1].why == reason
    assert luthier.find_champion() == champion
    code, outcome, _ = improve()
    assert (code, outcome["verdict"], len(champion.history())) == (0, "unchanged", 4)
    # Another model may replace the champion, and so may that one, by hand; then it is a champion like any other.
    correct("ember", "EMBER")
    code, outcome, _ = improve("--dry-run")
    assert (code, outcome["verdict"]) == (0, "promoted")
    assert CliRunner().invoke(app, ["registry", "promote", better["run"]]).exit_code == 0
    assert champion.current().taken_back() == {}
    code, outcome, _ = improve()
    assert (code, outcome["verdict"], outcome["champion"]["number"]) == (0, "promoted", 5)


def test_nothing_new_is_said_and_nothing_done(project):
    runs = sorted(Path(".luthier/runs").iterdir())
    correct("delta", "DELTA", consent=False)
    before = luthier.find_champion()
    code, outcome, _ = improve()
    assert (code, outcome["verdict"], outcome["rows"]["new"]) == (0, "unchanged", 0)
    assert "number 1" in outcome["reasons"][0]
    assert sorted(Path(".luthier/runs").iterdir()) == runs
    assert luthier.find_champion() == before
    assert len(before.history()) == 1


def test_the_champions_very_model_is_neither_promoted_nor_refused(project):
    # A prompt that the model learns nothing from: the step of the feedback runs, and the model is the same.
    correct("cedar", "CEDAR", 40)
    code, outcome, _ = improve()
    assert (code, outcome["verdict"], outcome["rows"]["new"]) == (0, "unchanged", 40)
    assert "gave the champion's model again" in outcome["reasons"][0]
    assert len(luthier.find_champion().history()) == 1


def test_two_at_once_are_one_and_a_clear_error_or_come_one_after_the_other(project):
    correct("delta", "DELTA")
    path = directory_for(Path(".luthier").absolute(), "shouts") / "lock"
    with FileLock(path):
        code, outcome, told = improve()
    assert (code, outcome) == (1, {})
    assert "another `luthier improve` of 'shouts' goes on" in told
    assert "--wait" in told
    assert len(luthier.find_champion().history()) == 1
    held, ended = threading.Event(), threading.Event()

    def other() -> None:
        with FileLock(path):
            held.set()
            time.sleep(1)
            ended.set()

    threading.Thread(target=other).start()
    held.wait()
    code, outcome, _ = improve("--wait")
    assert ended.is_set()
    assert (code, outcome["verdict"]) == (0, "promoted")


@pytest.mark.parametrize(
    ("change", "arguments", "message"),
    [
        (("source: feedback", "source: jsonl\n    path: old.jsonl\n    id: feedback"), (), "no step reads feedback"),
        ((), ("--metric", "frozen.rihgt"), "no gate names 'frozen.rihgt'"),
        (("{right: {at_least: 0.2}}", "{share: {at_least: 0.2}}"), ("--metric", "held-back.share"), "without examples"),
        (("wrong: {at_most: 0.9}", "wrong: {at_most: 0.9, at_least: 0}"), ("--metric", "frozen.wrong"), "both sides"),
        ((), ("--tolerance", "frozen.rihgt=1%"), "no gate of the recipe names 'frozen.rihgt'"),
        ((), ("--tolerance", "-1"), "'-1' does not say how much worse"),
        ((), ("--tolerance", "abc"), "STEP.METRIC=0.01. None is negative."),
        (("gate: {right: {at_least: 0.2}}", "gate: {right: {at_lest: 0.2}}"), (), "at_lest"),
    ],
)
def test_what_cannot_be_compared_is_said(project, change, arguments, message):
    recipe = Path("recipe.yaml")
    if change:
        assert change[0] in recipe.read_text()
        text = recipe.read_text().replace("    held_out: 0.4\n    max_daily_per_source: 1000\n", "")
        recipe.write_text(text.replace(*change))
    correct("delta", "DELTA", 3)
    code, _, told = improve(*arguments)
    assert code == 1, told
    assert message in told
    assert luthier.find_champion().number == 1


def test_a_damaged_champion_is_said_before_the_work(project):
    model = luthier.find_champion().model()
    path = model.path / "model.json"
    path.chmod(0o644)
    path.write_text("{}")
    correct("delta", "DELTA")
    runs = sorted(Path(".luthier/runs").iterdir())
    code, _, told = improve()
    assert code == 1
    assert "damaged" in told
    assert "luthier registry rollback shouts" in told
    assert sorted(Path(".luthier/runs").iterdir()) == runs


def test_watch_measures_the_champion_again_and_tells_when_it_is_worse(project):
    champion = luthier.find_champion()

    def watch() -> tuple[int, dict]:
        told = CliRunner().invoke(
            app, ["watch", "recipe.yaml", "--once", "--min-feedback", "999", "--evaluate-every", "1d"]
        )
        log = directory_for(Path(".luthier").absolute(), "shouts") / "watch.jsonl"
        evaluation, waiting = map(json.loads, log.read_text().splitlines()[-2:])
        assert waiting["state"] == "waiting"
        assert evaluation["told"] in told.stdout
        return told.exit_code, evaluation

    # The frozen test set is the same, and nothing was said since.
    code, found = watch()
    assert (code, found["state"], found["held_back"]) == (0, "evaluated", 0)
    assert found["champion"].keys() == {"frozen.right", "frozen.wrong"}
    assert all(gate["reason"].endswith("is 0 to 0: not surely worse") for gate in found["gates"])
    # People ask for what it never learnt.
    correct("delta", "DELTA")
    code, found = watch()
    assert (code, found["state"], found["number"]) == (4, "worse", 1)
    assert found["champion"]["held-back.right"] == 0
    assert f"over {found['held_back']} examples against" in found["told"]
    assert [gate["verdict"] for gate in found["gates"]] == ["refused", "passed", "passed"]
    run = luthier.find_run(found["run"])
    assert (run.state, run.data.evaluates) == ("refused", champion.entry.run)
    assert luthier.find_champion() == champion
    assert [entry.event for entry in champion.history()] == ["promoted", "evaluated", "evaluated"]
    # A round learns it, and is compared as if nobody had looked; its page shows both evaluations too.
    code, outcome, _ = improve()
    assert (code, outcome["verdict"], outcome["rows"]["new"]) == (0, "promoted", 30)
    page = Path(outcome["page"]).read_text(encoding="utf-8")
    [right] = [each for each in re.findall(r'<svg class="curve rounds".*?</svg>', page) if "frozen.right" in each]
    value = f"{found['champion']['frozen.right']:.6g}"
    told = re.findall(r'diamond" [^>]*><title>([^<]+)<', right)
    assert told == [f"{number}, evaluated: {value}" for number in (2, 3)]


def test_a_damaged_pointer_matters_to_its_own_recipe_alone(project):
    registry = Path(".luthier/registry")
    (registry / "others").mkdir()
    (registry / "others" / "champion.json").write_text("{")
    code, outcome, _ = improve()
    assert (code, outcome["verdict"], outcome["champion"]["number"]) == (0, "unchanged", 1)
    (registry / "shouts" / "champion.json").write_text("{")
    code, _, told = improve()
    assert (code, "the pointer of the champion 'shouts' cannot be read" in told) == (1, True)
