"""The command line: what each command prints, its JSON, its exit codes, what it tells when things fail."""

from __future__ import annotations

import importlib.metadata
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from luthier.cli import app

LIGHT_PLUGIN = '''
from __future__ import annotations
from typing import TYPE_CHECKING, Annotated, Literal
from annotated_types import Interval
from luthier import hookimpl
if TYPE_CHECKING:
    import polars as pl

def numbered(*, count: int = 4):
    """Make numbered lines.

    Args:
        count: how many.
    """
    import polars as pl
    yield pl.DataFrame({"text": [f"LINE {n}" if n % 2 else f"line {n}" for n in range(count)]})

def shout(
    frame: pl.DataFrame,
    *,
    max_capitals: Annotated[float, Interval(ge=0, le=1)] = 0.3,
    keep: bool = False,
    words: list[str] = [],
    case: Literal["upper", "lower", "as-is"] = "as-is",
    input: int | None = None,
) -> pl.DataFrame:
    """Drop documents written mostly in capitals.

    Args:
        max_capitals: the share of capitals from which a document goes.
        keep: drop nothing.
        words: append these.
        case: how the rest is written.
        input: append this number.
    """
    import polars as pl
    text = pl.col("text")
    if not keep:
        frame = frame.filter(text.str.count_matches(r"\\p{Lu}") <= max_capitals * text.str.len_chars())
    text = {"upper": text.str.to_uppercase(), "lower": text.str.to_lowercase(), "as-is": text}[case]
    more = [*words, *([] if input is None else [str(input)])]
    return frame.with_columns(pl.concat_str([text, *map(pl.lit, more)], separator=" "))

@hookimpl
def luthier_sources():
    return [numbered]

@hookimpl
def luthier_cleaners():
    return [shout]
'''
TWINS = '''
from __future__ import annotations
from luthier import hookimpl

def twin(frame):
    """Keep every document."""
    return frame

def measure(subject, data, ctx):
    """Count nothing."""

measure.__name__ = "twin"

@hookimpl
def luthier_cleaners():
    return [twin]

@hookimpl
def luthier_validators():
    return [measure]
'''
LIGHT_RECIPE = "luthier: 1\nname: light\nsteps:\n  - source: numbered\n  - clean: shout\n"
ROWS = [{"text": "quiet words"}, {"text": "LOUD WORDS"}, {"text": "More Words"}]
HEAVY = ("torch", "transformers", "onnxruntime", "polars", "pyarrow", "numpy")


@pytest.fixture
def cli(project):
    """Call `luthier ARGUMENTS…` in this process, in the toy project."""
    return lambda *arguments, **options: CliRunner().invoke(app, [str(each) for each in arguments], **options)


@pytest.fixture
def light(tmp_path, monkeypatch):
    """A folder with a plugin that imports nothing heavy, and its recipe."""
    directory = tmp_path / "light"
    (directory / "plugins.d").mkdir(parents=True)
    (directory / "plugins.d" / "light.py").write_text(LIGHT_PLUGIN)
    (directory / "recipe.yaml").write_text(LIGHT_RECIPE)
    (directory / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    monkeypatch.delenv("LUTHIER_HOME", raising=False)
    monkeypatch.setenv("LUTHIER_PLUGINS", "light")
    monkeypatch.chdir(directory)
    return directory


@pytest.fixture
def light_cli(light):
    """Call `luthier ARGUMENTS…` in this process, in the light folder."""
    return lambda *arguments, **options: CliRunner().invoke(app, [str(each) for each in arguments], **options)


def process(*arguments, **options):
    code = "from luthier.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True, check=False, **options
    )


# --- help ---------------------------------------------------------------------------------------------


def every_command(group, path=()):
    for name, command in group.commands.items():
        yield (*path, name), command
        if isinstance(command, typer.core.TyperGroup):
            yield from every_command(command, (*path, name))


def test_every_command_and_option_is_documented():
    root = typer.main.get_command(app)
    seen = dict(every_command(root))
    assert {("run",), ("plan",), ("schema",), ("init",), ("generate",), ("doctor",)} <= set(seen)
    assert {("runs", name) for name in ("list", "show", "diff", "report")} <= set(seen)
    assert {("plugins", name) for name in ("list", "show", "run")} <= set(seen)
    assert {("store", name) for name in ("verify", "gc", "du", "show")} <= set(seen)
    for path, command in seen.items():
        assert command.help, path
        for parameter in command.params:
            assert parameter.help, (path, parameter.name)


def test_help_names_the_commands_examples_and_exit_codes(cli):
    result = cli("--help")
    assert result.exit_code == 0
    for text in ("run", "plan", "plugins", "luthier run recipe.yaml", "4 a gate refused"):
        assert text in result.stdout
    assert "  luthier plan recipe.yaml          what would run, and why\n" in result.stdout


