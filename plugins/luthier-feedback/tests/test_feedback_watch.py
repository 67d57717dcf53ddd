"""`luthier watch`: rounds at their times, and what does not end them."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from filelock import FileLock
from typer.testing import CliRunner

from luthier import InputError
from luthier.cli import app
from luthier_feedback import Feedback, FeedbackLog
from luthier_feedback.improvement import watching
from luthier_feedback.improvement.evaluating import Evaluation
from luthier_feedback.improvement.outcome import Against, Outcome
from luthier_feedback.improvement.place import directory_for
from luthier_feedback.improvement.round import Wanted
from luthier_feedback.improvement.watching import Schedule, read_interval, watch

TOYS = Path(__file__).parent / "toys"


@dataclass
class Clock:
    """Time that passes while somebody sleeps or works; after the last sleep Ctrl-C is pressed."""

    naps: int
    now: float = 0.0
    began: list[float] = field(default_factory=list)

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.naps -= 1
        if not self.naps:
            raise KeyboardInterrupt


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A recipe that was never run, and three rows of feedback."""
    (tmp_path / "plugins.d").mkdir()
    (tmp_path / "plugins.d" / "shouts.py").write_text((TOYS / "shouts.py").read_text())
    (tmp_path / "recipe.yaml").write_text((TOYS / "shouts.yaml").read_text())
    (tmp_path / "old.jsonl").write_text('{"text": "amber 1", "answer": "AMBER"}\n')
    monkeypatch.setenv("LUTHIER_PLUGINS", "shouts,feedback,watch,text")
    monkeypatch.delenv("LUTHIER_HOME", raising=False)
    monkeypatch.delenv("LUTHIER_FEEDBACK", raising=False)
    monkeypatch.chdir(tmp_path)
    with FeedbackLog() as log:
        log.add_all(Feedback(prompt=f"cedar {n}", answer="?", correction="CEDAR", consent=True) for n in range(3))
    return tmp_path


@pytest.fixture
def rounds(monkeypatch):
    """What rounds come to, one after another, without running them; the times at which they began."""

    def script(clock: Clock, *results: Exception | float) -> None:
        left = iter(results)

        def improve(wanted: Wanted) -> Outcome:
            clock.began.append(clock.now)
            result = next(left)
            if isinstance(result, Exception):
                raise result
            clock.now += result
            return Outcome("shouts", "refused", False, ["worse"], Against(1, "r", "m"), {}, {}, "", run="r2")

        monkeypatch.setattr(watching, "improve", improve)

    return script


def watched(project: Path) -> list[dict]:
    path = directory_for(project / ".luthier", "shouts") / "watch.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_rounds_begin_at_their_times_whatever_becomes_of_one(project, rounds):
    clock, told = Clock(naps=5), []
    rounds(clock, 10.0, InputError("the log is gone", "Bring it back."), 250.0, ValueError("a bug"), 0.0)
    with pytest.raises(KeyboardInterrupt):
        watch(Wanted(Path("recipe.yaml")), Schedule(100.0), told.append, clock=clock, sleep=clock.sleep)
    # One that took longer than the interval is followed at once.
    assert clock.began == [0.0, 100.0, 200.0, 450.0, 550.0]
    kept = watched(project)
    assert [each["state"] for each in kept] == ["refused", "failed", "refused", "failed", "refused"]
    assert kept[1]["remedy"] == "Bring it back."
    assert "ValueError: a bug" in kept[3]["traceback"]
    assert "failed: the log is gone" in told[1]
    # The lock is free again.
    rounds(clock, 0.0)
    watch(Wanted(Path("recipe.yaml")), Schedule(100.0, once=True), told.append)
    assert len(watched(project)) == 6


def test_evaluations_have_times_of_their_own_and_come_before_rounds(project, rounds, monkeypatch):
    clock, told, evaluated = Clock(naps=5), [], []
    results = iter(
        [Evaluation("evaluated", "as good", 1), InputError("no"), Evaluation("worse", "the champion fell", 1)]
    )

    def evaluate(wanted: Wanted) -> Evaluation:
        evaluated.append((clock.now, len(clock.began)))
        result = next(results)
        if isinstance(result, Exception):
            raise result
        return result

    monkeypatch.setattr(watching, "evaluate", evaluate)
    rounds(clock, 10.0, 10.0, 10.0)
    with pytest.raises(KeyboardInterrupt):
        watch(
            Wanted(Path("recipe.yaml")),
            Schedule(100.0, evaluate_every=80.0),
            told.append,
            clock=clock,
            sleep=clock.sleep,
        )
    assert clock.began == [0.0, 100.0, 200.0]
    assert evaluated == [(0.0, 0), (80.0, 1), (160.0, 2)]
    kept = watched(project)
    assert [each["state"] for each in kept] == ["evaluated", "refused", "failed", "refused", "worse", "refused"]
    assert "evaluation: the champion fell" in told[4]


