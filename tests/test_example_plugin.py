"""`examples/plugin/` as its users meet it: a wheel, a fresh environment, its name in a recipe."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
RECIPE = """
luthier: 1
steps:
  - source: lines
  - clean: shout
    max_capitals: 0.5
"""
LINES = '''
import polars as pl

from luthier import hookimpl

def lines():
    """Three documents."""
    yield pl.DataFrame({"text": ["READ THIS NOW", "Read this, when there is time.", "42"]})

@hookimpl
def luthier_sources():
    return [lines]
'''


def test_its_own_tests_pass(tmp_path):
    example = ROOT / "examples" / "plugin"
    project = tomllib.loads((example / "pyproject.toml").read_text())["project"]
    info = tmp_path / "site" / f"luthier_shout-{project['version']}.dist-info"
    info.mkdir(parents=True)
    head = ["Metadata-Version: 2.1", f"Name: {project['name']}", f"Version: {project['version']}"]
    requirements = [f"Requires-Dist: {requirement}" for requirement in project["dependencies"]]
    (info / "METADATA").write_text("\n".join([*head, *requirements, ""]))
    (info / "entry_points.txt").write_text("[luthier]\nshout = luthier_shout\n")
    paths = [str(info.parent), str(example / "src"), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "LUTHIER_CACHE": str(tmp_path / "cache")}
    command = [sys.executable, "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", "tests"]
    done = subprocess.run(command, cwd=example, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert "passed" in done.stdout
    assert "skipped" not in done.stdout


@pytest.mark.slow
def test_it_is_installed_from_a_wheel_and_used_by_name(tmp_path):
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "fresh"], check=True)
    python = tmp_path / "fresh" / ("Scripts" if os.name == "nt" else "bin") / "python"
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path / "wheels")]
    for directory in (ROOT, ROOT / "examples" / "plugin"):
        subprocess.run([*build, str(directory)], check=True, capture_output=True)
    wheels = [str(path) for path in sorted((tmp_path / "wheels").glob("*.whl"))]
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "--constraint", str(ROOT / "constraints.txt"), *wheels], check=True)

    (tmp_path / "plugins.d").mkdir()
    (tmp_path / "plugins.d" / "lines.py").write_text(LINES)
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("LUTHIER_", "PYTHON"))}

    def luthier(*arguments: str) -> str:
        command = [python.with_name("luthier"), *arguments]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    luthier("run", "recipe.yaml")
    shown = json.loads(luthier("runs", "show", "latest", "--json"))
    (step,) = [step for step in shown["steps"] if step["component"] == "shout"]
    assert step["counts"]["dropped"] == 1
    assert step["metrics"]["shouts"] == 1