def test_version(cli):
    assert cli("--version").stdout == f"luthier {importlib.metadata.version('luthier')}\n"


@pytest.mark.parametrize(
    "arguments", [["pln"], ["run"], ["run", "recipe.yaml", "--frce", "x"], ["run", "r", "--jobs", "0"]]
)
def test_wrong_usage_exits_2(cli, arguments):
    result = cli(*arguments)
    assert result.exit_code == 2
    assert "Error: " in result.stderr
    assert result.stdout == ""


def test_a_misspelt_command_gets_a_suggestion(cli):
    assert "Did you mean 'plan'" in cli("pln").stderr


# --- plan and run -------------------------------------------------------------------------------------


def test_plan_says_what_is_cached_what_runs_and_why(cli):
    before = cli("plan", "recipe.yaml").stdout
    assert "source:words  " in before
    assert "runs (not done yet)" in before
    assert "depends on words" in before
    assert cli("run", "recipe.yaml", "--quiet").exit_code == 0
    after = cli("plan", "recipe.yaml").stdout
    assert "nothing to do" in after
    assert "runs" not in after
    changed = cli("plan", "recipe.yaml", "--set", "teach.steps=6").stdout
    assert "runs (configuration changed: steps 5 → 6)" in changed
    assert "cached" in changed


def test_plan_as_json(light_cli):
    plan = json.loads(light_cli("plan", "recipe.yaml", "--json").stdout)
    assert plan["recipe"] == "light"
    assert [step["id"] for step in plan["steps"]] == ["numbered", "shout"]
    assert [step["state"] for step in plan["steps"]] == ["runs", "depends"]
    assert plan["steps"][1]["why"] == "depends on numbered"
    assert plan["steps"][1]["steps"] == [{"id": "shout", "component": "clean:shout"}]


def test_a_run_ends_with_its_state_gates_and_the_command_to_try_the_model(cli):
    result = cli("run", "recipe.yaml")
    assert result.exit_code == 0
    run_id = json.loads(cli("runs", "show", "latest", "--json").stdout)["id"]
    lines = result.stdout.splitlines()
    assert lines[0].startswith(f"{run_id}  done after ")
    assert any(line.startswith("✓ accuracy: accuracy is 1; as it must be at least base + 0.5") for line in lines)
    assert f'try it: luthier generate {run_id} "…"' in lines
    assert "[ 1/10] source words: done" in result.stderr


def test_a_second_run_says_that_there_is_nothing_to_do(light_cli):
    light_cli("run", "recipe.yaml", "--quiet")
    run_id = json.loads(light_cli("runs", "show", "latest", "--json").stdout)["id"]
    again = light_cli("run", "recipe.yaml")
    assert again.exit_code == 0
    assert again.stdout == f"nothing to do: every step is cached; run {run_id}\n"


def test_run_as_json_prints_only_events(light_cli):
    result = light_cli("run", "recipe.yaml", "--json")
    events = [json.loads(line) for line in result.stdout.splitlines()]
    assert events[0]["type"] == "run_started"
    assert {"step_started", "step_finished"} <= {event["type"] for event in events}
    assert (events[-1]["type"], events[-1]["state"]) == ("run_finished", "done")
    again = [json.loads(line) for line in light_cli("run", "recipe.yaml", "--json").stdout.splitlines()]
    assert [(event["type"], event["run"]) for event in again] == [("run_finished", events[0]["run"])]


def test_quiet_shows_the_outcome_only(light_cli):
    result = light_cli("run", "recipe.yaml", "--quiet")
    assert result.stderr == ""
    assert len(result.stdout.splitlines()) == 1


def test_until_from_and_force(light_cli):
    light_cli("run", "recipe.yaml", "--until", "numbered", "--quiet")
    plan = json.loads(light_cli("plan", "recipe.yaml", "--json").stdout)
    assert [step["state"] for step in plan["steps"]] == ["cached", "runs"]
    light_cli("run", "recipe.yaml", "--quiet")
    forced = json.loads(light_cli("plan", "recipe.yaml", "--force", "shout", "--json").stdout)
    assert [step["why"] for step in forced["steps"]] == ["", "forced"]
    started = json.loads(light_cli("plan", "recipe.yaml", "--from", "numbered", "--json").stdout)
    assert started["steps"][0]["why"] == "forced"


