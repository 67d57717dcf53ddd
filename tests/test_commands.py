"""Commands that plugins add to the command line, with real modules and real `.dist-info` folders."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path
from textwrap import dedent

import pytest
from typer.testing import CliRunner

from luthier.cli import app
from luthier.cli._plugin_commands import GROUP, with_commands
from luthier.plugins import Registry, load_plugins

APP = '''
import typer
from luthier import InputError

app = typer.Typer(help="Talk to acme.")

@app.command()
def greet(name: str, times: int = 1) -> None:
    """Greet someone."""
    typer.echo("\\n".join(f"hello {name}" for _ in range(times)))

@app.command()
def fail(how: str = "input") -> None:
    """Fail."""
    if how == "input":
        raise InputError("there is no acme", "Install one.")
    if how == "exit":
        raise typer.Exit(5)
    1 / 0
'''
BROKEN = "raise RuntimeError('out of order')\n"
Install = Callable[..., None]


@pytest.fixture
def without_installed_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the commands of all plugins that are installed here."""
    names = entry_points(group=GROUP).names
    assert {"models", "optimize"} <= names
    monkeypatch.setenv("LUTHIER_DISABLE", ",".join(sorted(names)))


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Install a distribution with a command: its module and its metadata, as files on the path."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setenv("PYTHONPATH", str(site), prepend=os.pathsep)

    def call(distribution: str, command: str, source: str, *, attribute: str = "app") -> None:
        module = distribution.replace("-", "_")
        monkeypatch.delitem(sys.modules, module, raising=False)
        info = site / f"{module}-1.0.dist-info"
        info.mkdir()
        metadata = f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\nSummary: Things of acme\n"
        (info / "METADATA").write_text(metadata)
        (info / "entry_points.txt").write_text(f"[luthier.commands]\n{command} = {module}:{attribute}\n")
        (site / f"{module}.py").write_text(dedent(source))

    return call


def call(*arguments: str):
    return CliRunner().invoke(app, arguments)


def test_a_plugins_commands_are_listed_in_a_group_of_their_own_and_run(install):
    install("acme-tools", "acme", APP)
    page = call("--help").output
    ours, _, theirs = page.partition("Commands of plugins:")
    assert "doctor" in ours
    assert theirs.split()[:5] == ["acme", "acme-tools:", "Things", "of", "acme"]
    assert "Greet someone." in call("acme", "--help").output
    assert call("acme", "greet", "world", "--times", "2").output == "hello world\nhello world\n"
    assert call("acme", "greet").exit_code == 2


def test_what_an_app_prints_at_import_is_kept_out_of_the_answer(install):
    install("acme-tools", "acme", f"print('imported')\n{dedent(APP)}")
    command = [sys.executable, "-c", "from luthier.cli import main; main()", "plugins", "list", "--json"]
    answer = subprocess.run(command, capture_output=True, text=True, check=True)
    assert answer.stdout.startswith("{")
    assert "imported" in answer.stderr


def test_an_app_of_one_command_is_a_group_too(install):
    install("acme-tools", "acme", APP.partition("@app.command()\ndef fail")[0])
    assert call("acme", "greet", "world").output == "hello world\n"


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("explain", "No such command 'explain'. Did you mean 'plan'?"),
        ("grete", "Did you mean 'acme greet'?"),
        ("acmee", "Did you mean 'acme'?"),
        ("list", "Did you mean 'runs list', 'registry list', 'plugins list', 'env list'"),
        ("zzz", "No such command 'zzz'."),
    ],
)
def test_an_unknown_command_is_told_with_those_that_may_be_meant(install, word, told):
    install("acme-tools", "acme", APP)
    install("acme-broken", "broken", BROKEN)
    result = call(word, "more", "words")
    assert result.exit_code == 2
    assert told in result.stderr
    assert ("Did you mean" in result.stderr) == (word != "zzz")


@pytest.mark.usefixtures("without_installed_commands")
def test_without_commands_of_plugins_there_is_no_such_group():
    assert "Commands of plugins" not in call("--help").output


@pytest.mark.parametrize(
    ("how", "code", "told"), [("input", 1, "there is no acme"), ("exit", 5, ""), ("bug", 3, "bug")]
)
def test_what_a_plugins_command_raises_is_told_as_ours_is(install, how, code, told):
    install("acme-tools", "acme", APP)
    result = call("acme", "fail", "--how", how)
    assert result.exit_code == code
    assert told in result.stderr


def test_the_help_page_imports_no_plugin(install):
    install("acme-tools", "acme", "import sys\nsys.exit('imported')\n")
    code = (
        "import sys\nfrom luthier.cli import main\nsys.argv[1:] = ['--help']\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code, end.code\n"
        "assert 'acme_tools' not in sys.modules and 'luthier.plugins' not in sys.modules\n"
    )
    page = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert "acme" in page


