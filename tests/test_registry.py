"""Champions: promoting, rolling back, what is kept, what is refused, and what a kill or damage leaves."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from typer.testing import CliRunner

import luthier
from luthier import InputError
from luthier.api import open_store
from luthier.champion_history import HistoryEntry, released, taken_back
from luthier.champions import champion_in, forget
from luthier.cli import app
from luthier.errors import GateRefused
from luthier.events import Promoted
from luthier.garbage import collect
from luthier.registry import HISTORY, POINTER, Champions
from luthier.runs import list_runs
from luthier.store import Store

TOYS = Path(__file__).parent / "toys"
ON_CHAMPION = "        - {at_least: champion + 0.0, confidence: 0.95}\n"
GATE = "      accuracy: {at_least: base + 0.5, confidence: 0.95}\n"


@pytest.fixture(scope="session")
def workshop(tmp_path_factory):
    """A project whose store has five runs of one recipe: `good`, `other`, `refused`, `part`, `failed`."""
    project = tmp_path_factory.mktemp("workshop")
    (project / "plugins.d").mkdir()
    shutil.copy(TOYS / "toys.py", project / "plugins.d" / "toys.py")
    text = (TOYS / "recipe.yaml").read_text()
    both = GATE.replace("accuracy: {", "accuracy:\n        - {") + ON_CHAMPION
    assert GATE in text
    (project / "recipe.yaml").write_text(text.replace(GATE, both))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LUTHIER_PLUGINS", "toys")
        patch.setenv("LUTHIER_CACHE", str(project / "cache"))
        patch.delenv("LUTHIER_HOME", raising=False)
        patch.chdir(project)

        def run(**options):
            return luthier.run(project / "recipe.yaml", display=False, jobs=1, **options).id

        ids = {"good": run(), "other": run(overrides={"longer.at_least": 12}), "part": run(until="freeze")}
        for name, overrides in (("refused", {"freeze.lossy": True}), ("failed", {"teach.fail": "value"})):
            with pytest.raises(luthier.LuthierError):
                run(overrides=overrides)
            ids[name] = next(list_runs(open_store(project))).id
    return project, ids


@pytest.fixture
def project(workshop, tmp_path, monkeypatch):
    shutil.copytree(workshop[0], tmp_path, dirs_exist_ok=True)
    monkeypatch.setenv("LUTHIER_PLUGINS", "toys")
    monkeypatch.setenv("LUTHIER_CACHE", str(workshop[0] / "cache"))
    monkeypatch.delenv("LUTHIER_HOME", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def ids(workshop):
    return workshop[1]


@pytest.fixture
def both(project, ids):
    """`good` was champion, and `other` is."""
    luthier.promote(ids["good"], why="the first")
    return luthier.promote(ids["other"], force=True, why="a try")


def events_of(project, run):
    return [json.loads(line) for line in (project / ".luthier" / "runs" / run / "events.jsonl").open()]


def call(*arguments):
    result = CliRunner().invoke(app, list(arguments))
    return result.exit_code, result.output


# --- promoting ----------------------------------------------------------------------------------------


def test_a_promoted_model_is_found_wherever_a_model_or_a_run_is_named(project, ids):
    made = luthier.promote(ids["good"], why="it is good")
    run = luthier.find_run(ids["good"])
    for name in (None, "champion", "toys", "champion:toys"):
        champion = luthier.find_champion(name)
        assert (champion.name, champion.hash, champion.number) == ("toys", run.model().hash, 1)
        assert champion.token == made.token
    for name in ("champion", "champion:toys"):
        assert luthier.find_model(name).hash == run.model().hash
        assert luthier.find_run(name).id == ids["good"]
    for name in ("champion:teach", "champion:toys:teach"):
        assert luthier.find_model(name).hash == run.model("teach").hash
    with pytest.raises(InputError, match="there is no champion of the name 'taech'"):
        luthier.find_model("champion:taech")
    entry = made.entry
    assert (entry.event, entry.recipe, entry.step, entry.kind, entry.form) == (
        "promoted", "toys", "freeze", "onnx", "toy-onnx",
    )  # fmt: skip
    assert entry.why == "it is good"
    assert "@" in entry.who
    assert [gate["metric"] for gate in entry.gates] == ["accuracy", "accuracy", "agreement"]
    assert made.run.metrics["accuracy"]["accuracy"] == 1.0
    assert made.run.report("accuracy").metric_records()[0]["per_example"]


def test_promoting_what_is_champion_changes_nothing(project, ids):
    first = luthier.promote(ids["good"])
    heard = []
    assert luthier.promote(ids["good"], listen=heard.append) == first
    assert heard == []
    assert len(Champions(first.store).history("toys")) == 1


def test_a_run_whose_gates_refused_is_promoted_only_by_force_with_a_reason(project, ids):
    with pytest.raises(GateRefused, match="accuracy is 0; it must be at least base"):
        luthier.promote(ids["refused"])
    with pytest.raises(InputError, match="forced without a reason"):
        luthier.promote(ids["refused"], force=True)
    with pytest.raises(InputError, match="there is no champion"):
        luthier.find_champion()
    forced = luthier.promote(ids["refused"], force=True, why="for the demonstration")
    assert any("it must be at least base" in each for each in forced.entry.overruled)
    assert forced.entry.why == "for the demonstration"


def test_a_run_that_stopped_before_its_gates_is_not_proven(project, ids):
    with pytest.raises(GateRefused, match="accuracy: its gate was not judged") as caught:
        luthier.promote(ids["part"])
    assert "agreement: its gate was not judged" in caught.value.message


def test_a_run_that_was_not_finished_is_never_promoted(project, ids):
    with pytest.raises(InputError, match=r"is failed.*the teacher is ill"):
        luthier.promote(ids["failed"], force=True, why="no matter what")


def test_a_gate_that_was_judged_against_another_champion_speaks_against_a_run(project, ids):
    luthier.promote(ids["good"])
    with pytest.raises(GateRefused, match=r"judged before number 1, of the run .* was champion"):
        luthier.promote(ids["other"])
    again = luthier.run("recipe.yaml", overrides={"longer.at_least": 12}, display=False, jobs=1)
    assert [gate.verdict for gate in again.gates] == ["passed", "passed", "passed"]
    assert luthier.promote(again).number == 2


def test_who_compared_with_a_champion_replaces_that_one_or_none(project, ids):
    with pytest.raises(InputError, match="it was number 3 and is none"):
        luthier.promote(ids["good"], replacing=3)
    first = luthier.promote(ids["good"], replacing=0, decision={"rougeL": [0.01, 0.03]})
    assert first.entry.decision == {"rougeL": [0.01, 0.03]}
    with pytest.raises(InputError, match="changed meanwhile: it was none and is number 1"):
        luthier.promote(ids["other"], replacing=0, force=True, why="x")
    assert luthier.promote(ids["other"], replacing=1, force=True, why="x").number == 2


def test_a_damaged_model_is_not_promoted(project, ids, damage):
    damage(luthier.find_run(ids["good"]).model().hash)
    with pytest.raises(InputError, match=r"the model of the run .* is damaged"):
        luthier.promote(ids["good"])
    with pytest.raises(InputError, match="there is no champion"):
        luthier.find_champion()


def test_champions_of_several_names_are_told_apart(project, ids):
    luthier.promote(ids["good"])
    luthier.promote(ids["good"], name="Production 2.0 größer")
    luthier.promote(ids["other"], name="production 2.0 größer", force=True, why="another name")
    assert [each.name for each in luthier.list_champions()] == sorted(
        ["toys", "Production 2.0 größer", "production 2.0 größer"]
    )
    with pytest.raises(InputError, match="there are 3 champions") as caught:
        luthier.find_model("champion")
    assert "champion:Production 2.0 größer" in caught.value.remedy
    assert luthier.find_champion("Production 2.0 größer").entry.run == ids["good"]
    assert luthier.find_champion("production 2.0 größer").entry.run == ids["other"]
    with pytest.raises(InputError) as caught:
        luthier.find_champion("toyz")
    assert "did you mean 'toys'" in caught.value.remedy
    for name in ("../up", "a/b", "", ".hidden", "x" * 101):
        with pytest.raises(InputError, match="can be no champion's name"):
            Champions(open_store(project)).change(name, lambda champion, past: None)


def test_who_watches_sees_a_change_by_its_token(project, ids):
    champion = luthier.promote(ids["good"])
    assert champion.current().token == champion.token
    luthier.promote(ids["other"], force=True, why="x")
    assert (now := champion.current()).token != champion.token
    forget(champion.store, "toys")
    assert now.current().token == now.token  # What is forgotten changes no champion.
    luthier.promote(ids["refused"], name="elsewhere", force=True, why="x")
    assert now.current().token == now.token


# --- going back ---------------------------------------------------------------------------------------


def content(model):
    return {path.relative_to(model.path): path.read_bytes() for path in model.path.rglob("*") if path.is_file()}


def test_a_rollback_restores_the_exact_bytes(both, ids):
    before = content(luthier.find_run(ids["good"]).model())
    heard = []
    back = luthier.rollback(why="users complain", listen=heard.append)
    assert content(luthier.find_model("champion")) == before
    assert (back.number, back.entry.event, back.entry.restores, back.entry.run) == (3, "rolled back", 1, ids["good"])
    assert [(event.restored, event.replaced) for event in heard if isinstance(event, Promoted)] == [
        (True, ids["other"])
    ]
    with pytest.raises(InputError, match="there is no champion 'toys' before number 1"):
        luthier.rollback()
    assert luthier.rollback(to=2).entry.run == ids["other"]
    assert luthier.rollback(to=ids["good"]).entry.run == ids["good"]
    assert luthier.rollback(to=ids["good"]).number == 5  # It is that already.
    assert luthier.rollback(to=3).number == 5  # Number 3 restored the same one.
    with pytest.raises(InputError, match="no promotion of 'toys' has the number or the run 9"):
        luthier.rollback(to=9)
    assert [entry.event for entry in back.history()] == [
        "promoted", "promoted", "rolled back", "rolled back", "rolled back",
    ]  # fmt: skip


def test_a_damaged_champion_is_found_and_the_way_back_is_told(both, ids, damage):
    damage(both.hash)
    assert luthier.find_champion().model().hash == both.hash  # Of the same size: only reading it tells.
    for ask in (lambda: luthier.find_model("champion"), lambda: luthier.find_champion().model()):
        with pytest.raises(InputError, match=r"the model of the champion 'toys' .* is damaged") as caught:
            ask()
        assert "luthier registry rollback toys" in caught.value.remedy
    luthier.rollback()
    assert luthier.find_model("champion").hash == luthier.find_run(ids["good"]).model().hash
    with pytest.raises(InputError, match=r"number 2, of the run .* is damaged"):
        luthier.rollback(to=2)


# --- what is kept -------------------------------------------------------------------------------------


def test_what_the_history_names_outlives_garbage_collection_until_it_is_forgotten(both, ids):
    store = both.store
    old = luthier.find_run(ids["good"]).model().hash
    assert collect(store, keep_runs=0, grace_seconds=0, dry_run=True).runs == 3
    collect(store, keep_runs=0, grace_seconds=0)
    assert {run.id for run in list_runs(store)} == {ids["good"], ids["other"]}
    assert store.verify(old)
    assert store.verify(both.hash)
    for run in list_runs(store):
        assert run.report("accuracy").metric_records()  # What a challenger is compared with.
        assert run.interval("accuracy", "accuracy", "base")
        with pytest.raises(InputError):
            run.dataset("unique")  # The data are not kept.
    assert forget(store, "toys", keep=1) is None
    assert forget(store, "toys", why="no longer needed").forgotten == [1]
    collect(store, keep_runs=0, grace_seconds=0)
    assert store.get(old) is None
    assert [run.id for run in list_runs(store)] == [ids["other"]]
    assert luthier.find_model("champion").hash == both.hash
    with pytest.raises(InputError, match="there is no champion 'toys' before number 2"):
        luthier.rollback()
    with pytest.raises(InputError, match="number 1 of 'toys' was forgotten"):
        luthier.rollback(to=1)


def test_a_name_can_be_given_up(both, ids):
    forget(both.store, "toys", withdraw=True)
    with pytest.raises(InputError, match="there is no champion"):
        luthier.find_champion()
    with pytest.raises(InputError, match="there is no champion of the name 'toys'"):
        both.current()
    assert Champions(both.store).held().artifacts == frozenset()
    assert luthier.promote(ids["good"]).number == 4


def test_a_clock_that_is_set_back_changes_no_order(project, ids, monkeypatch):
    times = iter(["2026-01-03T00:00:00+00:00", "2026-01-02T00:00:00+00:00", "2026-01-01T00:00:00+00:00"])
    monkeypatch.setattr("luthier.entries.now", lambda: next(times))
    luthier.promote(ids["good"])
    luthier.promote(ids["other"], force=True, why="x")
    assert luthier.find_champion().entry.run == ids["other"]
    back = luthier.rollback()
    assert back.entry.run == ids["good"]
    history = Champions(back.store).history("toys")
    assert [(entry.number, entry.time[:10]) for entry in history] == [
        (1, "2026-01-03"), (2, "2026-01-02"), (3, "2026-01-01"),
    ]  # fmt: skip


# --- damage, kills, several at once -------------------------------------------------------------------


def test_a_pointer_that_is_damaged_is_an_error_and_a_rollback_writes_it_anew(project, both, ids):
    directory = project / ".luthier" / "registry" / "toys"
    for spoil in (lambda path: path.write_text('{"version": 1, "nam'), lambda path: path.unlink()):
        spoil(directory / POINTER)
        with pytest.raises(InputError, match="the pointer of the champion 'toys' cannot be read") as caught:
            luthier.find_champion()
        assert "luthier registry rollback toys --to NUMBER" in caught.value.remedy
        with pytest.raises(InputError, match="cannot be read"):
            collect(both.store)  # Nobody knows what is to be kept.
        code, said = call("registry", "list")
        assert (code, "cannot be read" in said) == (1, True)
        assert luthier.rollback("toys", to=1).entry.run == ids["good"]
        assert luthier.find_champion().entry.run == ids["good"]


def test_a_champion_that_is_damaged_hides_no_other(project, both, ids):
    luthier.promote(ids["good"], name="others")
    (project / ".luthier" / "registry" / "others" / POINTER).write_text("{")
    with pytest.warns(UserWarning, match=r"'others' cannot be read .*\n.*rollback others --to NUMBER") as told:
        assert luthier.list_champions() == [both]
    assert [warning.filename for warning in told] == [__file__]
    code, said = call("registry", "list")
    assert (code, "toys" in said, "rollback others --to NUMBER" in said) == (1, True, True)
    code, said = call("registry", "list", "--json")
    sound, damaged = json.loads(said)
    assert (code, sound["name"], damaged["name"]) == (1, "toys", "others")
    assert "luthier registry rollback others --to NUMBER" in damaged["remedy"]


def test_what_a_newer_luthier_wrote_is_left_alone(project, both, ids):
    pointer = project / ".luthier" / "registry" / "toys" / POINTER
    newer = json.dumps(json.loads(pointer.read_text()) | {"version": 2, "champion": 7})
    pointer.write_text(newer)
    for ask in (luthier.find_champion, luthier.rollback, lambda: luthier.promote(ids["good"])):
        with pytest.raises(InputError, match="has version 2; this Luthier reads up to 1"):
            ask()
    assert pointer.read_text() == newer


def test_a_damaged_history_is_told_by_its_line_and_serving_goes_on(project, both):
    history = project / ".luthier" / "registry" / "toys" / HISTORY
    lines = history.read_text().splitlines()
    history.write_text("\n".join(["{", *lines[1:], ""]))
    assert luthier.find_model("champion").hash == both.hash
    with pytest.raises(InputError, match=r"history\.jsonl:1: it is no entry of a history"):
        luthier.rollback()


def test_two_promotions_at_once_come_one_after_the_other(project, ids):
    arguments = ("registry", "promote", "--force", "--reason", "at once", "--json")
    code = "from luthier.cli import main; main()"
    started = [
        subprocess.Popen([sys.executable, "-c", code, *arguments, ids[name]], stdout=subprocess.PIPE, text=True)
        for name in ("good", "other")
    ]
    told = [json.loads(process.communicate(timeout=60)[0]) for process in started]
    assert [process.returncode for process in started] == [0, 0]
    first, second = sorted(told, key=lambda each: each["number"])
    assert (first["number"], second["number"]) == (1, 2)
    assert (first["replaced"], second["replaced"]) == ("", first["run"])
    assert luthier.find_champion().entry.run == second["run"]


def promoted(number):
    model = {"run": f"run-{number}", "artifact": f"{number:064x}", "kind": "model", "form": "größer"}
    return HistoryEntry(0, "promoted", "", "", **model)


def test_a_full_disk_leaves_the_old_champion_or_the_new(tmp_path, monkeypatch):
    registry = Champions(Store(tmp_path))
    registry.change("toys", lambda champion, past: promoted(1))
    genuine, left, errors = os.fsync, 0, []

    def fsync(descriptor):
        nonlocal left
        left -= 1
        if left < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        genuine(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    for moment in range(20):
        before, left, made = registry.history("toys"), moment, None
        try:
            made = registry.change("toys", lambda champion, past: promoted(2))
        except InputError as error:
            errors.append(error.message)
        after = registry.history("toys")
        assert after[: len(before)] == before
        assert len(after) - len(before) in ((1,) if made else (0, 1))
        assert registry.champion("toys") == after[-1]
        if made and left >= 0:
            break
    assert made
    assert errors
    assert all("no space left on the disk" in message for message in errors)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="ends a process in the middle of a system call")
def test_a_process_that_dies_anywhere_leaves_the_old_champion_or_the_new(tmp_path, monkeypatch):
    registry = Champions(Store(tmp_path))
    registry.change("toys", lambda champion, past: promoted(1))
    left = set()
    for moment in range(40):
        before = registry.history("toys")
        child = os.fork()
        if child == 0:
            calls = iter(range(moment))

            def die(genuine, calls=calls):
                def call(*arguments):
                    if next(calls, None) is None:
                        os._exit(9)
                    return genuine(*arguments)

                return call

            for name in ("fsync", "replace", "open"):
                setattr(os, name, die(getattr(os, name)))
            registry.change("toys", lambda champion, past, number=2 + moment: promoted(number))
            os._exit(0)
        finished = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        after = registry.history("toys")
        assert after[: len(before)] == before
        assert len(after) - len(before) in (0, 1)
        assert registry.champion("toys") == after[-1]
        left.add(len(after) - len(before))
        if finished:
            break
    assert finished
    assert left == {0, 1}
    registry.change("toys", lambda champion, past: promoted(99))
    lines = [json.loads(line)["number"] for line in (tmp_path / "registry" / "toys" / HISTORY).open()]
    assert lines == list(range(1, len(lines) + 1))


@pytest.mark.slow
def test_thirty_kills_while_promoting(project, ids):
    chance = random.Random(os.environ.get("LUTHIER_TEST_SEED", "30"))
    store = open_store(project)
    code = (
        "import itertools, luthier\n"
        f"for run in itertools.cycle([{ids['good']!r}, {ids['other']!r}]):\n"
        "    luthier.promote(run, force=True, why='again')\n"
        "    print(luthier.find_champion().number, flush=True)\n"
    )
    acknowledged = 0
    for _ in range(30):
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        first = process.stdout.readline()
        time.sleep(chance.uniform(0, 0.4))
        process.send_signal(signal.SIGKILL)
        told = [first, *process.communicate(timeout=60)[0].splitlines()]
        acknowledged = max(acknowledged, *(int(line) for line in told if line.strip()))
        history = Champions(store).history("toys")
        assert [entry.number for entry in history] == list(range(1, len(history) + 1))
        assert len(history) >= acknowledged
        assert champion_in(store).entry == history[-1]
        champion_in(store).model(verify=True)
        assert luthier.rollback("toys", to=1).entry.run == ids["good"]


class Histories(RuleBasedStateMachine):
    """Any order of changes, with kills between the pointer and the history: what was told stays as it was told."""

    @initialize(where=st.just(None))
    def begin(self, where):
        import tempfile

        self.place = tempfile.TemporaryDirectory()
        self.registry = Champions(Store(Path(self.place.name)))
        self.told: list[HistoryEntry] = []
        self.champion: HistoryEntry | None = None

    def change(self, entry):
        made = self.registry.change("toys", lambda champion, past: entry)
        assert made == replace(entry, number=len(self.told) + 1)
        self.told.append(made)
        return made

    @rule(model=st.integers(1, 4))
    def promote(self, model):
        self.champion = self.change(promoted(model))

    @rule(data=st.data())
    def roll_back(self, data):
        earlier = [entry for entry in self.told if entry.event == "promoted"]
        if earlier:
            chosen = data.draw(st.sampled_from(earlier))
            self.champion = self.change(replace(chosen, event="rolled back", restores=chosen.number))

    @rule(data=st.data())
    def forget(self, data):
        numbers = [entry.number for entry in self.told if entry.event == "promoted"]
        chosen = data.draw(st.lists(st.sampled_from(numbers), unique=True)) if numbers else []
        self.change(HistoryEntry(0, "forgotten", "", "", forgotten=chosen))

    @rule()
    def withdraw(self):
        self.change(HistoryEntry(0, "withdrawn", "", ""))
        self.champion = None

    @rule(share=st.floats(0, 1))
    def lose_the_end_of_the_history(self, share):
        history = self.registry.root / "toys" / HISTORY
        text = history.read_bytes() if self.told else b""
        if self.told and text.count(b"\n") == len(self.told):
            start = text[:-1].rfind(b"\n") + 1
            # The last line was not written whole: what is left of it has no line end.
            history.write_bytes(text[: start + int(share * (len(text) - 1 - start))])

    @invariant()
    def all_is_as_it_was_told(self):
        assert self.registry.history("toys") == self.told
        assert self.registry.champion("toys") == self.champion
        gone = released(self.told)
        held = {entry.artifact for entry in self.told if entry.promotion and entry.promotion not in gone}
        back = taken_back(self.told)
        assert self.champion is None or self.champion.artifact not in back
        for model, (promotion, rollback) in back.items():
            assert (promotion.artifact, promotion.event) == (model, "promoted")
            assert rollback.restores < promotion.number < rollback.number
            assert all(entry.artifact != model for entry in self.told[rollback.number :] if entry.promotion)
        assert self.registry.held().artifacts == held | ({self.champion.artifact} if self.champion else set())

    def teardown(self):
        self.place.cleanup()


TestHistories = Histories.TestCase
TestHistories.settings = settings(max_examples=10, stateful_step_count=12, deadline=None)


NAMES = st.builds(str.__add__, st.sampled_from("aAéÉ9_"), st.text("aAbéÉßñ漢 .-_9", max_size=99))


@given(st.sets(NAMES, min_size=2, max_size=6))
@settings(max_examples=50, deadline=None)
def test_two_names_share_no_directory_even_where_case_counts_for_nothing(names):
    registry = Champions(Store(Path("store")))
    directories = {registry._directory(name) for name in names}
    assert len({str(path).casefold() for path in directories}) == len(names)
    assert all(path.parent == registry.root and len(path.name.encode()) < 150 for path in directories)


# --- the command line ---------------------------------------------------------------------------------


def test_the_commands_tell_what_they_did(project, ids):
    code, said = call("registry", "list")
    assert (code, "promote one: luthier registry promote latest" in said) == (0, True)
    code, said = call("registry", "promote", ids["refused"])
    assert code == 4
    assert "cannot be promoted" in said
    assert "--force --reason TEXT" in said
    code, said = call("registry", "promote", ids["good"], "--reason", "the first")
    assert code == 0
    assert f"number 1, the run {ids['good']}, promoted" in said
    code, said = call("registry", "promote", ids["good"])
    assert (code, "it was the champion already" in said) == (0, True)
    code, said = call("registry", "promote", ids["refused"], "--force", "--reason", "for a try")
    assert code == 0
    assert f"it replaces that of the run {ids['good']}; back: luthier registry rollback toys" in said
    assert "overruled: accuracy: accuracy is 0" in said
    code, said = call("registry", "history")
    assert (code, "for a try; overruled accuracy" in said) == (0, True)
    code, said = call("registry", "rollback", "--json", "--reason", "back")
    assert code == 0
    told = json.loads(said)
    assert (told["run"], told["restores"], told["replaced"], told["changed"]) == (ids["good"], 1, ids["refused"], True)
    code, said = call("registry", "list", "--json")
    [listed] = json.loads(said)
    assert (listed["name"], listed["number"], listed["token"]) == ("toys", 3, told["token"])
    code, said = call("registry", "show", "champion:toys", "--json")
    assert Path(json.loads(said)["path"]).is_dir()
    code, said = call("registry", "show")
    assert (code, "every byte sound" in said, "agreement is 1" in said) == (0, True, True)
    code, said = call("registry", "forget", "toys")
    assert (code, "--keep N, or --all" in said) == (1, True)
    code, said = call("registry", "forget", "toys", "--keep", "0")
    assert (code, "forgot number 2 of toys" in said) == (0, True)
    code, said = call("registry", "history", "--json")
    assert [(entry["number"], entry["held"]) for entry in json.loads(said)] == [
        (4, False), (3, True), (2, False), (1, True),
    ]  # fmt: skip
    code, said = call("registry", "history", "toyz")
    assert (code, "there never was a champion of the name 'toyz'" in said) == (1, True)
    code, said = call("runs", "show", "champion")
    assert (code, ids["good"] in said) == (0, True)
    code, said = call("runs", "diff", "champion", ids["refused"])
    assert (code, "freeze" in said) == (0, True)


def test_the_champion_answers(project, ids):
    luthier.promote(ids["good"])
    prompt, answer = json.loads((luthier.find_model("champion").path / "frozen.json").read_text()).popitem()
    code, said = call("generate", "champion", prompt)
    assert (code, said.strip()) == (0, answer)


def test_a_promotion_is_in_the_log_of_its_run(project, both, ids):
    [told] = [event for event in events_of(project, ids["other"]) if event["type"] == "promoted"]
    assert (told["name"], told["number"], told["replaced"], told["why"]) == ("toys", 2, ids["good"], "a try")


def test_a_model_outlives_its_run(project, both, ids):
    shutil.rmtree(project / ".luthier" / "runs" / ids["good"])
    heard = []
    assert luthier.rollback(listen=heard.append).entry.run == ids["good"]
    assert [event.type for event in heard] == ["promoted"]
    assert luthier.find_model("champion")
    with pytest.raises(InputError, match="which made the champion 'toys', is no longer in"):
        luthier.find_run("champion")


# --- challengers that were refused --------------------------------------------------------------------


def test_a_challenger_that_was_refused_is_in_the_history_and_changes_nothing(project, both, ids):
    entry = luthier.refuse(luthier.find_run(ids["good"]), why="no better", decision={"gain": 0.0})
    assert (entry.number, entry.event, entry.run, entry.promotion) == (3, "refused", ids["good"], 0)
    assert luthier.find_champion() == both
    assert both.history()[-1] == entry
    assert both.history()[-1].decision == {"gain": 0.0}
    code, shown = call("registry", "history")
    assert code == 0
    assert f"refused {ids['good']}" in shown
    assert luthier.rollback().entry.run == ids["good"]
    with pytest.raises(InputError, match="is failed"):
        luthier.refuse(luthier.find_run(ids["failed"]), why="no better")


def test_refusing_without_a_champion_makes_none(project, ids):
    luthier.refuse(luthier.find_run(ids["refused"]), why="its gate says so")
    assert luthier.list_champions() == []
    assert luthier.promote(ids["good"]).number == 2
    assert [each.event for each in luthier.find_champion().history()] == ["refused", "promoted"]
