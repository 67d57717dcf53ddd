"""The JSON Schema of recipes, and the help that docstrings give."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from luthier.components import Component
from luthier.core_stages import STAGES
from luthier.plugins import Registry, load_plugins
from luthier.registering import read_component
from luthier.schema import parameter_help, recipe_schema

jsonschema = pytest.importorskip("jsonschema")

PLUGIN = '''
import dataclasses
from typing import Annotated, Literal

from annotated_types import Interval

from luthier import Location, hookimpl


@dataclasses.dataclass(frozen=True, kw_only=True)
class Split:
    valid: float = 0.02
    by: Literal["group", "id"] = "group"


def reader(*, path: Location, sizes: list[Split] = [], named: dict[str, Split] = {}, either: int | Split = 3):
    """Read.

    Args:
        path: where the
            files are.
        sizes, named: both of them.
    """


Fraction = Annotated[float, Interval(gt=0, le=1)]


def near(frame, *, threshold: Fraction = 0.8, title: str = "x", split: Split | None = None):
    """Deduplicate."""


def rouge(subject):
    """Measure."""


def runner(model):
    """Load."""


@hookimpl
def luthier_sources():
    return [reader]

@hookimpl
def luthier_cleaners():
    return [near]

@hookimpl
def luthier_validators():
    return [rouge]

@hookimpl
def luthier_runtimes():
    return [runner]
'''


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    file = tmp_path_factory.mktemp("plugins") / "schemed.py"
    file.write_text(PLUGIN)
    registry = load_plugins(local=[file], environ={"LUTHIER_PLUGINS": "schemed"})
    assert registry.broken == ()
    return registry


def valid(registry: Registry, *steps: dict[str, Any], **top: Any) -> bool:
    schema = recipe_schema(registry)
    jsonschema.Draft202012Validator.check_schema(schema)
    return bool(jsonschema.Draft202012Validator(schema).is_valid({"luthier": 1, "steps": list(steps), **top}))


@pytest.mark.parametrize(
    "step",
    [
        {"source": "reader", "path": "a"},
        {"source": "reader", "path": "a", "sizes": [{"valid": 0.1}], "id": "x"},
        {"source": "reader", "path": "a", "named": {"x": {"by": "id"}}, "either": {"by": "id"}},
        {"clean": "near", "threshold": 1, "from": "reader"},
        {"clean": "near", "threshold": "${env:THRESHOLD}", "split": None, "from": ["a", "b"]},
        {"validate": "rouge", "runtime": "runner", "gate": {"rougeL": {"at_least": "base + 0.1", "confidence": 0.95}}},
    ],
)
def test_valid_steps(registry: Registry, step: dict[str, Any]) -> None:
    assert valid(registry, step)
    assert valid(registry, step, name="x", seed=3)


@pytest.mark.parametrize(
    "step",
    [
        {},
        {"reader": "source"},
        {"source": "reder", "path": "a"},
        {"source": "reader"},
        {"source": "reader", "path": 3},
        {"source": "reader", "path": "a", "sizes": [{"valid": "much"}]},
        {"source": "reader", "path": "a", "sizes": [{"vald": 0.1}]},
        {"source": "reader", "path": "a", "either": {"bye": "id"}},
        {"clean": "near", "treshold": 0.5},
        {"clean": "near", "threshold": 0},
        {"clean": "near", "threshold": "0.5"},
        {"clean": "near", "title": 3},
        {"clean": "near", "gate": {}},
        {"clean": "near", "environment": "own"},
        {"validate": "rouge", "runtime": "runer"},
        {"validate": "rouge", "gate": {"rougeL": {"at_lest": 3}}},
    ],
)
def test_wrong_steps(registry: Registry, step: dict[str, Any]) -> None:
    assert not valid(registry, step)


def test_wrong_recipes(registry: Registry) -> None:
    good = {"source": "reader", "path": "a"}
    assert not valid(registry)
    assert not valid(registry, good, luthier=2)
    assert not valid(registry, good, seed=-1)
    assert not valid(registry, good, sed=1)


def test_descriptions_and_defaults_reach_the_editor(registry: Registry) -> None:
    definitions = recipe_schema(registry)["$defs"]
    reader, near = definitions["source.reader"], definitions["clean.near"]
    assert reader["description"] == "Read."
    assert reader["properties"]["path"]["description"] == "where the files are."
    assert near["properties"]["threshold"]["default"] == 0.8
    assert near["properties"]["title"] == {"default": "x", "type": "string"}


def test_the_schema_of_no_plugins_is_one_too() -> None:
    assert not valid(Registry(), {"source": "reader", "path": "a"})


def test_the_keys_that_there_are(registry: Registry) -> None:
    reader, near = registry.find("source", "reader"), registry.find("clean", "near")
    assert reader.keys() == ["path", "sizes", "named", "either"]
    assert reader.keys(("sizes", 0)) == ["valid", "by"]
    assert reader.keys(("named", "x")) == ["valid", "by"]
    assert reader.keys(("either", "Split")) == ["valid", "by"]
    assert near.keys(("split",)) == ["valid", "by"]
    assert near.keys(("threshold",)) == []


def documented(doc: str) -> Component:
    def shout(frame: Any, *, size: int = 1, most: int = 2) -> None: ...

    shout.__doc__ = doc
    return read_component(shout, STAGES[1], distribution="d", version="1", plugin="p")


@pytest.mark.parametrize(
    ("doc", "expected"),
    [
        ("Shout.", {}),
        ("Shout.\n\nArgs:\n", {}),
        (
            "Shout.\n\n    Args:\n        size: how big.\n        most: how many:\n            at most.",
            {"size": "how big.", "most": "how many: at most."},
        ),
        (
            "Shout.\n\nArgs:\n    size (int): how big.\n\n    most: see\n\n        below.\n\nReturns:\n    x: y.",
            {"size": "how big.", "most": "see below."},
        ),
        ("Shout.\n\nArgs:\n    size, most: numbers.\n", {"size": "numbers.", "most": "numbers."}),
        ("Shout.\n\nArgs:\n    size:\n        how big.\n", {"size": "how big."}),
        ("Shout.\n\nArgs:\n    not an entry\n", {}),
    ],
)
def test_parameter_help(doc: str, expected: dict[str, str]) -> None:
    assert parameter_help(documented(doc)) == expected


def test_the_schema_of_the_toys(project: Path) -> None:
    from ruamel.yaml import YAML

    registry = load_plugins(local=[project / "plugins.d" / "toys.py"])
    recipe = YAML(typ="safe").load(project / "recipe.yaml")
    jsonschema.Draft202012Validator(recipe_schema(registry)).validate(recipe)
