"""Components that need what their distribution requires only under an extra."""

from __future__ import annotations

import pytest

import luthier
from luthier import provenance
from luthier.errors import InputError
from luthier.plugins import load_plugins

PLUGIN = """
from luthier import component, hookimpl

@component(gives="causal-lm")
def clown(ctx):
    "Needs nothing else."

@component(needs={"model": {"causal-lm"}}, extra="fast")
def fast_clown(model):
    "Needs the engine."

def applause(subject, ctx):
    "Count it."

@hookimpl
def luthier_architectures():
    return [clown]

@hookimpl
def luthier_runtimes():
    return [fast_clown]

@hookimpl
def luthier_validators():
    return [applause]
"""
RECIPE = """
luthier: 1
name: circus
steps:
  - architecture: clown
  - validate: applause
    runtime: fast-clown
"""


@pytest.fixture
def site(project, monkeypatch):
    """Where a plugin is installed whose extra `fast` is not, and how to install that."""
    site = project / "site"

    def install(name: str, version: str, metadata: str = "") -> None:
        info = site / f"{name.replace('-', '_')}-1.dist-info"
        info.mkdir(parents=True, exist_ok=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{metadata}")
        provenance._distribution.cache_clear()

    install("acme-circus", "1.0", 'Provides-Extra: fast\nRequires-Dist: Acme_Engine>=1 ; extra == "fast"\n')
    (site / "acme_circus-1.dist-info" / "entry_points.txt").write_text("[luthier]\ncircus = acme_circus\n")
    (site / "acme_circus.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setenv("LUTHIER_PLUGINS", "circus")
    (project / "recipe.yaml").write_text(RECIPE)
    yield install
    provenance._distribution.cache_clear()


def test_a_plan_names_the_command_that_installs_the_extra(site, project):
    with pytest.raises(InputError) as refused:
        luthier.plan(project / "recipe.yaml")
    assert "runtime:fast-clown needs acme-engine, which is not installed" in str(refused.value)
    assert "pip install 'acme-circus[fast]'" in str(refused.value)
    site("Acme-Engine", "1.2")
    assert [planned.node.step.id for planned in luthier.plan(project / "recipe.yaml")] == ["clown", "applause"]


def test_the_versions_of_the_extra_are_in_the_keys_of_what_needs_it(site):
    site("Acme-Engine", "1.2")
    registry = load_plugins()
    assert provenance.versions_of(registry.runtime("fast-clown")) == {"acme-engine": "1.2"}
    assert provenance.versions_of(registry.find("architecture", "clown")) == {}
