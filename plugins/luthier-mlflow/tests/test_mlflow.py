"""What a user finds in MLflow after `luthier run`."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

import luthier
from luthier_mlflow.__main__ import main


def history(client, run, metric):
    return [(point.step, point.value) for point in client.get_metric_history(run.info.run_id, metric)]


def hook_errors(project):
    events = [json.loads(line) for path in project.glob(".luthier/runs/*/events.jsonl") for line in path.open()]
    return [event for event in events if event["type"] == "plugin_hook_failed"]


def test_a_run_is_logged_whole(cli, project, client, logged):
    done = cli("run", "recipe.yaml")
    assert done.exit_code == 0, done.output
    assert hook_errors(project) == []
    (run,) = logged()
    assert run.info.status == "FINISHED"
    assert run.info.run_name.endswith("-numbers")
    parameters = run.data.params
    assert parameters["seed"] == "7"
    assert parameters["numbers.prefix"] == "number"
    assert parameters["numbers.path"].startswith("sha256:")
    assert parameters["learn.component"] == "tune:learn"
    assert parameters["learn.rates.first"] == "0.5"
    metrics = run.data.metrics
    assert metrics["learn/loss"] == 1.5
    assert (metrics["score/goodness"], metrics["score/base.goodness"]) == (0.75, 0.0)
    assert metrics["numbers/added"] == 3
    assert history(client, run, "learn/learning-curve/loss") == [(1, 3.0), (2, 2.0)]
    assert history(client, run, "learn/validation-losses/loss") == [(0, 4.0), (3, 1.5)]
    tags = run.data.tags
    assert tags["gate.score.goodness"].startswith("passed: goodness is 0.75")
    assert (tags["luthier.state"], tags["luthier.gates"]) == ("done", "1 of 1 passed")
    names = {file.path for file in client.list_artifacts(run.info.run_id)}
    assert names == {"recipe.yaml", "luthier.lock", "report.html"}


def test_the_model_is_a_model_of_mlflows_with_its_files(cli, project, client, logged):
    cli("run", "recipe.yaml")
    (run,) = logged()
    (model,) = client.search_logged_models([run.info.experiment_id])
    assert (model.name, model.source_run_id, str(model.status)) == ("numbers", run.info.run_id, "READY")
    files = [file.path for file in client.list_logged_model_artifacts(model.model_id)]
    assert "model.json" in files
    assert model.tags["luthier.artifact"] == run.data.tags["luthier.model"]


def test_a_large_model_is_named_and_not_uploaded(cli, project, client, logged, monkeypatch):
    monkeypatch.setenv("LUTHIER_MLFLOW_MODEL_MB", "0")
    cli("run", "recipe.yaml")
    (run,) = logged()
    (model,) = client.search_logged_models([run.info.experiment_id])
    assert client.list_logged_model_artifacts(model.model_id) == []
    assert (project / ".luthier").as_posix() in model.tags["luthier.path"]


def test_a_run_that_ended_early_goes_on_and_nothing_is_logged_twice(cli, project, client, logged, monkeypatch):
    monkeypatch.setenv("LEARN", "fail")
    assert cli("run", "recipe.yaml").exit_code == 3
    (run,) = logged()
    assert run.info.status == "FAILED"
    assert "the lights went out" in run.data.tags["luthier.error"]
    monkeypatch.delenv("LEARN")
    assert cli("run", "recipe.yaml").exit_code == 0
    assert cli("run", "recipe.yaml").exit_code == 0  # Nothing to do: nothing to log.
    (run,) = logged()
    assert run.info.status == "FINISHED"
    assert hook_errors(project) == []
    points = {name: history(client, run, name) for name in run.data.metrics}
    assert all(len(found) == len({step for step, _ in found}) for found in points.values())
    assert len(points["numbers/seconds"]) == 1


def test_data_that_changed_since_begins_a_new_run(cli, project, logged, monkeypatch):
    monkeypatch.setenv("LEARN", "fail")
    cli("run", "recipe.yaml")
    (project / "words.txt").write_text("four five")
    monkeypatch.delenv("LEARN")
    cli("run", "recipe.yaml")
    first, second = logged()
    assert (first.info.status, second.info.status) == ("KILLED", "FINISHED")
    assert first.data.params["numbers.path"] != second.data.params["numbers.path"]
    assert second.data.metrics["learn/loss"] == 1.5


def test_a_refused_run_has_failed_and_gives_no_model(cli, project, client, logged):
    assert cli("run", "recipe.yaml", "--set", "learn.good=0.1").exit_code == 4
    (run,) = logged()
    assert run.info.status == "FAILED"
    assert run.data.tags["gate.score.goodness"].startswith("refused: ")
    assert client.search_logged_models([run.info.experiment_id]) == []


def test_without_a_server_the_run_is_done_and_can_be_logged_later(cli, project, logged, monkeypatch, capsys):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{(project / 'missing' / 'x.db').as_posix()}")
    (project / "missing").write_text("a file, not a directory")
    assert cli("run", "recipe.yaml").exit_code == 0
    (error,) = hook_errors(project)  # One, and not one for each event.
    assert "python -m luthier_mlflow" in error["error"]
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    (directory,) = (project / ".luthier" / "runs").iterdir()
    assert main([str(directory)]) == 0
    assert main([str(directory)]) == 0  # Again, and nothing comes twice.
    (run,) = logged()
    assert capsys.readouterr().out.split() == [run.info.run_id] * 2
    assert run.info.status == "FINISHED"
    assert run.data.metrics["score/goodness"] == 0.75
    assert "gate.score.goodness" in run.data.tags


def test_the_champion_is_the_run_with_the_tag(cli, project, client, logged):
    cli("run", "recipe.yaml")
    cli("run", "recipe.yaml", "--set", "learn.good=0.8")
    first, second = (luthier.find_run(run.info.run_name) for run in logged())
    heard = []
    luthier.promote(first, why="the first", listen=heard.append)
    luthier.promote(second, listen=heard.append)

    def champions():
        tags = {run.info.run_name: run.data.tags.get("luthier.champion.numbers") for run in logged()}
        return {name: tag for name, tag in tags.items() if tag}

    assert list(champions()) == [second.id]
    luthier.rollback(why="users complain", listen=heard.append)
    [(name, tag)] = champions().items()
    assert name == first.id
    assert tag.startswith("number 3, restored by ")
    assert tag.endswith(": users complain")
    assert [event.type for event in heard] == ["promoted"] * 3  # And no hook failed.

    (first.path / "mlflow.json").unlink()
    (second.path / "mlflow.json").unlink()
    luthier.promote(second, listen=heard.append)
    assert f"python -m luthier_mlflow {second.path}" in heard[-1].error


def test_the_command_says_what_is_wrong(tmp_path, capsys):
    assert main([]) == 2
    assert main([str(tmp_path)]) == 1
    assert "cannot be read" in capsys.readouterr().err


def test_the_plugin_loads_nothing_heavy():
    code = "import sys, luthier_mlflow; print([m for m in ('mlflow', 'sqlalchemy', 'polars') if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


@pytest.mark.parametrize(("given", "kept"), [("a b", "a b"), ([1, "é"], '[1, "é"]'), ("x" * 7000, "x" * 5999 + "…")])
def test_parameters_are_text(given, kept):
    from luthier_mlflow._values import parameter_text

    assert parameter_text(given) == kept