def test_a_refused_gate_exits_4_shows_the_numbers_and_stays_refused(cli):
    first = cli("run", "recipe.yaml", "--set", "freeze.lossy=true")
    assert first.exit_code == 4
    assert "  refused after " in first.stdout
    assert "✗ agreement: agreement is 0; it must be at least 0.99" in first.stdout
    assert "try it" not in first.stdout
    assert first.stderr.splitlines()[-1].strip()
    again = cli("run", "recipe.yaml", "--set", "freeze.lossy=true")
    assert again.exit_code == 4
    assert "nothing to do" in again.stdout
    assert "✗ agreement" in again.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "missing.yaml"], "missing.yaml"),
        (["plan", "recipe.yaml", "--until", "nowhere"], "no step is called 'nowhere'"),
        (["plan", "recipe.yaml", "--set", "teach.stps=3"], "did you mean 'steps'?"),
        (["plan", "recipe.yaml", "--set", "teach"], "--set teach"),
        (["run", "recipe.yaml", "--plugin", "nothing.py"], "nothing.py"),
        (["runs", "show", "latest"], "there are no runs"),
        (["runs", "report", "latest"], "there are no runs"),
        (["generate", "nowhere", "hello"], "there is no directory nowhere, nor a run 'nowhere' in "),
        (["plugins", "show", "lnger"], "did you mean 'longer'?"),
        (["store", "show", "abcdef"], "no artifact 'abcdef'"),
    ],
)
def test_the_users_errors_are_a_message_and_exit_1(cli, arguments, message):
    result = cli(*arguments)
    assert result.exit_code == 1
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == ""