def test_a_round_waits_for_enough_feedback(project, rounds):
    clock, told = Clock(naps=1), []
    rounds(clock, 0.0)
    watch(Wanted(Path("recipe.yaml")), Schedule(60.0, min_feedback=4, once=True), told.append)
    assert clock.began == []
    assert "waiting: 3 acts of feedback are new, 4 are wanted" in told[0]
    watch(Wanted(Path("recipe.yaml")), Schedule(60.0, min_feedback=3, once=True), told.append)
    assert clock.began == [0.0]
    assert [each["state"] for each in watched(project)] == ["waiting", "refused"]


def test_a_comparison_is_waited_for_as_one(project, rounds):
    recipe = (project / "recipe.yaml").read_text()
    (project / "recipe.yaml").write_text(recipe.replace("source: feedback", "source: feedback\n    kind: pairs"))
    with FeedbackLog() as log:
        log.add_all(
            Feedback(prompt=f"oak {n}", answer=answer, vote=vote, comparison=f"c{n}", consent=True)
            for n in range(2)
            for answer, vote in (("OAK", 1), ("?", -1))
        )
    clock, told = Clock(naps=1), []
    rounds(clock, 0.0)
    watch(Wanted(Path("recipe.yaml")), Schedule(60.0, min_feedback=6, once=True), told.append)
    # Three corrections, and two comparisons of two rows.
    assert "waiting: 5 acts of feedback are new, 6 are wanted" in told[0]
    assert watched(project)[0]["rows"] == {"usable": 7, "new": 7, "undecided": 7}
    watch(Wanted(Path("recipe.yaml")), Schedule(60.0, min_feedback=5, once=True), told.append)
    assert clock.began == [0.0]


@pytest.mark.parametrize(("error", "code"), [(InputError("the log is gone"), 1), (ValueError("a bug"), 3)])
def test_from_cron_a_round_that_fails_is_told_by_the_exit_code(project, rounds, error, code):
    rounds(Clock(naps=1), error)
    result = CliRunner().invoke(app, ["watch", "recipe.yaml", "--once"])
    assert result.exit_code == code
    assert str(error) in result.stdout
    assert [each["state"] for each in watched(project)] == ["failed"]


def test_one_watcher_a_recipe(project):
    with FileLock(directory_for(project / ".luthier", "shouts") / "watch.lock"):
        result = CliRunner().invoke(app, ["watch", "recipe.yaml", "--once"])
    assert result.exit_code == 1
    assert "is watched already" in result.stderr


def test_what_is_wrong_from_the_beginning_ends_it(project):
    Path("recipe.yaml").write_text("luthier: 1\nname: shouts\nsteps: []\n")
    assert CliRunner().invoke(app, ["watch", "recipe.yaml", "--once"]).exit_code == 1
    assert CliRunner().invoke(app, ["watch", "missing.yaml", "--once"]).exit_code == 1
    Path("recipe.yaml").write_text("luthier: 1\nname: shouts\nsteps:\n- source: jsonl\n  path: old.jsonl\n")
    without = CliRunner().invoke(app, ["watch", "recipe.yaml"])
    assert (without.exit_code, "no step reads feedback" in without.stderr) == (1, True)
    assert not Path(".luthier/improve").exists()


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("30m", 1800), ("12h", 43200), (" 1d ", 86400)])
def test_intervals_are_read(text, seconds):
    assert read_interval(text) == seconds


def test_an_evaluation_needs_a_champion_and_its_interval_is_read(project):
    waits = CliRunner().invoke(app, ["watch", "recipe.yaml", "--once", "--min-feedback", "9", "--evaluate-every", "1d"])
    assert waits.exit_code == 0, waits.output
    assert "evaluation: there is no champion 'shouts' to evaluate" in waits.stdout
    wrong = CliRunner().invoke(app, ["watch", "recipe.yaml", "--once", "--evaluate-every", "often"])
    assert wrong.exit_code == 1
    assert "--evaluate-every: 'often' is no time" in wrong.stderr


@pytest.mark.parametrize("text", ["", "d", "1", "0m", "-1d", "1.5h", "1w", "400d", "\u0661d"])
def test_what_is_no_interval_is_refused(text):
    with pytest.raises(InputError, match="is no time up to a year"):
        read_interval(text)
