"""docs/tutorial.md: every file and every command of it, in order, in an environment that is thrown away."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sysconfig
import venv
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

PAGE = (Path(__file__).parents[1] / "docs" / "tutorial.md").read_text(encoding="utf-8")
LOCAL_LINES = 8
PACKAGED_LINES = 18
PROGRAMS = {
    "luthier": "from luthier.cli import main; main()",
    "pip": "import runpy; runpy.run_module('pip', run_name='__main__')",
    "pytest": "import pytest; raise SystemExit(pytest.main())",
}
REMOVED = "Remove `plugins.d/shout.py`"
FILE_NAMES = {"python": "plugins.d/shout.py", "json": "data.jsonl", "yaml": "recipe.yaml", "toml": "pyproject.toml"}


class Block(NamedTuple):
    language: str
    text: str
    section: str


def blocks() -> Iterator[Block]:
    for section in PAGE.split("\n## ")[1:]:
        title = section.partition("\n")[0]
        for language, text in re.findall(r"^```(\w*)\n(.*?)^```", section, re.MULTILINE | re.DOTALL):
            yield Block(language, text, title)


BLOCKS = list(blocks())


def only(language: str) -> str:
    (text,) = [block.text for block in BLOCKS if block.language == language]
    return text


def commands(section: str) -> list[list[str]]:
    lines = [
        line
        for block in BLOCKS
        if block.section == section and block.language == "sh"
        for line in block.text.split("\n")
    ]
    return [shlex.split(line) for line in lines if line]


class Shell:
    """Runs commands one after another in an environment that sees what that of the tests has."""

    def __init__(self, home: Path, directory: Path) -> None:
        venv.create(home, with_pip=False, symlinks=os.name != "nt")
        base = {"base": str(home), "platbase": str(home)}
        self._programs = Path(sysconfig.get_path("scripts", "venv", vars=base))
        site = Path(sysconfig.get_path("purelib", "venv", vars=base))
        (site / "tests.pth").write_text(f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n")
        self.directory = directory
        self._cache = directory / "cache"
        self._installed = ""

    def run(self, command: list[str], *, fails: bool = False) -> str:
        """What the command prints; `cd` is for the commands that follow.

        Tools of the tests' environment may be used once the page has installed them.
        """
        program, *arguments = command
        if program == "cd":
            self.directory /= arguments[0]
            return ""
        code = ["-c", PROGRAMS[program]] if program in PROGRAMS else []
        tool = arguments[1] if arguments[:1] == ["-m"] else program
        assert tool in ("luthier", "pip") or f"already satisfied: {tool}" in self._installed, f"who installs {tool}?"
        # Packages are built with the tests' hatchling: nothing is fetched.
        arguments += ["--no-isolation"] if arguments == ["-m", "build"] else []
        done = subprocess.run(
            [str(self._programs / "python"), *code, *arguments],
            cwd=self.directory,
            env=self._environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode != 0) is fails, f"{command}\n{done.stdout}\n{done.stderr}"
        self._installed += done.stdout if command[:2] == ["pip", "install"] else ""
        return done.stdout + done.stderr

    def _environment(self) -> dict[str, str]:
        mine = ("PIP_", "LUTHIER", "PYTHON", "PYTEST")
        clean = {name: value for name, value in os.environ.items() if not name.startswith(mine)}
        settings = {"PIP_NO_INDEX": "1", "PIP_NO_BUILD_ISOLATION": "0", "PIP_CONFIG_FILE": os.devnull}
        return {**clean, **settings, "LUTHIER_CACHE": str(self._cache), "LUTHIER_HOME": str(self._cache / "store")}


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Shell:
    directory = tmp_path_factory.mktemp("tutorial")
    (directory / "project").mkdir()
    return Shell(directory / "venv", directory / "project")


def test_the_local_form_is_one_file_of_few_lines():
    assert len(only("python").splitlines()) <= LOCAL_LINES


def test_the_packaged_form_is_two_files_of_few_lines_and_one_pip_install():
    assert len((only("python") + only("toml")).splitlines()) <= PACKAGED_LINES
    assert [command for command in commands("A distribution") if command[0] == "pip"] == [["pip", "install", "."]]


def test_every_block_is_a_file_or_commands_that_the_tests_below_run():
    assert {block.language for block in BLOCKS} == {*FILE_NAMES, "sh", ""}
    ran = {"Eight lines", "Try it", "If something is wrong", "A distribution", "A tested one", "A published one"}
    assert {block.section for block in BLOCKS} == ran


def test_a_local_plugin(shell):
    for language in ("python", "json", "yaml"):
        path = shell.directory / FILE_NAMES[language]
        path.parent.mkdir(exist_ok=True)
        path.write_text(only(language))
    (listing,) = [shell.run(command) for command in commands("Eight lines")]
    assert re.search(r"clean +shout +plugins.d/shout.py +local file +Drop documents", listing)
    shown, _, planned, finished = [shell.run(command) for command in commands("Try it")]
    assert "max_capitals" in shown
    assert "0.3" in shown
    assert (shell.directory / "out.jsonl").read_text().count("\n") == 1
    assert "quiet" in (shell.directory / "out.jsonl").read_text()
    assert "shout" in planned
    assert "shout" in finished
    (examined,) = [shell.run(command) for command in commands("If something is wrong")]
    assert "luthier_cleaners" in examined
    (shell.directory / "plugins.d" / "shout.py").write_text(
        only("python").replace("luthier_cleaners", "luthier_cleaner")
    )
    assert "luthier_cleaners" in shell.run(*commands("If something is wrong"), fails=True)


def test_a_distribution(shell):
    assert REMOVED in PAGE
    (shell.directory / "plugins.d" / "shout.py").unlink()
    folder = shell.directory / "packaged"
    folder.mkdir()
    (folder / "luthier_shout.py").write_text(only("python"))
    (folder / "pyproject.toml").write_text(only("toml"))
    before, shell.directory = shell.directory, folder
    _, listing, examined = [shell.run(command) for command in commands("A distribution")]
    shell.directory = before
    assert re.search(r"clean +shout +luthier-shout +0.1.0 +entry point +Drop documents", listing)
    assert "luthier_cleaners" in examined


def test_a_tested_one_is_published(shell):
    made, _, _, _, tested, listing = [shell.run(command) for command in commands("A tested one")]
    assert "wrote calm/pyproject.toml" in made.replace(os.sep, "/")
    assert " passed" in tested
    assert "failed" not in tested
    assert re.search(r"clean +calm +luthier-calm", listing)
    (line,) = [block.text for block in BLOCKS if not block.language]
    assert line in (shell.directory / "tests" / "test_calm.py").read_text()
    tool, build, remove, install, uninstall = commands("A published one")
    shell.run(tool)
    shell.run(build)
    assert len(list((shell.directory / "dist").glob("luthier_calm-0.1.0*"))) == 2
    assert "uninstalled luthier-calm" in shell.run(remove)
    assert "clean:calm" in shell.run(install)
    assert "uninstalled luthier-calm" in shell.run(uninstall)