def test_a_plugins_bug_exits_3_with_the_traceback_and_a_log(cli, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    result = cli("run", "recipe.yaml", "--set", "teach.fail=value")
    assert result.exit_code == 3
    assert "ValueError: the teacher is ill" in result.stderr
    assert 'raise ValueError("the teacher is ill")' in result.stderr
    assert "✗ teach failed" in result.stderr
    assert "Traceback" in saved_log(result).read_text()
    assert json.loads(cli("runs", "show", "latest", "--json").stdout)["state"] == "failed"


def test_our_own_bug_exits_3_with_the_traceback_and_a_log(cli, tmp_path, monkeypatch):
    def broken(*arguments, **options):
        raise ZeroDivisionError("we cannot count")

    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr("luthier.api.open_session", broken)
    result = cli("plan", "recipe.yaml")
    assert result.exit_code == 3
    assert "ZeroDivisionError: we cannot count" in result.stderr
    assert "bug" in result.stderr
    assert "we cannot count" in saved_log(result).read_text()


def saved_log(result):
    line = next(line for line in result.stderr.splitlines() if line.startswith("  The log: "))
    return Path(line.removeprefix("  The log: "))


def test_a_broken_plugin_is_warned_of_and_the_run_goes_on(light_cli, light, monkeypatch):
    (light / "plugins.d" / "worse.py").write_text("import no_such_module\n")
    monkeypatch.setenv("LUTHIER_PLUGINS", "light,worse")
    result = light_cli("run", "recipe.yaml")
    assert result.exit_code == 0
    assert "warning: the plugin worse was left out: ModuleNotFoundError" in result.stderr


def test_a_recipe_that_needs_the_broken_plugin_is_told_why(light_cli, light, monkeypatch):
    (light / "plugins.d" / "light.py").write_text("import no_such_module\n")
    result = light_cli("plan", "recipe.yaml")
    assert result.exit_code == 1
    assert "no_such_module" in result.stderr
    assert "recipe.yaml:4:" in result.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_and_sigterm_exit_130_and_leave_no_worker(command, project, number):
    running = command("run", "recipe.yaml", "--json", "--set", "teach.pause=60")
    events = iter(running.stdout.readline, "")
    assert any(json.loads(line).get("step") == "teach" for line in events)
    worker = worker_of(running.pid)
    running.send_signal(number)
    _, stderr = running.communicate(timeout=60)
    assert running.returncode == 130
    assert "interrupted" in stderr
    assert "Traceback" not in stderr
    deadline = time.monotonic() + 30
    while any(Path(f"/proc/{pid}").exists() for pid in worker) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert worker
    assert not [pid for pid in worker if Path(f"/proc/{pid}").exists()]


def worker_of(parent):
    return [
        int(stat.parent.name)
        for stat in Path("/proc").glob("[0-9]*/stat")
        if stat.exists() and stat.read_text().rpartition(")")[2].split()[1] == str(parent)
    ]


@pytest.mark.skipif(sys.platform == "win32", reason="pipes")
def test_a_closed_pipe_is_quiet(light):
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as closed:
        finished = subprocess.run(
            [sys.executable, "-c", "from luthier.cli import main; main()", "plugins", "list"],
            stdout=closed,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert finished.stderr == ""
    assert finished.returncode == 0


# --- generate -----------------------------------------------------------------------------------------


def test_generate_asks_the_model_of_a_run(cli):
    cli("run", "recipe.yaml", "--quiet")
    prompts = ["amber birch", "cedar delta ember"]
    answers = json.loads(cli("generate", "latest", *prompts, "--json").stdout)
    assert [answer["prompt"] for answer in answers] == prompts
    assert all(answer["completion"] for answer in answers)
    piped = cli("generate", "latest", input=prompts[0] + "\n")
    assert piped.exit_code == 0
    assert piped.stdout == answers[0]["completion"] + "\n"


def test_generate_asks_the_model_of_a_step(cli, project):
    cli("run", "recipe.yaml", "--quiet", "--jobs", "1")
    taught = cli("generate", "latest:teach", "hello")
    assert taught.exit_code == 0
    assert cli("generate", "teach", "hello").stdout == taught.stdout
    assert cli("generate", (project / "recipe.yaml").as_uri(), "hello").exit_code == 1
    missing = cli("generate", "latest:teech", "hello")
    assert "has no step 'teech'" in missing.stderr
    assert "teach" in missing.stderr


@pytest.mark.parametrize("runs", [False, True])
def test_generate_with_what_is_neither_a_directory_nor_a_run(light_cli, runs):
    if runs:
        light_cli("run", "recipe.yaml", "--quiet")
    result = light_cli("generate", "path/to/modle", "hello")
    assert result.exit_code == 1
    assert "there is no directory path/to/modle, nor a run 'path/to/modle' in " in result.stderr
    assert "Name the directory that holds the model, its location (`hf:…`), or a run that made one" in result.stderr
    assert ("luthier runs list" if runs else "luthier run RECIPE") in result.stderr
    assert "data.jsonl is no directory" in light_cli("generate", "data.jsonl", "hello").stderr
    latest = light_cli("generate", "latest", "hello").stderr
    assert ("model" if runs else "there are no runs") in latest


def test_generate_without_a_prompt_is_an_error(cli):
    result = cli("generate", "latest", input=" \n")
    assert result.exit_code == 1
    assert "there is no prompt" in result.stderr


# --- runs ---------------------------------------------------------------------------------------------


def test_runs_show_as_json_has_the_documented_shape(cli):
    cli("run", "recipe.yaml", "--quiet")
    run = json.loads(cli("runs", "show", "latest", "--json").stdout)
    assert {"id", "state", "steps", "gates"} <= set(run)
    assert run["state"] == "done"
    assert all(
        {"id", "stage", "component", "state", "cached", "seconds", "artifact", "metrics"} <= set(step)
        for step in run["steps"]
    )
    accuracy = next(step for step in run["steps"] if step["id"] == "accuracy")
    assert accuracy["metrics"]["accuracy"] > accuracy["metrics"]["base.accuracy"]
    assert all({"step", "metric", "value", "bound", "passed"} <= set(gate) for gate in run["gates"])
    assert [gate["passed"] for gate in run["gates"]] == [True, True]
    text = cli("runs", "show", run["id"]).stdout
    assert "300 in, " in text
    assert "✓ agreement" in text


def test_runs_list(light_cli, light):
    assert "no runs" in light_cli("runs", "list").stderr
    assert json.loads(light_cli("runs", "list", "--json").stdout) == []
    light_cli("run", "recipe.yaml", "--quiet")
    light_cli("run", "recipe.yaml", "--quiet", "--set", "numbered.count=6")
    runs = json.loads(light_cli("runs", "list", "--json").stdout)
    assert [(run["recipe"], run["state"]) for run in runs] == [("light", "done")] * 2
    table = light_cli("runs", "list").stdout.splitlines()
    assert [line.split()[0] for line in table] == ["RUN", *(run["id"] for run in runs)]
    elsewhere = CliRunner().invoke(app, ["runs", "list", "--json", "--home", str(light / ".luthier")])
    assert json.loads(elsewhere.stdout) == runs


def test_runs_diff_shows_configuration_and_metrics(cli):
    cli("run", "recipe.yaml", "--quiet")
    cli("run", "recipe.yaml", "--quiet", "--set", "teach.steps=6")
    after, before = (run["id"] for run in json.loads(cli("runs", "list", "--json").stdout))
    difference = json.loads(cli("runs", "diff", before, after, "--json").stdout)
    assert (difference["before"], difference["after"]) == (before, after)
    assert {"id": "teach", "change": "configuration changed: steps 5 → 6"} in difference["steps"]
    assert {"step": "teach", "metric": "steps", "before": 5, "after": 6} in difference["metrics"]
    text = cli("runs", "diff", before, "latest").stdout
    assert "steps 5 → 6" in text
    assert "+1" in text
    assert "the same steps" in cli("runs", "diff", before, before).stdout


def test_runs_report_prints_the_path_or_says_what_writes_one(light_cli, light):
    light_cli("run", "recipe.yaml", "--quiet")
    missing = light_cli("runs", "report", "latest")
    assert missing.exit_code == 1
    assert "pip install luthier-report" in missing.stderr
    run_id = json.loads(light_cli("runs", "show", "latest", "--json").stdout)["id"]
    path = light / ".luthier" / "runs" / run_id / "report.html"
    path.write_text("<html>")
    assert light_cli("runs", "report", "latest").stdout == f"{path}\n"
    assert f"report: {path}" in light_cli("runs", "show", "latest").stdout


# --- plugins ------------------------------------------------------------------------------------------


def test_plugins_list_as_json_has_the_documented_shape(light_cli, light, monkeypatch):
    (light / "plugins.d" / "worse.py").write_text("import no_such_module\n")
    monkeypatch.setenv("LUTHIER_PLUGINS", "light,worse")
    listing = json.loads(light_cli("plugins", "list", "--json").stdout)
    assert set(listing) >= {"components", "broken"}
    documented = {"stage", "name", "distribution", "version", "summary"}
    assert all(set(each) >= documented for each in listing["components"])
    assert [(each["stage"], each["name"]) for each in listing["components"]] == [
        ("source", "numbered"),
        ("clean", "shout"),
    ]
    assert listing["components"][1]["summary"] == "Drop documents written mostly in capitals."
    (broken,) = listing["broken"]
    assert set(broken) >= {"name", "distribution", "error"}
    assert broken["name"] == "worse"
    assert "no_such_module" in broken["error"]
    text = light_cli("plugins", "list")
    assert text.exit_code == 0
    assert broken["origin"] == "local file"
    assert "broken: worse (plugins.d/worse.py, local file)" in text.stdout
    assert "LUTHIER_DISABLE=worse" in text.stdout


OBSERVER = """
from luthier import hookimpl

@hookimpl
def luthier_run_finished(run, event):
    pass
"""


def test_plugins_list_has_the_plugins_without_components(light_cli, light, monkeypatch):
    (light / "plugins.d" / "observer.py").write_text(OBSERVER)
    monkeypatch.setenv("LUTHIER_PLUGINS", "observer")
    alone = light_cli("plugins", "list")
    assert "no components are installed" not in alone.output
    assert alone.stdout.splitlines()[0] == "plugins without components:"
    assert [line.split() for line in alone.stdout.splitlines()][2] == [
        *("observer", "plugins.d/observer.py", "local", "file", "luthier_run_finished")
    ]
    monkeypatch.setenv("LUTHIER_PLUGINS", "light,observer")
    both = light_cli("plugins", "list").stdout
    assert both.index("clean") < both.index("plugins without components:") < both.index("observer")
    assert "observer" not in light_cli("plugins", "list", "--stage", "clean").stdout
    listed = {each["name"]: each for each in json.loads(light_cli("plugins", "list", "--json").stdout)["plugins"]}
    assert listed["observer"]["hooks"] == ["luthier_run_finished"]
    assert listed["light"]["hooks"] == ["luthier_cleaners", "luthier_sources"]
    assert set(listed["light"]) >= {"name", "distribution", "version", "origin", "hooks", "commands"}
    monkeypatch.setenv("LUTHIER_PLUGINS", "")
    assert "no components are installed" in light_cli("plugins", "list").stderr


def test_a_component_of_a_broken_plugin_is_told_with_the_remedy(light_cli, light, monkeypatch):
    (light / "plugins.d" / "phones.py").write_text("def (\n")
    monkeypatch.setenv("LUTHIER_PLUGINS", "light,phones")
    options = ["--input", "data.jsonl", "--output", "out.jsonl"]
    for arguments in (["show"], ["run"]):
        named, other, typo = (
            light_cli("plugins", *arguments, name, *(options if arguments == ["run"] else []))
            for name in ("phones", "telephone-numbers", "shuot")
        )
        assert {each.exit_code for each in (named, other, typo)} == {1}
        assert "the plugin 'phones' is broken: SyntaxError: " in named.stderr
        assert "may be of a plugin that is broken (phones: SyntaxError: " in other.stderr
        for told in (named.stderr, other.stderr):
            assert f"Mend {light / 'plugins.d' / 'phones.py'}; or leave it out" in told
        assert "did you mean 'shout'?" in typo.stderr


def test_plugins_list_by_stage_and_from_a_named_file(light_cli, light, tmp_path, monkeypatch):
    assert [line.split()[1] for line in light_cli("plugins", "list", "--stage", "clean").stdout.splitlines()] == [
        "NAME",
        "shout",
    ]
    assert "there are: source, clean" in light_cli("plugins", "list", "--stage", "tune").stderr
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    monkeypatch.setenv("LUTHIER_PLUGINS", "light")
    named = light_cli("plugins", "list", "--plugin", light / "plugins.d" / "light.py", "--json").stdout
    assert len(json.loads(named)["components"]) == 2


def test_plugins_show(light_cli):
    text = light_cli("plugins", "show", "clean:shout").stdout
    assert "clean:shout" in text
    assert "max_capitals  number (≥ 0, ≤ 1)" in text
    assert "the share of capitals from which a document goes." in text
    assert "- clean: shout" in text
    shown = json.loads(light_cli("plugins", "show", "shout", "--json").stdout)
    parameters = {each["name"]: each for each in shown["parameters"]}
    assert (parameters["max_capitals"]["default"], parameters["max_capitals"]["required"]) == (0.3, False)
    assert parameters["words"]["type"] == "list of string"
    assert parameters["input"]["type"] == "integer or null"
    assert parameters["case"]["description"] == "how the rest is written."


@pytest.mark.parametrize(
    ("variable", "value", "remedy"),
    [
        ("LUTHIER_DISABLE", "luthier-tune", "Take it out of LUTHIER_DISABLE."),
        ("LUTHIER_PLUGINS", "light", "Name it in LUTHIER_PLUGINS too."),
    ],
)
def test_plugins_show_says_which_variable_blocks_the_plugin(light_cli, monkeypatch, variable, value, remedy):
    monkeypatch.delenv("LUTHIER_PLUGINS")
    monkeypatch.setenv(variable, value)
    for name in ("lora", "tune:lora"):
        result = light_cli("plugins", "show", name)
        assert result.exit_code == 1
        assert f"luthier-tune, which gives it, is blocked by {variable}" in result.stderr
        assert remedy in result.stderr


def test_plugins_show_and_doctor_know_a_blocked_plugin_by_its_own_name(light_cli, monkeypatch):
    monkeypatch.setenv("LUTHIER_DISABLE", "light")
    for command in ("show", "doctor"):
        assert "the plugin 'light' is blocked by LUTHIER_DISABLE" in light_cli("plugins", command, "light").stderr
    assert "Blocked by LUTHIER_DISABLE" in light_cli("plugins", "show", "clean:shout").stderr


def rows_after(light_cli, *options):
    result = light_cli("plugins", "run", "shout", "--input", "data.jsonl", "--output", "out.jsonl", *options)
    assert result.exit_code == 0, result.stderr
    return [json.loads(line)["text"] for line in Path("out.jsonl").read_text().splitlines()]


def test_plugins_run_takes_the_parameters_as_options(light_cli):
    assert rows_after(light_cli) == ["quiet words", "More Words"]
    assert rows_after(light_cli, "--max-capitals", "0.1") == ["quiet words"]
    assert rows_after(light_cli, "--keep", "--case", "lower") == ["quiet words", "loud words", "more words"]
    assert rows_after(light_cli, "--no-keep", "--max-capitals", "0", "--words", "a", "--words", "1") == [
        "quiet words a 1"
    ]
    assert rows_after(light_cli, "--max-capitals", "0", "--words", '["b, c", "d"]') == ["quiet words b, c d"]
    assert rows_after(light_cli, "--max-capitals", "0", "--config-input", "3") == ["quiet words 3"]


def test_plugins_run_says_what_became_of_the_rows(light_cli):
    import polars as pl

    arguments = ["plugins", "run", "shout", "--input", "data.jsonl", "--output", "out.parquet"]
    assert light_cli(*arguments).stdout == "out.parquet: 3 in, 2 kept, 1 dropped\n"
    assert pl.read_parquet("out.parquet")["text"].to_list() == ["quiet words", "More Words"]
    assert json.loads(light_cli(*arguments, "--json").stdout)["dropped"] == 1
    source = light_cli("plugins", "run", "numbered", "--output", "made.csv", "--count", "3")
    assert source.stdout == "made.csv: 3 added\n"


def test_plugins_run_help_shows_the_parameters(light_cli):
    text = light_cli("plugins", "run", "shout", "--help").stdout
    for part in ("--max-capitals", "[default: 0.3]", "--keep / --no-keep", "upper|lower|as-is", "--config-input"):
        assert part in text
    assert "Drop documents written mostly in capitals." in text
    assert "append this number. [the parameter 'input']" in " ".join(text.split())
    assert "numbered" in light_cli("plugins", "run", "--help").stdout
    assert "--config-seed" in light_cli("plugins", "run", "--help").stdout


def test_plugins_run_help_names_a_component_so_that_it_is_found(light, light_cli):
    """A formatter and a validator of one name: only one of them works on rows, but the name alone is of both."""
    (light / "plugins.d" / "light.py").write_text(TWINS, encoding="utf-8")
    listed = light_cli("plugins", "run", "--help")
    assert listed.exit_code == 0
    assert "clean:twin" in listed.stdout
    assert "validate:twin" not in listed.stdout
    assert light_cli("plugins", "run", "clean:twin", "--help").exit_code == 0


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--input", "data.jsonl", "--output", "o.jsonl", "--max-capitals", "2"], 2, "--max-capitals: input should be"),
        (["--input", "data.jsonl", "--output", "o.jsonl", "--max-capitals", "much"], 2, "--max-capitals"),
        (["--input", "data.jsonl", "--output", "o.jsonl", "--case", "Title"], 2, "--case"),
        (["--input", "data.jsonl", "--output", "o.jsonl", "--max-capital", "1"], 2, "--max-capitals"),
        (["--output", "o.jsonl"], 2, "--input"),
        (["--input", "none.jsonl", "--output", "o.jsonl"], 1, "none.jsonl"),
        (["--input", "data.jsonl", "--output", "o.txt"], 1, ".parquet"),
        (["--input", "data.jsonl", "--output", "no/such/o.jsonl"], 1, "no directory"),
        (["--input", "recipe.yaml", "--output", "o.jsonl"], 1, "recipe.yaml"),
    ],
)
def test_plugins_run_with_wrong_options(light_cli, options, code, message):
    result = light_cli("plugins", "run", "shout", *options)
    assert result.exit_code == code
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def test_a_default_that_its_own_type_refuses_is_the_plugins_mistake(light_cli, light):
    plugin = light / "plugins.d" / "light.py"
    plugin.write_text(plugin.read_text().replace("keep: bool = False", "keep: bool = 'no'"))
    where = ["--input", "data.jsonl", "--output", "out.jsonl"]
    for code, arguments in ((3, ["plugins", "run", "shout", *where]), (1, ["plan", "recipe.yaml"])):
        result = light_cli(*arguments)
        assert result.exit_code == code
        assert f"shout ({plugin}:" in result.stderr
        assert (
            "the default of 'keep' is refused by its own type: input should be a valid boolean, not 'no'"
            in result.stderr
        )
    assert light_cli("plugins", "run", "shout", *where, "--keep").exit_code == 0


