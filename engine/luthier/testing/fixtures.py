"""A pytest plugin for those who write Luthier plugins: a context, a call of one component, a whole project."""

from __future__ import annotations

import json
import shutil
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pytest

if TYPE_CHECKING:
    import luthier
    from luthier import Frame
    from luthier.testing import ComponentRun


def pytest_configure(config: pytest.Config) -> None:
    """Register the mark of the checks that build environments."""
    config.addinivalue_line("markers", "slow: builds environments or trains models")


@pytest.fixture
def luthier_context(tmp_path: Path) -> luthier.Context:
    """A context to call a component with; its directories lie below `tmp_path`."""
    from luthier.testing import make_context

    return make_context(tmp_path / "context")


class RunComponent(Protocol):
    """Calls a data component in this process, where a debugger reaches it."""

    def __call__(
        self,
        function: Callable[..., Any],
        rows: Frame | Sequence[str] | Sequence[Mapping[str, Any]] = (),
        *,
        seed: int = 0,
        **configuration: Any,
    ) -> ComponentRun:
        """Run a source, cleaner, bias filter or formatter on texts or rows, checked as in a run."""


@pytest.fixture
def run_component(tmp_path_factory: pytest.TempPathFactory) -> RunComponent:
    """Run a data component on rows: `run_component(shout, ["TEXT"], max_capitals=0.2).texts`."""
    from luthier.testing import run_component

    def call(
        function: Callable[..., Any],
        rows: Frame | Sequence[str] | Sequence[Mapping[str, Any]] = (),
        *,
        seed: int = 0,
        **configuration: Any,
    ) -> ComponentRun:
        directory = tmp_path_factory.mktemp("component")
        return run_component(function, rows, directory=directory, seed=seed, **configuration)

    return call


class Project:
    """A folder to run recipes in, with a cache of its own; the working directory of the test.

    Attributes:
        path: the folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def plugin(self, source: str | Path, name: str = "local") -> Path:
        """Put a one-file plugin into `plugins.d`: a file, or its text."""
        target = self.path / "plugins.d" / (source.name if isinstance(source, Path) else f"{name}.py")
        target.parent.mkdir(exist_ok=True)
        if isinstance(source, Path):
            shutil.copyfile(source, target)
        else:
            target.write_text(textwrap.dedent(source), encoding="utf-8")
        return target

    def rows(self, rows: Sequence[str] | Sequence[Mapping[str, Any]], name: str = "data.jsonl") -> Path:
        """Write a JSONL file of texts, or of rows."""
        target = self.path / name
        records = [{"text": row} if isinstance(row, str) else row for row in rows]
        target.write_text("".join(f"{json.dumps(record)}\n" for record in records), encoding="utf-8")
        return target

    def recipe(self, text: str, name: str = "recipe.yaml") -> Path:
        """Write a recipe; indentation that all lines share is removed."""
        target = self.path / name
        target.write_text(textwrap.dedent(text), encoding="utf-8")
        return target

    def run(self, recipe: str | Path = "recipe.yaml", **options: Any) -> luthier.Run:
        """Run a recipe of the folder, without a display; `options` are those of `luthier.run`."""
        import luthier

        return luthier.run(self.path / recipe, **{"display": False, "jobs": 1, **options})


@pytest.fixture
def luthier_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project folder: `plugin`, `rows` and `recipe` write its files, `run` runs it."""
    path = tmp_path / "project"
    path.mkdir()
    monkeypatch.chdir(path)
    monkeypatch.setenv("LUTHIER_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("LUTHIER_HOME", raising=False)
    return Project(path)
