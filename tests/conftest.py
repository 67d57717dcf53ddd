"""A project folder with the toy plugin and its recipe, and ways to run Luthier in it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import luthier

TOYS = Path(__file__).parent / "toys"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with `recipe.yaml` and `plugins.d/toys.py`; only that plugin is loaded."""
    (tmp_path / "plugins.d").mkdir()
    shutil.copy(TOYS / "toys.py", tmp_path / "plugins.d" / "toys.py")
    shutil.copy(TOYS / "recipe.yaml", tmp_path / "recipe.yaml")
    monkeypatch.setenv("LUTHIER_PLUGINS", "toys")
    monkeypatch.setenv("LUTHIER_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("LUTHIER_HOME", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run(project: Path) -> Callable[..., luthier.Run]:
    """Run the project's recipe in this process, without a display."""

    def call(**options: Any) -> luthier.Run:
        return luthier.run(project / "recipe.yaml", display=False, **{"jobs": 1, **options})

    return call


@pytest.fixture
def command(project: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start `luthier ARGUMENTS…` in the project as a process of its own; ended with the test."""
    started: list[subprocess.Popen[str]] = []
    # A shell's background ignores Ctrl-C, and what is started there takes that over.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)

    def call(*arguments: str, **environment: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", "from luthier.cli import main; main()", *arguments],
            cwd=project,
            env={**os.environ, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield call
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def damage(project: Path) -> Callable[[str], None]:
    """Change one bit of an artifact in the project's store; its size stays."""

    def call(hash: str) -> None:
        [file] = [path for path in (project / ".luthier" / "objects" / hash / "content").rglob("*") if path.is_file()]
        file.chmod(0o644)
        text = file.read_bytes()
        file.write_bytes(text[:-2] + bytes([text[-2] ^ 1]) + text[-1:])

    return call