def test_plugins_run_takes_a_plugin_file_before_and_after_the_name(light_cli, light, tmp_path, monkeypatch):
    plugin = light / "plugins.d" / "light.py"
    monkeypatch.chdir(tmp_path)
    where = ["--input", light / "data.jsonl", "--output", "out.jsonl"]
    assert light_cli("plugins", "run", "shout", "--plugin", plugin, *where).exit_code == 0
    assert light_cli("plugins", "run", f"--plugin={plugin}", "shout", *where).exit_code == 0
    assert light_cli("plugins", "run", "shout", *where).exit_code == 1


def test_plugins_run_refuses_what_does_not_work_on_rows(cli):
    result = cli("plugins", "run", "accuracy", "--input", "recipe.yaml", "--output", "o.jsonl")
    assert result.exit_code == 1
    assert "does not work on rows" in result.stderr


# --- store --------------------------------------------------------------------------------------------


def test_store_verify_finds_damage_and_the_next_run_mends_it(light_cli, light):
    light_cli("run", "recipe.yaml", "--quiet")
    assert light_cli("store", "verify").exit_code == 0
    artifact = next(step for step in shown_steps(light_cli) if step["id"] == "shout")["artifact"]
    shard = next((light / ".luthier" / "objects" / artifact / "content").glob("*.parquet"))
    data = bytearray(shard.read_bytes())
    data[10] ^= 1
    shard.chmod(0o644)
    shard.write_bytes(data)
    found = light_cli("store", "verify", "--json")
    assert found.exit_code == 1
    assert json.loads(found.stdout)["damaged"] == [artifact]
    assert light_cli("run", "recipe.yaml", "--quiet").exit_code == 0
    assert light_cli("store", "verify").exit_code == 0


