"""What users get wrong, and what machines do to them: one clear error each, and nothing lost.

Here everything goes through the command line or `luthier.run`; the parts have tests of their own beside
them (recipes, locations, the store, JSONL lines, model directories).
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

import luthier
from luthier.api import open_store
from luthier.cli import app
from luthier.errors import FULL_DISK_TEXTS, InputError, WorkerError
from luthier.failures import failure
from luthier.nodes import RecipeError
from luthier.pool import Worker
from luthier.runs import find_run, list_runs


def call(*arguments: object) -> tuple[int, str]:
    """Run a command; its exit code and what it says on stderr."""
    result = CliRunner().invoke(app, [str(each) for each in arguments])
    assert "Traceback" not in result.stderr
    return result.exit_code, result.stderr


def edit(project: Path, old: str, new: str) -> None:
    recipe = project / "recipe.yaml"
    assert old in recipe.read_text()
    recipe.write_text(recipe.read_text().replace(old, new))


# --- recipes ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["plan", "run"])
@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("at_least: 20", "at_leest: 20", "recipe.yaml:8:5: steps[1].at_leest: unknown key; did you mean 'at_least'?"),
        ("at_least: 20", "at_least: many", "recipe.yaml:8:5: steps[1].at_least: input should be a valid integer"),
        ("count: 300", "path: wrods.txt", "recipe.yaml:6:5: words.path: "),
        ("clean: unique", "clean: capitals", "recipe.yaml:10:5: steps[3].id: a second step with the id 'capitals'"),
        ("clean: unique", "clean: uniqe", "recipe.yaml:10:5: steps[3].clean: no clean component is called 'uniqe'"),
        ("clean: unique", "clean: near-duplicates", "pip install luthier-text"),
        ("at_least: 0.99", "at_least: champion", "compares with champion, which validate:agreement is not run on here"),
        ("base + 0.5", "initials + 0.5", "write `candidate.initials` (there are base, reference, champion, candidate)"),
        ("base + 0.5", "candidate.initial + 0.5", "its gate asks for 'initial', which validate:accuracy does not"),
        ("accuracy: {at_least", "acuracy: {at_least", "did you mean 'accuracy'?"),
        ("agreement: {at_least: 0.99}", "agreement: {at_least: base}", "compares with base"),
    ],
)
def test_a_wrong_recipe_is_refused_before_any_work(project, monkeypatch, command, old, new, message):
    monkeypatch.setattr("luthier.plugins.installed_candidates", list)
    edit(project, old, new)
    code, said = call(command, "recipe.yaml")
    assert code == 1
    assert message in said
    assert not (project / ".luthier").exists()


def test_files_that_are_missing_are_all_found_whatever_waits_for_them(project):
    plugin = project / "plugins.d" / "toys.py"
    plugin.write_text(
        plugin.read_text().replace('word: str = "cedar"', 'word: str = "cedar", file: Location | None = None')
    )
    edit(project, "count: 300", "path: one.txt")
    edit(project, "clean: capitals", "clean: capitals\n    file: two.txt")
    (project / "on.txt").write_text("")
    with pytest.raises(RecipeError) as caught:
        luthier.plan(project / "recipe.yaml")
    places = [(str(problem.position).rpartition("recipe.yaml")[2], problem.key) for problem in caught.value.problems]
    assert places == [(":6:5", "words.path"), (":10:5", "capitals.file")]
    assert "on.txt" in caught.value.problems[0].suggestion


def test_a_step_that_names_a_refused_validator_is_no_crash(project):
    edit(project, "  - export: freeze\n", "")
    edit(project, "{at_least: 0.99}", "{at_least: 0.99}\n  - validate: accuracy\n    id: again\n    from: agreement")
    code, said = call("plan", "recipe.yaml")
    assert code == 1
    assert "was not exported" in said


def test_parity_is_measured_against_what_was_exported(project):
    more = "  - tune: teach\n    id: more\n    steps: 6\n"
    edit(project, "  - export: freeze\n", f"{more}  - export: freeze\n    from: teach\n")
    nodes = {node.node.id: node.node for node in luthier.plan(project / "recipe.yaml")}
    assert nodes["agreement"].inputs["reference"] is nodes["teach"]


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ("first", "tune:teach takes no report, which 'first' gives"),
        ("[riddles, others]", "tune:teach takes one dataset; `from` names several"),
    ],
)
def test_a_from_that_would_change_nothing_is_refused(project, named, message):
    more = "  - validate: accuracy\n    id: first\n  - format: riddles\n    id: others\n    from: unique\n"
    edit(project, "  - tune: teach\n", f"{more}  - tune: teach\n    from: {named}\n")
    code, said = call("plan", "recipe.yaml")
    assert code == 1
    assert message in said


def test_a_broken_plugin_is_named_by_the_recipe_that_needs_it(project):
    (project / "plugins.d" / "toys.py").write_text("import no_such_module\n")
    code, said = call("run", "recipe.yaml")
    assert code == 1
    assert "no_such_module" in said
    assert "recipe.yaml:5:5" in said


# --- JSON Lines ---------------------------------------------------------------------------------------

GOOD = [b'{"text": "the first document"}', b'{"text": "the last document"}']
BAD = {
    "truncated": b'{"text": "cut of',
    "invalid byte": b'{"text": "caf\xe9"}',
    "NUL": b'{"text": "a\x00b"}',
    "lone surrogate": b'{"text": "a \\ud800 b"}',
}


@pytest.fixture
def corpus(project, monkeypatch) -> Callable[..., Path]:
    """Write the lines of a corpus, which the project's recipe reads."""
    pytest.importorskip("luthier_text")
    monkeypatch.setenv("LUTHIER_PLUGINS", "text")
    (project / "recipe.yaml").write_text("luthier: 1\nname: lines\nsteps:\n  - source: jsonl\n    path: corpus.jsonl\n")

    def write(*lines: bytes) -> Path:
        (project / "corpus.jsonl").write_bytes(b"\n".join(lines))
        return project / "corpus.jsonl"

    return write


