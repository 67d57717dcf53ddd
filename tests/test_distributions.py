"""Every distribution builds as a wheel, installs from it into a fresh environment, and works there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

from luthier.plugins import FIRST_PARTY, load_plugins
from luthier.testing.imported import undeclared_imports

ROOT = Path(__file__).parents[1]
DISTRIBUTIONS = [ROOT, *sorted((ROOT / "plugins").glob("luthier-*"))]


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    target = tmp_path_factory.mktemp("wheels")
    for source in DISTRIBUTIONS:
        build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(target), str(source)]
        subprocess.run(build, check=True, capture_output=True)
    return sorted(target.glob("*.whl"))


def test_every_distribution_gives_a_typed_wheel_with_its_licence_named(wheels):
    assert len(wheels) == len(DISTRIBUTIONS)
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as archive:
            names = archive.namelist()
            metadata = archive.read(next(name for name in names if name.endswith("/METADATA"))).decode()
        assert any(name.endswith("/py.typed") for name in names), wheel.name
        assert not any("/tests/" in name for name in names), wheel.name
        assert "License-Expression: Apache-2.0" in metadata


def test_the_wheels_install_into_a_fresh_environment_and_list_their_components(wheels, tmp_path):
    # Component modules are light, so listing needs the core's requirements only, not torch and its like.
    home = tmp_path / "fresh"
    venv.create(home, with_pip=True)
    python = home / ("Scripts" if os.name == "nt" else "bin") / "python"
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    core = [wheel for wheel in wheels if wheel.name.startswith("luthier-")]
    subprocess.run([*pip, "--constraint", ROOT / "constraints.txt", *core], check=True, capture_output=True)
    plugins = [wheel for wheel in wheels if wheel not in core]
    subprocess.run([*pip, "--no-deps", *plugins], check=True, capture_output=True)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("LUTHIER", "PYTHON"))}
    listing = subprocess.run(
        [python.with_name("luthier"), "plugins", "list", "--json"],
        check=True,
        capture_output=True,
        text=True,
        env=environment,
        cwd=tmp_path,
    )
    found = json.loads(listing.stdout)
    assert found["broken"] == []
    named = {f"{entry['stage']}:{entry['name']}" for entry in found["components"]}
    assert named == {name for names in FIRST_PARTY.values() for name in names}


def test_the_extra_standard_names_the_first_party_plugins():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    named = {requirement.partition("==")[0] for requirement in extras["standard"]}
    beside = {"luthier-gguf", "luthier-mlflow", "luthier-optimum", "luthier-preference", "luthier-ray"}
    assert named == {path.name for path in DISTRIBUTIONS[1:]} - beside


def test_no_distribution_has_a_component_that_the_core_does_not_know_by_name():
    registry = load_plugins()
    ours = {path.name for path in DISTRIBUTIONS}
    installed = {
        (component.distribution, str(component)) for component in registry.components if component.distribution in ours
    }
    assert installed == {(distribution, name) for distribution, names in FIRST_PARTY.items() for name in names}


def undeclared(source: Path, requirements: list[str]) -> set[str]:
    """The packages that the code below `source` needs, and that are neither its own, Python's nor required."""
    own = {path.name.removesuffix(".py") for path in source.iterdir()}
    return undeclared_imports(source.rglob("*.py"), own, requirements)


@pytest.mark.parametrize("directory", DISTRIBUTIONS, ids=lambda path: path.name if path != ROOT else "luthier")
def test_every_import_is_of_a_declared_requirement(directory):
    project = tomllib.loads((directory / "pyproject.toml").read_text("utf-8"))["project"]
    source = ROOT / "engine" if directory == ROOT else directory / "src"
    # What conflicts with the main environment is required under this extra, and imported in an environment of its own.
    requirements = [*project["dependencies"], *project.get("optional-dependencies", {}).get("environment", [])]
    # Wherever a notebook's display is shown, its kernel is; nothing else needs it.
    assert undeclared(source, requirements) - {"IPython"} == set()


def test_an_undeclared_import_is_found_at_any_level(tmp_path):
    code = """
        from __future__ import annotations
        import os, polars.selectors
        from typing import TYPE_CHECKING
        if TYPE_CHECKING:
            import transformers
        def later():
            from jinja2 import Environment
            try:
                import numpy
            except ImportError:
                import torch
            return "import rich"
    """
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "module.py").write_text(textwrap.dedent(code), "utf-8")
    assert undeclared(tmp_path, []) == {"polars", "jinja2", "torch"}
    assert undeclared(tmp_path, ["Jinja2>=3.1", "polars>=1.30 ; python_version > '3'", "torch"]) == set()