def shown_steps(cli):
    return json.loads(cli("runs", "show", "latest", "--json").stdout)["steps"]


def test_store_gc_keeps_what_runs_need(light_cli):
    light_cli("run", "recipe.yaml", "--quiet")
    light_cli("run", "recipe.yaml", "--quiet", "--set", "numbered.count=6")
    would = json.loads(light_cli("store", "gc", "--grace", "0", "--keep-runs", "1", "--dry-run", "--json").stdout)
    assert (would["runs"], would["steps"]) == (1, 2)
    assert "removed 1 runs, 2 steps" in light_cli("store", "gc", "--grace", "0", "--keep-runs", "1").stdout
    assert "nothing to do" in light_cli("run", "recipe.yaml", "--set", "numbered.count=6").stdout
    assert "nothing to do" not in light_cli("run", "recipe.yaml").stdout


def test_store_du_and_show(light_cli):
    light_cli("run", "recipe.yaml", "--quiet")
    usage = json.loads(light_cli("store", "du", "--json").stdout)
    assert usage["parts"]["steps"]["entries"] == 2
    assert usage["bytes"] == sum(part["bytes"] for part in usage["parts"].values())
    assert "objects" in light_cli("store", "du").stdout
    artifact = next(step for step in shown_steps(light_cli) if step["id"] == "shout")["artifact"]
    shown = json.loads(light_cli("store", "show", artifact[:12], "--json").stdout)
    assert (shown["hash"], shown["kind"], shown["form"]) == (artifact, "dataset", "documents")
    assert [step["component"] for step in shown["steps"]] == ["shout"]
    assert shown["files"][0]["path"].endswith(".parquet")
    assert "given by clean:shout" in light_cli("store", "show", artifact).stdout


