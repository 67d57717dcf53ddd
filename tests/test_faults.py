"""Kill, interrupt, run at once: no orphan, nothing committed lost, the bytes of an undisturbed run."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest

import luthier
from luthier.api import open_store
from luthier.runs import find_run, list_runs
from luthier.store import Store

SLOWLY = ("--set", "teach.pause=0.15", "--jobs", "2")


def workers_of(project: Path) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter(["cmdline"]):
        line = process.info["cmdline"] or []
        if "luthier.worker" in line and any(str(project) in argument for argument in line):
            found.append(process)
    return found


def wait_until(condition, seconds: float = 20) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.02)
    return bool(condition())


def outputs(project: Path) -> dict[str, str]:
    run = find_run(open_store(project), "latest")
    assert run.state == "done"
    return {step.id: step.artifact for step in run.steps}


@pytest.fixture
def undisturbed(project: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    home = tmp_path_factory.mktemp("undisturbed")
    run = luthier.run(project / "recipe.yaml", overrides={"teach.pause": 0.15}, home=home, display=False, jobs=2)
    return {step.id: step.artifact for step in run.steps}


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_leaves_no_worker_and_exits_130(command, project, sent):
    process = command("run", "recipe.yaml", "--set", "teach.pause=1", "--set", "teach.steps=60")
    assert wait_until(lambda: list(project.glob(".luthier/work/*/checkpoint/known.json")))
    process.send_signal(sent)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    assert wait_until(lambda: not workers_of(project))
    run = find_run(open_store(project), "latest")
    assert run.state == "interrupted"
    assert run.step("unique").state == "done"


def test_a_killed_parent_leaves_no_worker(command, project):
    process = command("run", "recipe.yaml", "--set", "teach.pause=1", "--set", "teach.steps=60")
    assert wait_until(lambda: list(project.glob(".luthier/work/*/checkpoint/known.json")))
    assert workers_of(project)
    process.kill()
    assert wait_until(lambda: not workers_of(project))
    process.wait()  # Until it is gone, its lock may be held.
    run = find_run(open_store(project), "latest")
    assert run.state == "interrupted"
    assert run.step("teach").state == "waiting"
    assert run.data.seconds > 0


def ranks_of(project: Path) -> list[psutil.Process]:
    """The processes of jobs that were started in the project."""
    running = psutil.process_iter(["cmdline", "cwd"])
    return [
        each
        for each in running
        if "luthier_tune.rank" in (each.info["cmdline"] or []) and each.info["cwd"] == str(project)
    ]


@pytest.mark.slow
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_process_of_a_job_outlives_the_command(command, project, sent):
    steps = "  - architecture: parrot\n  - tune: choir\n    processes: 2\n    fail: sleep\n"
    (project / "choir.yaml").write_text(f"luthier: 1\nsteps:\n{steps}")
    process = command("run", "choir.yaml", LUTHIER_PLUGINS="toys,tune")
    assert wait_until(lambda: len(list(project.glob(".luthier/work/*/checkpoint/said/*.json"))) == 2, 180)
    assert len(ranks_of(project)) == 2
    process.send_signal(sent)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == (-signal.SIGKILL if sent == signal.SIGKILL else 130), errors
    assert "Traceback" not in errors
    assert wait_until(lambda: not ranks_of(project))


def test_two_runs_of_one_recipe_at_once_share_the_work(command, project, undisturbed):
    both = [command("run", "recipe.yaml", *SLOWLY) for _ in range(2)]
    for process in both:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
    assert outputs(project) == undisturbed
    runs = list(list_runs(open_store(project)))
    taught = [run.step("teach").cached for run in runs]
    assert taught.count(False) <= 1


def disturb(command, project: Path, moments: list[tuple[float, str]]) -> None:
    for moment, victim in moments:
        process = command("run", "recipe.yaml", *SLOWLY)
        time.sleep(moment)
        if victim == "parent":
            process.kill()
        else:
            for worker in workers_of(project):
                try:
                    worker.kill()
                except psutil.NoSuchProcess:
                    continue
        try:
            process.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            pytest.fail("the run hung after a kill")
        assert process.returncode in (0, 3, -signal.SIGKILL)
        assert wait_until(lambda: not workers_of(project))


def check_recovery(command, project: Path, undisturbed: dict[str, str]) -> None:
    process = command("run", "recipe.yaml", *SLOWLY)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert outputs(project) == undisturbed
    store = Store(project / ".luthier")
    assert all(store.verify(name) for name in store.objects())


def test_a_few_kills_and_then_the_same_bytes(command, project, undisturbed):
    disturb(command, project, [(0.9, "parent"), (1.6, "worker"), (2.4, "parent")])
    check_recovery(command, project, undisturbed)


@pytest.mark.slow
def test_thirty_kills_and_then_the_same_bytes(command, project, undisturbed):
    chance = random.Random(os.environ.get("LUTHIER_TEST_SEED", "30"))
    for _ in range(6):
        moments = [(chance.uniform(0.2, 3.5), chance.choice(["parent", "worker"])) for _ in range(5)]
        disturb(command, project, moments)
        check_recovery(command, project, undisturbed)
        subprocess.run(["rm", "-rf", str(project / ".luthier")], check=True)