def test_a_broken_command_says_so_when_it_is_called_and_nothing_else_breaks(install):
    install("acme-tools", "acme", BROKEN)
    result = call("acme", "greet", "world")
    assert result.exit_code == 3
    assert "the command 'acme' of acme-tools 1.0 is broken: RuntimeError: out of order" in result.stderr
    assert "LUTHIER_DISABLE=acme" in result.stderr
    assert "acme_tools.py" in result.stderr
    assert "acme" in call("--help").output
    assert call("store", "--help").exit_code == 0


@pytest.mark.parametrize(
    ("source", "attribute", "error"),
    [
        (APP, "nothing", "has no attribute 'nothing'"),
        (APP, "greet", "acme_tools:greet is a function, not a typer.Typer"),
        ("import sys\nsys.exit(0)", "app", "SystemExit"),
    ],
)
def test_what_is_no_app_is_broken(install, source, attribute, error):
    install("acme-tools", "acme", source, attribute=attribute)
    result = call("acme", "greet")
    assert result.exit_code == 3
    assert error in result.stderr


def test_the_broken_are_known_by_name(install):
    install("acme-tools", "acme", BROKEN)
    install("acme-fine", "fine", APP)
    (broken,) = with_commands(Registry()).broken
    assert (broken.name, broken.distribution, broken.version) == ("command acme", "acme-tools", "1.0")
    assert "RuntimeError: out of order" in broken.error
    assert "acme_tools.py" in broken.traceback


def test_two_distributions_that_give_one_command_are_both_named(install):
    install("acme-a", "acme", APP)
    install("acme-b", "acme", APP)
    result = call("acme", "greet", "world")
    assert result.exit_code == 1
    assert "the command 'acme' is given by acme-a 1.0 and by acme-b 1.0" in result.stderr
    assert "given by acme-a and acme-b, so by neither" in call("--help").output
    (broken,) = with_commands(Registry()).broken
    assert broken.distribution == "acme-a and acme-b"


@pytest.mark.usefixtures("without_installed_commands")
def test_a_command_of_the_name_of_ours_is_told_and_ours_is_called(install):
    install("acme-tools", "doctor", APP)
    assert "Commands of plugins" not in call("--help").output
    assert "greet" not in call("doctor", "--help").output
    (broken,) = with_commands(Registry()).broken
    assert broken.error == "the command 'doctor' of acme-tools 1.0 has the name of luthier's own command"


@pytest.mark.parametrize(("variable", "value"), [("LUTHIER_DISABLE", "acme"), ("LUTHIER_PLUGINS", "text")])
def test_a_command_can_be_left_out(install, monkeypatch, variable, value):
    install("acme-tools", "acme", BROKEN)
    monkeypatch.setenv(variable, value)
    assert call("acme", "greet").exit_code == 2
    assert with_commands(Registry()).broken == ()


def test_a_plugin_that_is_a_command_alone_may_be_named_by_luthier_plugins(install):
    install("acme-tools", "acme", APP)
    registry = load_plugins(environ={"LUTHIER_PLUGINS": "acme"})
    assert with_commands(registry).broken == ()


def test_a_misspelt_command_of_a_plugin_is_suggested(install):
    install("acme-tools", "acme", APP)
    assert "acme" in call("acmee").stderr


def test_working_commands_are_in_the_lists_of_plugins(install, monkeypatch):
    install("acme-tools", "acme", APP)
    monkeypatch.setenv("LUTHIER_PLUGINS", "acme")
    listed = call("plugins", "list").output
    assert "no components are installed" not in listed
    assert listed.splitlines()[2].split() == ["acme", "acme-tools", "1.0", "entry", "point", "luthier", "acme"]
    (plugin,) = json.loads(call("plugins", "list", "--json").stdout)["plugins"]
    assert (plugin["distribution"], plugin["hooks"], plugin["commands"]) == ("acme-tools", [], ["acme"])
    for name in ("acme", "acme-tools"):
        examined = call("plugins", "doctor", name)
        assert examined.exit_code == 0, examined.output
        assert "commands    luthier acme" in examined.output
    assert "did you mean 'acme'?" in call("plugins", "doctor", "acmee").stderr


def test_a_broken_command_is_examined_by_its_own_name(install):
    install("acme-tools", "acme", BROKEN)
    examined = call("plugins", "doctor", "acme")
    assert examined.exit_code == 1
    assert "out of order" in examined.output


def test_broken_commands_are_in_the_lists_of_what_is_broken(install):
    install("acme-tools", "acme", BROKEN)
    assert "broken: command acme (acme-tools 1.0" in call("plugins", "list").output
    assert "out of order" in call("plugins", "doctor").output
    assert "command acme is broken" in call("doctor").output