# --- doctor, schema, init -----------------------------------------------------------------------------


def test_doctor(light_cli, light, monkeypatch):
    monkeypatch.setattr("luthier.cli.doctor.ROOM", 0)
    healthy = light_cli("doctor", "--json")
    facts = json.loads(healthy.stdout)
    assert healthy.exit_code == 0
    assert facts["store"]["path"] == str(light / ".luthier")
    assert facts["cores"] >= 1
    assert [plugin["name"] for plugin in facts["plugins"]["loaded"]] == ["light"]
    assert "everything is in order" in light_cli("doctor").stdout
    (light / "plugins.d" / "worse.py").write_text("import no_such_module\n")
    monkeypatch.setenv("LUTHIER_PLUGINS", "light,worse")
    ill = light_cli("doctor")
    assert ill.exit_code == 1
    assert "warning: the plugin worse is broken: ModuleNotFoundError" in ill.stderr


def test_doctor_tells_of_a_full_disk(light_cli, monkeypatch):
    monkeypatch.setattr("luthier.cli.doctor.ROOM", 10**18)
    result = light_cli("doctor", "--json")
    assert result.exit_code == 1
    assert "luthier store gc" in json.loads(result.stdout)["problems"][-1]["remedy"]


def test_schema_is_json_with_the_installed_components(light_cli):
    schema = json.loads(light_cli("schema").stdout)
    assert "max_capitals" in json.dumps(schema)


