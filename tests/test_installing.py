"""Installing, uninstalling and examining plugins: with tiny wheels, in an environment that is thrown away."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest
from typer.testing import CliRunner

from luthier.cli import app
from luthier.errors import InputError
from luthier.installing import Change, require_pip

SHOUT = '''
from luthier import hookimpl

def {name}(frame):
    """Write texts in capitals."""
    return frame

@hookimpl
def luthier_cleaners():
    return [{name}]
'''


def files_of(name: str, version: str, module: str, *metadata: str, plugin: str = "") -> dict[str, str]:
    """A distribution of one module, and the plugin that it is, if it is one."""
    package = name.replace("-", "_")
    inside = f"{package}-{version}.dist-info"
    head = "\n".join(["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}", *metadata])
    files = {
        f"{package}.py": module,
        f"{inside}/METADATA": head + "\n",
        f"{inside}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    if plugin:
        files[f"{inside}/entry_points.txt"] = f"[luthier]\n{plugin} = {package}\n"
    return {**files, f"{inside}/RECORD": "".join(f"{path},,\n" for path in [*files, f"{inside}/RECORD"])}


class Place:
    """An environment that sees what the one of the tests has, and a directory of wheels."""

    def __init__(self, directory: Path) -> None:
        self.wheels = directory / "wheels"
        self.project = directory / "project"
        self.home = directory / "venv"
        for path in (self.wheels, self.project):
            path.mkdir()
        venv.create(self.home, with_pip=False, symlinks=os.name != "nt")
        base = {"base": str(self.home), "platbase": str(self.home)}
        self.site = Path(sysconfig.get_path("purelib", "venv", vars=base))
        self.python = Path(sysconfig.get_path("scripts", "venv", vars=base)) / "python"
        named = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
        line = f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})"
        (self.site / "tests.pth").write_text("\n".join([*named, line]) + "\n")

    def wheel(self, name: str, version: str, module: str = "", *metadata: str, plugin: str = "") -> None:
        path = self.wheels / f"{name.replace('-', '_')}-{version}-py3-none-any.whl"
        with zipfile.ZipFile(path, "w") as archive:
            for inside, text in files_of(name, version, module, *metadata, plugin=plugin).items():
                archive.writestr(inside, text)

    def luthier(
        self, *arguments: str, answer: str = "", group: tuple[str, ...] = ("plugins",)
    ) -> subprocess.CompletedProcess[str]:
        clean = {
            name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "LUTHIER", "PYTHON"))
        }
        settings = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(self.wheels), "PIP_CONFIG_FILE": os.devnull}
        return subprocess.run(
            [self.python, "-m", "luthier.cli", *group, *arguments],
            cwd=self.project,
            env={**clean, **settings, "LUTHIER_CACHE": str(self.project / "cache")},
            input=answer,
            capture_output=True,
            text=True,
            check=False,
        )

    def installed(self) -> set[str]:
        return {path.name for path in self.site.glob("acme*.dist-info")}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """With a plugin in two versions, one that conflicts with it, and one with an environment of its own."""
    there = Place(tmp_path_factory.mktemp("installing"))
    there.wheel("acme-library", "1.0")
    there.wheel("acme-library", "2.0")
    shout = SHOUT.format(name="acme_shout")
    there.wheel("acme-shout", "1.0", shout, "Requires-Dist: acme-library<2", plugin="acme-shout")
    there.wheel("acme-greedy", "1.0", SHOUT.format(name="greedy"), "Requires-Dist: acme-library>=2", plugin="greedy")
    extra = ("Provides-Extra: environment", 'Requires-Dist: acme-library>=2 ; extra == "environment"')
    there.wheel("acme-apart", "1.0", SHOUT.format(name="apart"), *extra, plugin="apart")
    return there


def test_the_change_is_shown_and_made_only_if_it_is_wanted(place):
    refused = place.luthier("install", "acme-shout", answer="n\n")
    assert refused.returncode == 1
    assert "  install    acme-shout 1.0\n  install    acme-library 1.0\n" in refused.stdout
    assert "nothing was changed" in refused.stderr
    told = json.loads(place.luthier("install", "acme-shout", "--json").stdout)
    assert told["applied"] is False
    assert [change["name"] for change in told["changes"]] == ["acme-shout", "acme-library"]
    assert place.installed() == set()

    agreed = place.luthier("install", "acme-shout", answer="y\n")
    assert agreed.returncode == 0, agreed.stderr
    assert "clean:acme-shout  Write texts in capitals." in agreed.stdout
    assert place.installed() == {"acme_shout-1.0.dist-info", "acme_library-1.0.dist-info"}
    assert "nothing changes" in place.luthier("install", "acme-shout").stdout

    unasked = place.luthier("uninstall", "acme-shout")
    assert (unasked.returncode, "answer beforehand: --yes" in unasked.stderr) == (1, True)
    assert "acme_shout-1.0.dist-info" in place.installed()
    gone = place.luthier("uninstall", "acme-shout", "--yes")
    assert gone.returncode == 0, gone.stderr
    assert "  remove     acme-shout 1.0" in gone.stdout
    assert place.installed() == {"acme_library-1.0.dist-info"}


def test_what_a_plugin_needs_is_not_broken_in_silence(place):
    assert place.luthier("install", "acme-shout", "--yes").returncode == 0
    asked = place.luthier("install", "acme-greedy", answer="\n")
    assert asked.returncode == 1
    assert "  upgrade    acme-library 1.0 -> 2.0" in asked.stdout
    assert "BREAKS: acme-shout 1.0 requires acme-library<2, which would be 2.0" in asked.stderr
    assert "extra `environment`" in asked.stderr
    breaks = json.loads(place.luthier("install", "acme-greedy", "--json").stdout)["breaks"]
    assert [(each["distribution"], each["found"], each["needed"]) for each in breaks] == [("acme-shout", "2.0", True)]
    assert "acme_greedy-1.0.dist-info" not in place.installed()


def test_of_a_plugin_with_an_environment_of_its_own_the_command_that_builds_it_is_told(place):
    came = place.luthier("install", "acme-apart", "--yes")
    assert came.returncode == 0, came.stderr
    assert "build it: luthier env build acme-apart" in came.stdout
    listed = json.loads(place.luthier("list", "--json").stdout)
    (component,) = [each for each in listed["components"] if each["distribution"] == "acme-apart"]
    assert (component["origin"], component["environment"]) == ("entry point", "not built")
    text = place.luthier("list").stdout
    assert "own environment (not built)" in text
    assert "luthier env build acme-apart" in text
    examined = place.luthier("doctor", "acme-apart")
    assert examined.returncode == 1
    assert "gives       clean:apart" in examined.stdout
    assert "luthier env build acme-apart" in examined.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["install", "acme-none"], "No matching distribution found for acme-none"),
        (["uninstall", "luthier"], "luthier itself is no plugin"),
        (["uninstall", "polars"], "polars is no plugin of Luthier"),
        (["install", "text"], "text is a plugin of luthier-text, which is installed"),
        (["uninstall", "luthier-txt"], "did you mean 'luthier-text'?"),
    ],
)
def test_what_cannot_be_done_is_told(place, arguments, message):
    before = place.installed()
    done = place.luthier(*arguments, "--yes")
    assert done.returncode == 1
    assert message in done.stderr
    assert place.installed() == before


def test_what_lies_outside_of_the_environment_is_left(place):
    if not list(Path(sysconfig.get_path("purelib")).glob("luthier_text-*.dist-info")):
        pytest.skip("needs luthier-text")
    done = place.luthier("uninstall", "text", "--yes")
    assert done.returncode == 1
    assert "pip left luthier-text" in done.stderr
    assert list(Path(sysconfig.get_path("purelib")).glob("luthier_text-*.dist-info"))


def test_what_is_no_plugin_is_refused_before_anything_is_installed(place):
    place.wheel("acme-plain", "1.0", "", "Requires-Dist: acme-library")
    before = place.installed()
    for name in ("acme-plain", str(place.wheels / "acme_plain-1.0-py3-none-any.whl")):
        done = place.luthier("install", name, "acme-greedy", "--yes")
        assert done.returncode == 1
        assert "acme-plain is no plugin: no entry point in the group `luthier`" in done.stderr
        assert "To install it all the same: pip install acme-plain" in done.stderr
    assert "polars is no plugin" in place.luthier("install", "polars", "--yes").stderr
    assert place.installed() == before


def test_a_plugins_name_is_not_taken_for_a_distributions(place):
    place.wheel("calm", "1.0")
    place.wheel("acme-calm", "1.0", SHOUT.format(name="calm"), plugin="calm")
    assert place.luthier("install", "acme-calm", "--yes").returncode == 0
    done = place.luthier("install", "calm", "--yes")
    assert done.returncode == 1
    assert "calm is a plugin of acme-calm, which is installed" in done.stderr
    assert "luthier plugins install --upgrade acme-calm" in done.stderr
    assert place.luthier("uninstall", "calm", "--yes").returncode == 0


def test_doctor_tells_of_requirements_that_do_not_hold(place):
    assert place.luthier("install", "acme-shout", "--yes").returncode == 0
    assert place.luthier("install", "acme-greedy", "--yes").returncode == 0
    problems = json.loads(place.luthier("doctor", "--json", group=()).stdout)["problems"]
    told = {each["problem"]: each["remedy"] for each in problems}
    assert told["acme-shout 1.0 requires acme-library<2, which is 2.0"] == 'pip install "acme-library<2"'


def test_without_pip_or_in_the_systems_environment_nothing_is_tried(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match="has no pip") as missing:
        require_pip()
    assert "ensurepip" in missing.value.remedy
    monkeypatch.undo()
    (tmp_path / "EXTERNALLY-MANAGED").touch()
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    monkeypatch.setattr(sys, "base_prefix", sys.prefix)
    monkeypatch.delenv("PIP_BREAK_SYSTEM_PACKAGES", raising=False)
    with pytest.raises(InputError, match="managed by the system") as managed:
        require_pip()
    assert "-m venv" in managed.value.remedy


def test_an_action_is_named_by_its_versions():
    pairs = {"install": ("", "1"), "remove": ("1", ""), "upgrade": ("1.9", "1.10"), "downgrade": ("2", "1.10")}
    assert {Change("a", *pair).action: pair for pair in pairs.values()} == pairs
    assert Change("a", "1", "1").action == "reinstall"


# --- plugins that do not load -------------------------------------------------------------------------


@pytest.fixture
def cli(tmp_path, monkeypatch):
    """Call `luthier plugins ARGUMENTS…` in a project with one working local plugin."""
    (tmp_path / "plugins.d").mkdir()
    (tmp_path / "plugins.d" / "fine.py").write_text(SHOUT.format(name="fine"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LUTHIER_PLUGINS", "fine,bad")
    monkeypatch.setenv("LUTHIER_CACHE", str(tmp_path / "cache"))
    return lambda *arguments: CliRunner().invoke(app, ["plugins", *arguments])


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("import no_such_module\n", "ModuleNotFoundError"),
        ("raise SystemExit(4)\n", "SystemExit"),
        ("raise BaseException('odd')\n", "BaseException"),
        ("def (\n", "SyntaxError"),
        ("from luthier import hookimpl\n@hookimpl\ndef luthier_cleaner(): ...\n", "there is no hook 'luthier_cleaner'"),
    ],
)
def test_a_plugin_that_breaks_takes_nothing_along(cli, code, error):
    Path("plugins.d/bad.py").write_text(code)
    listed = cli("list")
    assert listed.exit_code == 0
    assert "fine" in listed.stdout
    assert "broken: bad" in listed.stdout
    examined = cli("doctor", "bad")
    assert examined.exit_code == 1
    assert error in examined.stdout
    assert "Traceback" in examined.stdout
    assert "LUTHIER_DISABLE=bad" in examined.stdout


def test_doctor_tells_the_hooks_and_components_of_what_works(cli, monkeypatch):
    monkeypatch.setenv("LUTHIER_PLUGINS", "fine")
    text = cli("doctor")
    assert text.exit_code == 0
    assert "hooks       luthier_cleaners" in text.stdout
    (plugin,) = json.loads(cli("doctor", "clean:fine", "--json").stdout)["plugins"]
    assert plugin["path"].endswith("fine.py")
    assert (plugin["loads"], plugin["origin"], plugin["environment"]) == (True, "local file", None)
    unknown = cli("doctor", "fin")
    assert unknown.exit_code == 1
    assert "did you mean 'fine'?" in unknown.stderr


# --- mistakes in signatures ---------------------------------------------------------------------------

SIGNATURES = '''
from __future__ import annotations
import threading
from typing import TYPE_CHECKING, Annotated
import luthier
from annotated_types import Gt
from luthier import hookimpl
if TYPE_CHECKING:
    from decimal import Decimal

def fine(frame, *, size: int, limit: Annotated[int, Gt(0)] = 3):
    """Do nothing."""

def strange(frame, *, lock: threading.Thread):
    """Do nothing."""

def unknown(frame, *, share: Decimal = 1):
    """Do nothing."""

def wrong(frame, *, size: int, limit: Annotated[int, Gt(0)] = 0):
    """Do nothing."""

def senseless(frame, *, word: Annotated[str, Gt(3)] = "x"):
    """Do nothing."""

def formless(frame):
    """Do nothing."""

@luthier.component(gives="poems")
def poetic(frame):
    """Do nothing."""

@hookimpl
def luthier_cleaners():
    return [{cleaner}]

@hookimpl
def luthier_formatters():
    return [{formatter}]
'''


@pytest.mark.parametrize(
    ("cleaner", "formatter", "told"),
    [
        ("fine", "", ""),
        ("strange", "", "a parameter has a type that cannot be configured"),
        ("unknown", "", "the annotation of 'share' (Decimal) cannot be evaluated"),
        ("wrong", "", "the default of 'limit' is refused by its own type: input should be greater than 0, not 0"),
        ("senseless", "", "cannot be configured: TypeError"),
        ("", "formless", "does not say which form it gives"),
        ("", "poetic", "gives the unknown form 'poems'"),
    ],
)
def test_a_closer_look_finds_mistakes_in_signatures(cli, cleaner, formatter, told):
    Path("plugins.d/bad.py").write_text(SIGNATURES.format(cleaner=cleaner, formatter=formatter))
    assert cli("list").exit_code == 0
    examined = cli("doctor", "bad")
    whole = CliRunner().invoke(app, ["doctor"])
    assert examined.exit_code == bool(told), examined.stdout
    for told_by in (examined.stdout, whole.stderr):
        assert told in told_by
        assert not told or "bad.py:" in told_by
