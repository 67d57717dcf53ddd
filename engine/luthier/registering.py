"""A plugin's function becomes a component, if its signature and declaration are what its stage takes."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any

from luthier.components import RESERVED_KEYS, Component, configuration_parameters, describe
from luthier.core_stages import Stage
from luthier.errors import PluginError
from luthier.searchable import search_problem


def read_component(
    function: Callable[..., Any], stage: Stage, *, distribution: str, version: str, plugin: str
) -> Component:
    """Check a plugin's function against its stage.

    Raises:
        PluginError: naming the function, the file and what the stage offers.
    """

    def refuse(what: str, remedy: str = "") -> PluginError:
        offer = f"A {stage.label} component may ask for: {stage.offer}." if stage.offer else ""
        return PluginError(f"{describe(function)} {what}", remedy or offer)

    if not inspect.isfunction(function):
        raise refuse("is not a function", f"{stage.hook} returns plain functions, defined with `def`.")
    if not function.__name__.isidentifier():
        raise refuse("has no name", f"{stage.hook} returns plain functions, defined with `def`.")
    inputs: list[str] = []
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise refuse(
                f"takes {str(parameter).partition(':')[0]}", "Name each input and each keyword-only parameter."
            )
        if parameter.kind is parameter.KEYWORD_ONLY:
            continue
        if parameter.kind is parameter.POSITIONAL_ONLY:
            raise refuse(f"takes {parameter.name!r} by position only", "Inputs are passed by name: remove the `/`.")
        if parameter.default is not parameter.empty:
            raise refuse(
                f"gives its input {parameter.name!r} a default",
                "Put configuration after a bare `*`; inputs have no defaults.",
            )
        inputs.append(parameter.name)
    wrong = stage.check_inputs(inputs)
    if wrong:
        raise refuse(wrong)
    for what, remedy in _wrong_keys(function, stage):
        raise refuse(what, remedy)
    if not inspect.getdoc(function):
        raise refuse("has no docstring", "Its first line is what `luthier plugins list` shows.")
    read = Component(stage, function, tuple(inputs), distribution, version, plugin)
    for what, remedy in _wrong_ways(read):
        raise refuse(what, remedy)
    return read


def _wrong_ways(component: Component) -> Iterator[tuple[str, str]]:
    """What is wrong with how it is to be called, and the remedy."""
    if component.stage.key == "executor" and not inspect.isgeneratorfunction(component.function):
        yield "is not a generator function", "An executor yields the messages of the job's processes."
    wrong = _processes_problem(component) if component.declared.processes else ""
    if wrong:
        yield f"declares processes, but {wrong}", "See `luthier.component`."
    wrong = search_problem(component)
    if wrong:
        yield f"declares a search, but {wrong}", "See `luthier.Search`."


def _processes_problem(component: Component) -> str:
    """What is wrong with a component's declaring that it is called in several processes; empty if nothing is."""
    if component.kind not in ("model", "onnx") or "ctx" not in component.inputs:
        return "only what makes a model, and asks for `ctx`, is called in several"
    parameter = next((each for each in component.parameters if each.name == "processes"), None)
    if parameter is None or parameter.default is parameter.empty:
        return "it has no parameter `processes: int = 1`"
    return ""


def _wrong_keys(function: Callable[..., Any], stage: Stage) -> Iterator[tuple[str, str]]:
    """What is wrong with the names of the configuration, and the remedy."""
    seen: set[str] = set()
    for parameter in configuration_parameters(function):
        name = parameter.name
        if name in (*RESERVED_KEYS, stage.name or "name") or name.startswith("_"):
            yield f"has a parameter {name!r}, which recipes reserve", "Give it another name."
        if parameter.annotation is parameter.empty:
            yield f"has a parameter {name!r} without a type", f"Annotate it: `{name}: int = 1`."
        if name in seen:
            yield f"has a parameter {name!r} twice", "Rename its own one: shared settings have a field of that name."
        seen.add(name)
