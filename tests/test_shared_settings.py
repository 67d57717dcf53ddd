"""Settings that components share: their fields are keys of each step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import pytest
from annotated_types import Ge

import luthier
from luthier.components import Component, ConfigurationError
from luthier.core_stages import STAGES
from luthier.errors import PluginError
from luthier.registering import read_component
from luthier.schema import parameter_help

CLEAN = next(stage for stage in STAGES if stage.name == "clean")


@luthier.settings
@dataclass(frozen=True, kw_only=True)
class Limits:
    """How much is kept.

    Attributes:
        most: documents at most,
            in one shard.
        least: characters.
    """

    most: Annotated[int, Ge(1)] = 10
    least: int = 0


@luthier.settings
@dataclass(frozen=True, kw_only=True)
class WiderLimits(Limits):
    """How much is kept, and of what.

    Attributes:
        kind: of the documents.
    """

    kind: str = "any"


def short(frame, *, shout: bool = False, limits: Limits = Limits(least=3)):
    """Keep some.

    Args:
        shout: in capitals.

    Raises:
        InputError: never.
    """
    return frame.head(limits.most if not shout else limits.least)


def wide(frame, *, limits: WiderLimits = WiderLimits(most=4)):
    """Keep some."""
    return frame.filter(kind=limits.kind)


def plain(frame, *, limits: Limits = Limits()):
    """Keep some."""
    return frame


def doubled(frame, *, most: int = 3, limits: Limits = Limits()):
    """Keep some."""
    return frame


def read(function: object) -> Component:
    return read_component(function, CLEAN, distribution="acme", version="1", plugin="acme")  # type: ignore[arg-type]


def test_fields_are_keys_with_the_defaults_that_the_component_gives() -> None:
    component = read(short)
    assert [each.name for each in component.parameters] == ["shout", "most", "least"]
    assert component.canonical({}) == {"shout": False, "most": 10, "least": 3}
    assert component.arguments({"most": 4}) == {"shout": False, "limits": Limits(most=4, least=3)}


def test_constraints_hold_and_the_field_is_blamed() -> None:
    with pytest.raises(ConfigurationError, match=r"most: .*greater than or equal to 1"):
        read(short).configure({"most": 0})
    with pytest.raises(ConfigurationError, match="limits: unknown key"):
        read(short).configure({"limits": {"most": 1}})


def test_settings_may_extend_others() -> None:
    component = read(wide)
    assert component.canonical({"kind": "news"}) == {"most": 4, "least": 0, "kind": "news"}
    assert component.arguments({}) == {"limits": WiderLimits(most=4)}
    assert [*parameter_help(component)] == ["most", "least", "kind"]
    assert parameter_help(component)["most"] == "documents at most, in one shard."
    with pytest.raises(ConfigurationError, match="kind: unknown key"):
        read(plain).configure({"kind": "news"})


def test_help_comes_from_the_dataclass() -> None:
    assert parameter_help(read(short)) == {
        "shout": "in capitals.",
        "most": "documents at most, in one shard.",
        "least": "characters.",
    }
    assert read(short).doc.endswith("Raises:\n    InputError: never.")
    assert parameter_help(read(plain))["least"] == "characters."


def test_a_key_that_there_is_twice_is_refused() -> None:
    with pytest.raises(PluginError, match="'most' twice"):
        read(doubled)


def test_what_is_no_dataclass_is_refused() -> None:
    with pytest.raises(TypeError, match="@dataclass"):
        luthier.settings(int)


def test_a_component_is_called_with_them(run_component) -> None:
    assert len(run_component(short, ["first", "other", "third"], most=2).texts) == 2
