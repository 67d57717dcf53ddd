"""The plugin in the engine's process: light, and clear when rendering fails."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import luthier_report
from luthier import PluginError, Run
from luthier.plugins import load_plugins

HEAVY = ("polars", "pyarrow", "numpy", "jinja2", "torch", "transformers", "onnxruntime", "pydantic", "ruamel.yaml")


def test_the_plugin_loads_nothing_heavy() -> None:
    code = f"import sys, luthier_report, luthier_report._launch; print([m for m in {HEAVY!r} if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_the_engine_finds_the_hook(whole_run: Run) -> None:
    registry = load_plugins(local=[])
    assert "luthier-report" in [plugin.distribution for plugin in registry.plugins]
    assert [broken for broken in registry.broken if broken.distribution == "luthier-report"] == []


def test_the_end_of_a_run_leaves_a_report_and_a_card(whole_run: Run) -> None:
    luthier_report.luthier_run_finished(whole_run)
    assert "docstring-summaries" in whole_run.report_path.read_text(encoding="utf-8")
    assert (whole_run.model_path / "README.md").read_text(encoding="utf-8").startswith("---\n")
    assert sorted(path.name for path in whole_run.path.iterdir()) == ["model", "recipe.yaml", "report.html", "run.json"]


def test_the_same_run_gives_the_same_bytes(whole_run: Run) -> None:
    luthier_report.luthier_run_finished(whole_run)
    first = whole_run.report_path.read_bytes(), (whole_run.model_path / "README.md").read_bytes()
    luthier_report.luthier_run_finished(whole_run)
    assert first == (whole_run.report_path.read_bytes(), (whole_run.model_path / "README.md").read_bytes())


def test_a_run_that_cannot_be_read_is_a_clear_error(whole_run: Run) -> None:
    (whole_run.path / "run.json").write_text("{", encoding="utf-8")
    with pytest.raises(PluginError, match=r"was not rendered: the run .* cannot be read") as caught:
        luthier_report.luthier_run_finished(whole_run)
    assert "-m luthier_report" in caught.value.remedy
    assert "cannot be read" in (whole_run.path / "logs" / "report.log").read_text(encoding="utf-8")


def test_of_a_bug_the_error_tells_the_last_line(
    whole_run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    package = tmp_path / "broken" / "luthier_report"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("", encoding="utf-8")
    (package / "__main__.py").write_text("raise RuntimeError('a bug of ours')", encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", f"{package.parent}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    with pytest.raises(PluginError, match="RuntimeError: a bug of ours"):
        luthier_report.luthier_run_finished(whole_run)
    assert "Traceback" in (whole_run.path / "logs" / "report.log").read_text(encoding="utf-8")


def test_the_command_says_how_it_is_used(tmp_path: Path) -> None:
    result = subprocess.run([sys.executable, "-m", "luthier_report"], capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert result.stderr == "usage: python -m luthier_report RUN_DIRECTORY\n"
    result = subprocess.run(
        [sys.executable, "-m", "luthier_report", str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
