"""Settings that several components share: a dataclass whose fields are keys of each of their steps."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Iterator
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar, get_type_hints

Class = TypeVar("Class", bound=type)

_MARK = "__luthier_settings__"
_SECTION = re.compile(r"^\w[\w ]*:$", re.MULTILINE)


def settings(cls: Class) -> Class:
    """Mark a dataclass as settings that components share.

    A component takes them as one keyword-only parameter, whose default gives the defaults:
    `training: Training = Training(learning_rate=1e-4)`. In recipes each field is a key of the step, as if the
    signature had it; its help is what the dataclass's docstring says under `Attributes:`.

    Raises:
        TypeError: if it is no dataclass.
    """
    if not is_dataclass(cls):
        raise TypeError(f"{cls.__name__} is no dataclass: put @dataclass below @settings")
    setattr(cls, _MARK, True)
    return cls


def are_settings(value: object) -> bool:
    """Whether a parameter's default is an instance of such a dataclass."""
    return _MARK in vars(type(value))


def expand(parameter: inspect.Parameter) -> list[inspect.Parameter]:
    """The parameters that the recipe sees: the fields of settings, or the parameter itself."""
    if not are_settings(parameter.default):
        return [parameter]
    return [
        parameter.replace(name=each.name, default=getattr(parameter.default, each.name), annotation=each.type)
        for each in fields(parameter.default)
    ]


def field_types(defaults: Any) -> dict[str, Any]:
    """The evaluated types of the fields, with their constraints."""
    return get_type_hints(type(defaults), include_extras=True)


def gather(parameters: Iterable[inspect.Parameter], values: dict[str, Any]) -> dict[str, Any]:
    """The arguments to call a component with, out of a value for each of its keys."""
    arguments: dict[str, Any] = {}
    for parameter in parameters:
        if are_settings(parameter.default):
            cls = type(parameter.default)
            arguments[parameter.name] = cls(**{each.name: values[each.name] for each in fields(cls)})
        else:
            arguments[parameter.name] = values[parameter.name]
    return arguments


def with_help(doc: str, parameters: Iterable[inspect.Parameter]) -> str:
    """A component's docstring with the help of its settings at the end of its `Args`."""
    shared = [type(each.default) for each in parameters if are_settings(each.default)]
    # What settings inherit comes first, as among their fields.
    help_lines = [line for cls in shared for each in reversed(cls.__mro__) for line in _attributes(each)]
    if not help_lines:
        return doc
    arguments = re.search(r"^Args:$", doc, re.MULTILINE)
    if not arguments:
        return "\n".join([doc, "", "Args:", *help_lines])
    following = _SECTION.search(doc, arguments.end())
    end = following.start() if following else len(doc)
    before, after = doc[:end].rstrip(), doc[end:]
    return "\n".join([before, *help_lines, *(["", after] if after else [])])


def _attributes(cls: type) -> Iterator[str]:
    # Of its own: a class without a docstring would be given its base's again.
    doc = inspect.cleandoc(vars(cls).get("__doc__") or "")
    section = re.search(r"^Attributes:\n((?:[ \t]+\S.*\n?|\n)+)", doc, re.MULTILINE)
    yield from section[1].rstrip().splitlines() if section else ()