def test_bad_lines_are_counted_kept_in_a_file_and_never_lose_their_neighbours(corpus, run):
    corpus(GOOD[0], *BAD.values(), GOOD[1])
    finished = run()
    assert finished.dataset("jsonl").frame()["text"].to_list() == ["the first document", "the last document"]
    assert finished.step("jsonl").counts["added"] == len(GOOD)
    assert finished.step("jsonl").counts["quarantined"] == len(BAD)
    kept = (finished.report("jsonl").path / "quarantine.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["where"] for line in kept] == [f"corpus.jsonl:{n}" for n in range(2, 2 + len(BAD))]


def test_a_line_of_50_megabytes_is_a_document_like_any_other(corpus, run):
    corpus(GOOD[0], b'{"text": "' + b"x" * 50_000_000 + b'"}', GOOD[1])
    finished = run()
    assert finished.dataset("jsonl").frame()["text"].str.len_bytes().to_list() == [18, 50_000_000, 17]


@pytest.mark.parametrize("lines", [[], [b"", b""], [BAD["truncated"]]])
def test_a_file_without_documents_is_an_error_that_names_it(corpus, lines):
    path = corpus(*lines)
    code, said = call("run", "recipe.yaml")
    assert code == 1
    assert f"{path} has no documents" in said


def test_cleaning_that_leaves_nothing_exits_1_and_says_what_dropped_it(project):
    edit(project, "at_least: 20", "at_least: 10000")
    code, said = call("run", "recipe.yaml")
    assert code == 1
    assert "no rows are left (longer: 300 in, 0 kept, 300 dropped" in said


# --- base models --------------------------------------------------------------------------------------


def test_a_base_model_whose_weights_are_a_pickle_is_refused_and_never_opened(project, monkeypatch):
    pytest.importorskip("luthier_models")
    monkeypatch.setenv("LUTHIER_PLUGINS", "models")
    (project / "base").mkdir()
    files = {"config.json": '{"model_type": "llama"}', "tokenizer.json": "{}", "pytorch_model.bin": "no pickle"}
    for name, text in files.items():
        (project / "base" / name).write_text(text)
    (project / "recipe.yaml").write_text("luthier: 1\nsteps:\n  - architecture: pretrained\n    model: base\n")
    code, said = call("run", "recipe.yaml")
    assert code == 1
    assert "only as pytorch_model.bin, a format that can run code" in said


# --- disks --------------------------------------------------------------------------------------------

FULL_DISK = """
import os, subprocess, sys
home, left = sys.argv[1], int(sys.argv[2])
with open(f"{home}/filler", "wb", buffering=0) as filler:
    try:
        while filler.write(bytes(4096)): pass
    except OSError: pass
os.truncate(f"{home}/filler", os.path.getsize(f"{home}/filler") - left)
command = [sys.executable, "-c", "from luthier.cli import main; main()", "run", "recipe.yaml", "--jobs", "1"]
full = subprocess.run(command, capture_output=True, text=True)
assert full.returncode == 1, full
assert "no space left" in full.stderr and "Traceback" not in full.stderr, full.stderr
os.unlink(f"{home}/filler")
again = subprocess.run(command, capture_output=True, text=True)
assert again.returncode == 0, again
"""


@pytest.mark.skipif(sys.platform != "linux", reason="uses a tmpfs")
@pytest.mark.parametrize("left", [0, 100_000, 300_000])
def test_a_full_disk_is_one_clear_error_and_the_next_run_goes_on(project, tmp_path, left):
    home = tmp_path / "home"
    home.mkdir()
    mount = 'mount -t tmpfs -o size=2m tmpfs "$1" && exec "$2" -c "$3" "$1" "$4"'
    in_tmpfs(mount, home, sys.executable, FULL_DISK, str(left), home=home)


@pytest.mark.skipif(sys.platform != "linux", reason="uses a read-only mount")
def test_a_read_only_store_serves_what_it_has_and_says_why_it_takes_nothing(project, run):
    run(until="unique")
    home = project / ".luthier"
    script = """
import subprocess, sys
def call(*arguments):
    command = [sys.executable, "-c", "from luthier.cli import main; main()", *arguments]
    return subprocess.run(command, capture_output=True, text=True)
done = call("run", "recipe.yaml", "--until", "unique")
assert done.returncode == 0 and "nothing to do" in done.stdout, done
shown = call("runs", "show", "latest")
assert shown.returncode == 0, shown
more = call("run", "recipe.yaml")
assert more.returncode == 1 and "LUTHIER_HOME" in more.stderr and "Traceback" not in more.stderr, more
"""
    mount = 'mount --bind "$1" "$1" && mount -o remount,bind,ro "$1" && exec "$2" -c "$3"'
    in_tmpfs(mount, home, sys.executable, script, home=home)


def in_tmpfs(mount: str, *arguments: object, home: Path) -> None:
    """Run a shell line where mounting is allowed, and nobody else sees it."""
    if not shutil.which("unshare") or subprocess.run(["unshare", "-rm", "true"], check=False).returncode:
        pytest.skip("this machine lets us mount nothing")
    environment = {**os.environ, "LUTHIER_HOME": str(home)}
    command = ["unshare", "-rm", "sh", "-c", mount, "sh", *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("text", FULL_DISK_TEXTS)
def test_a_library_that_tells_of_a_full_disk_in_words_is_understood(text):
    assert failure(RuntimeError(f"writing failed: {text}"))["exit_code"] == 1


# --- what is left behind ------------------------------------------------------------------------------


def test_a_damaged_record_of_a_run_hides_no_other(run, project):
    first = run(until="longer")
    damaged = project / ".luthier" / "runs" / "99990101-000000-toys"
    damaged.mkdir()
    store = open_store(project)
    for content in ("", "{", "[]", '{"version": 1}', '{"version": 99}'):
        (damaged / "run.json").write_text(content)
        assert [each.id for each in list_runs(store)] == [first.id]
        with pytest.raises(InputError, match=damaged.name):
            find_run(store, damaged.name)
    assert run(until="longer").id == first.id


def test_a_run_until_a_step_is_not_repeated_for_gates_after_it(run):
    assert run(until="unique").id == run(until="unique").id


def test_paths_may_override_what_a_recipe_says(run, project):
    (project / "extra.txt").write_text("kelp")
    finished = run(overrides={"words.path": project / "extra.txt"}, until="words")
    assert "extra.txt" in (finished.path / "recipe.yaml").read_text()


def test_a_message_that_is_no_unicode_reaches_the_record(run, project):
    plugin = project / "plugins.d" / "toys.py"
    plugin.write_text(plugin.read_text().replace('ValueError("the teacher', r'ValueError("caf\udce9: the teacher'))
    with pytest.raises(luthier.LuthierError, match="the teacher is ill"):
        run(overrides={"teach.fail": "value"})
    failed = next(iter(list_runs(open_store(project))))
    assert failed.state == "failed"
    events = [json.loads(line) for line in (failed.path / "events.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [event["type"] for event in events[-2:]] == ["step_failed", "run_finished"]


def test_a_worker_killed_in_the_middle_of_a_line_is_dead_and_not_silent(tmp_path, monkeypatch):
    dying = tmp_path / "luthier" / "worker.py"
    dying.parent.mkdir()
    dying.write_text('import os; os.write(1, b\'{"type": "rea\'); os.kill(os.getpid(), 9)')
    monkeypatch.setattr("sys.executable", str(python_that_runs(tmp_path, dying)))
    worker = Worker(tmp_path / "log", threads=1, local_plugins=[], timeout=None)
    with pytest.raises(WorkerError, match="killed by the signal SIGKILL"):
        worker.call({"task": "none"})
    worker.end()


def python_that_runs(directory: Path, script: Path) -> Path:
    """An executable that runs one script, whatever it is asked for."""
    path = directory / "python"
    path.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{script}"\n')
    path.chmod(0o755)
    return path