def test_init_writes_a_recipe_and_never_overwrites_one(light_cli, light):
    result = light_cli("init", "new/project")
    target = light / "new" / "project" / "recipe.yaml"
    assert result.exit_code == 0
    assert f"wrote {target.relative_to(light)}" in result.stdout
    assert target.read_text().count("#") > 10
    target.write_text("mine")
    again = light_cli("init", "new/project")
    assert again.exit_code == 1
    assert "exists already" in again.stderr
    assert target.read_text() == "mine"
    assert light_cli("init", "data.jsonl").exit_code == 1


def first_party():
    names = ("bias", "models", "onnx", "text", "tune", "validate")
    return {name for name in names if list(importlib.metadata.entry_points(group="luthier", name=name))} == set(names)


@pytest.mark.skipif(not first_party(), reason="needs luthier[standard]")
def test_the_recipe_of_init_can_be_planned(light, monkeypatch):
    monkeypatch.delenv("LUTHIER_PLUGINS")
    assert process("init", "fresh").returncode == 0
    planned = process("plan", "fresh/recipe.yaml", "--json")
    assert planned.returncode == 0, planned.stderr
    assert json.loads(planned.stdout)["steps"][0]["state"] == "runs"


# --- startup ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments", [["--help"], ["run", "--help"], ["plugins", "list"], ["plan", "recipe.yaml"], ["run", "recipe.yaml"]]
)
def test_no_heavy_library_is_imported(light, arguments, monkeypatch):
    if arguments == ["run", "recipe.yaml"]:
        assert process("run", "recipe.yaml").returncode == 0  # so that everything is cached
    monkeypatch.delenv("LUTHIER_PLUGINS")  # every plugin that is installed
    code = (
        "import sys\nfrom luthier.cli import main\n"
        "try:\n    main()\nfinally:\n"
        f"    print(sorted(set({HEAVY!r}) & set(sys.modules)), file=sys.stderr)"
    )
    finished = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    assert finished.stderr.splitlines()[-1] == "[]"


def test_plugins_list_needs_neither_pydantic_nor_rich(light):
    code = (
        "import sys\nfrom luthier.cli import main\n"
        "try:\n    main()\nfinally:\n    print(sorted({'pydantic', 'rich'} & set(sys.modules)), file=sys.stderr)"
    )
    finished = subprocess.run(
        [sys.executable, "-c", code, "plugins", "list"], capture_output=True, text=True, check=False
    )
    assert finished.stderr.splitlines()[-1] == "[]"
