"""Components: what a signature may be, and how its configuration is validated."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import pytest
from annotated_types import Interval
from hypothesis import given
from hypothesis import strategies as st

from luthier import Location, component
from luthier.components import RESERVED_KEYS, Component, ConfigurationError, plain_value
from luthier.core_stages import DEFAULT_RUNTIMES, STAGES, Stage
from luthier.errors import PluginError
from luthier.registering import read_component

if TYPE_CHECKING:
    from decimal import Decimal

STAGE = {stage.label: stage for stage in STAGES}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Split:
    valid: float = 0.02
    by: Literal["group", "id"] = "group"


Fraction = Annotated[float, Interval(gt=0, le=1)]


def near_duplicates(
    frame: Any,
    ctx: Any,
    *,
    threshold: Fraction = 0.8,
    rows: int | None = None,
    split: Split = Split(),
    words: frozenset[str] = frozenset(),
    path: Location = Location("x"),
) -> None:
    """Keep one of each cluster.

    More of it.
    """


def read(function: Callable[..., Any], stage: str = "clean") -> Component:
    return read_component(function, STAGE[stage], distribution="acme", version="1", plugin="a")


def test_what_a_component_says_of_itself() -> None:
    found = read(near_duplicates)
    assert (found.name, str(found), found.inputs) == ("near-duplicates", "clean:near-duplicates", ("frame", "ctx"))
    assert found.summary == "Keep one of each cluster."
    assert found.doc.endswith("More of it.")
    assert [parameter.name for parameter in found.parameters] == ["threshold", "rows", "split", "words", "path"]
    assert found.declared.gives is None


def test_declarations() -> None:
    @component(gives="chat", needs={"data": {"documents"}}, fingerprint=str, platform=True)
    def talk(data: Any) -> None:
        """Talk."""

    declared = read(talk, "format").declared
    assert (declared.gives, declared.fingerprint, declared.platform) == ("chat", str, True)
    assert declared.needs == {"data": frozenset({"documents"})}


def test_configure_fills_in_defaults_and_types() -> None:
    values = read(near_duplicates).configure({"rows": 3, "split": {"valid": 1}, "words": ["b", "a"], "path": "y"})
    assert values == {
        "threshold": 0.8,
        "rows": 3,
        "split": Split(valid=1.0),
        "words": frozenset("ab"),
        "path": "y",
    }
    assert isinstance(values["path"], Location)
    assert isinstance(read(near_duplicates).configure({})["path"], Location)


@pytest.mark.parametrize(
    ("configuration", "key", "message"),
    [
        ({"threshold": True}, ("threshold",), "input should be a valid number, not True"),
        ({"threshold": "0.2"}, ("threshold",), "input should be a valid number, not '0.2'"),
        ({"threshold": 0}, ("threshold",), "input should be greater than 0, not 0"),
        ({"threshold": 1.5}, ("threshold",), "input should be less than or equal to 1, not 1.5"),
        ({"threshold": None}, ("threshold",), "input should be a valid number, not None"),
        ({"rows": 1.5}, ("rows",), "input should be a valid integer"),
        ({"rows": True}, ("rows",), "input should be a valid integer, not True"),
        ({"split": {"valid": "x"}}, ("split", "valid"), "input should be a valid number, not 'x'"),
        ({"split": {"vald": 1}}, ("split", "vald"), "unknown key"),
        ({"split": {"by": "name"}}, ("split", "by"), "input should be 'group' or 'id', not 'name'"),
        ({"treshold": 1}, ("treshold",), "unknown key"),
        ({"path": ""}, ("path",), "string should have at least 1 character"),
        ({"path": 3}, ("path",), "input should be a valid string, not 3"),
    ],
)
def test_a_wrong_configuration(configuration: dict[str, Any], key: tuple[str, ...], message: str) -> None:
    with pytest.raises(ConfigurationError, match="clean:near-duplicates: ") as caught:
        read(near_duplicates).configure(configuration)
    (problem,) = caught.value.problems
    assert problem.key == key
    assert problem.message.startswith(message)
    assert problem.unknown == (message == "unknown key")
    assert caught.value.exit_code == 1


def test_every_problem_at_once() -> None:
    def needy(frame: Any, *, size: int, unit: str) -> None:
        """Need."""

    with pytest.raises(ConfigurationError) as caught:
        read(needy).configure({"size": "x", "extra": 1})
    assert {(problem.key, problem.message) for problem in caught.value.problems} == {
        (("size",), "input should be a valid integer, not 'x'"),
        (("unit",), "required, but missing"),
        (("extra",), "unknown key"),
    }


def test_canonical_is_json_with_defaults_and_settles_at_once() -> None:
    found = read(near_duplicates)
    canonical = found.canonical({"threshold": 1, "words": ["b", "a", "b"]})
    assert canonical == {
        "threshold": 1.0,
        "rows": None,
        "split": {"valid": 0.02, "by": "group"},
        "words": ["a", "b"],
        "path": "x",
    }
    assert type(canonical["path"]) is str
    assert found.canonical(json.loads(json.dumps(canonical))) == canonical


def test_canonical_is_the_same_in_every_process(tmp_path: Path) -> None:
    # Sets iterate in an order that differs from process to process; a step's key must not.
    code = (
        "from luthier.registering import read_component\nfrom luthier.core_stages import STAGES\n"
        "def f(frame, *, words: set[str]):\n    'F.'\n"
        "c = read_component(f, STAGES[1], distribution='', version='', plugin='')\n"
        "print(c.canonical({'words': [str(n) for n in range(20)]}))"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        ).stdout
        for seed in "123"
    }
    assert len(outputs) == 1
    assert "'0'" in outputs.pop()


@given(st.frozensets(st.text()), st.floats(allow_nan=False, allow_infinity=False))
def test_plain_values_are_json(words: frozenset[str], number: float) -> None:
    value = {"words": words, "path": Location("a"), "split": Split(valid=number), "pair": (1, [None, Path("p")])}
    plain = plain_value(value, lambda location: f"/{location}")
    assert json.loads(json.dumps(plain)) == plain
    assert plain == {
        "words": sorted(words, key=json.dumps),
        "path": "/a",
        "split": {"valid": number, "by": "group"},
        "pair": [1, [None, "p"]],
    }


def test_an_annotation_that_exists_only_for_type_checkers() -> None:
    def priced(frame: Any, *, price: Decimal | None = None) -> None:
        """Price."""

    with pytest.raises(PluginError, match=r"annotation of 'price' \(Decimal \| None\) cannot be evaluated") as caught:
        read(priced).configure({})
    assert "test_components.py" in caught.value.message
    assert "TYPE_CHECKING" in caught.value.remedy


def test_a_type_that_cannot_be_configured() -> None:
    class Odd:
        pass

    def odd(frame: Any, *, thing: int = 1) -> None:
        """Odd."""

    odd.__annotations__["thing"] = Odd
    with pytest.raises(PluginError, match="a parameter has a type that cannot be configured"):
        read(odd).configure({})


def test_input_annotations_are_never_evaluated() -> None:
    def heavy(frame: no_such_module.DataFrame, *, size: int = 1) -> None:  # type: ignore[name-defined]  # noqa: F821
        """Weigh."""

    assert read(heavy).configure({"size": 2}) == {"size": 2}


def refused(function: Any, stage: str = "clean") -> str:
    with pytest.raises(PluginError) as caught:
        read(function, stage)
    return f"{caught.value.message} | {caught.value.remedy}"


def test_wrong_signatures_name_the_function_and_what_the_stage_offers() -> None:
    def colourful(frame, colour):  # type: ignore[no-untyped-def]
        """Colour."""

    message = refused(colourful)
    assert "colourful (" in message
    assert "test_components.py:" in message
    assert "asks for 'colour', which this stage does not offer" in message
    assert message.endswith("A clean component may ask for: frame or data, other (optional), ctx (optional).")


@pytest.mark.parametrize(
    ("source", "stage", "expected"),
    [
        ("def f(): 'F.'", "clean", "must ask for exactly one of 'frame', 'data'"),
        ("def f(frame, data): 'F.'", "clean", "must ask for exactly one of 'frame', 'data'"),
        ("def f(data): 'F.'", "tune", "does not ask for 'model'"),
        ("def f(ctx): 'F.'", "runtime", "A runtime component may ask for: model or onnx, ctx (optional)."),
        ("def f(frame): pass", "clean", "has no docstring"),
        ("def f(frame, *args): 'F.'", "clean", "takes *args"),
        ("def f(frame, **kw): 'F.'", "clean", "takes **kw"),
        ("def f(frame, /): 'F.'", "clean", "takes 'frame' by position only"),
        ("def f(frame=None): 'F.'", "clean", "gives its input 'frame' a default"),
        ("def f(frame, *, size=1): 'F.'", "clean", "has a parameter 'size' without a type"),
        ("def f(frame, *, runtime: str): 'F.'", "clean", "has a parameter 'runtime', which recipes reserve"),
        ("def f(frame, *, clean: str): 'F.'", "clean", "has a parameter 'clean', which recipes reserve"),
        ("def f(frame, *, _size: int): 'F.'", "clean", "has a parameter '_size', which recipes reserve"),
        ("f = 3", "clean", "is not a function"),
        ("class f: 'F.'", "clean", "is not a function"),
        ("f = lambda frame: None", "clean", "has no name"),
    ],
)
def test_signatures_that_are_refused(source: str, stage: str, expected: str) -> None:
    namespace: dict[str, Any] = {}
    exec(source, namespace)
    assert expected in refused(namespace["f"], stage)


@pytest.mark.parametrize("key", RESERVED_KEYS)
def test_every_reserved_key_is_refused_as_a_parameter(key: str) -> None:
    if key == "from":  # Python reserves it too
        with pytest.raises(SyntaxError):
            compile(f"def f(frame, *, {key}: int): 'F.'", "f", "exec")
        return
    namespace: dict[str, Any] = {}
    exec(f"def f(frame, *, {key}: int = 1): 'F.'", namespace)
    assert "which recipes reserve" in refused(namespace["f"])


def test_the_table_of_stages() -> None:
    assert len({stage.label for stage in STAGES}) == len({stage.hook for stage in STAGES}) == len(STAGES)
    assert set(DEFAULT_RUNTIMES) == set(STAGE["runtime"].one_of)
    assert Stage("x", "luthier_x", None, "X", needs=("a",), optional=("b",)).offer == "a, b (optional)"
