"""The page of the public interface: what plugins and notebooks may use, from its signatures and docstrings."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Iterator
from functools import cached_property
from types import ModuleType, UnionType
from typing import Any

import luthier
from luthier import artifacts, channel, errors, events, jsonlines, options, runrecord, suggest, testing, trials
from luthier.context import Metric
from luthier.testing import fixtures

ENGINES = {
    *("save_metrics", "quarantine_file", "lock", "save", "of", "check_inputs", "from_record"),
    *("from_worker", "listeners", "PartFailed", "pytest_configure"),
}
"""What only the engine uses."""

_INTRODUCTION = """# The interface

What plugins, tests and notebooks may use. [Hooks](hooks.md) has the hooks and the forms of datasets.
"""
_ATTRIBUTES = re.compile(r"^    ([\w, *]+): ", re.MULTILINE)
_SESSION = re.compile(r"(?:^>>> .*\n?)+", re.MULTILINE)


class _Text(str):
    """An annotation as it is written, without quotation marks."""

    __slots__ = ()
    __repr__ = str.__str__


def sections() -> Iterator[tuple[str, dict[str, Any]]]:
    """The page's sections: a title, and what is in it by name."""
    names = [name for name in luthier.__all__ if name not in ("hookimpl", "hookspec")]
    yield "`luthier`", {name: getattr(luthier, name) for name in names}
    held = (runrecord.RunData, runrecord.GateResult, runrecord.NodeResult, trials.SearchResult, trials.Trial, Metric)
    yield "What these hold", {each.__name__: each for each in held}
    yield "`luthier.channel`", _defined(channel)
    yield "`luthier.events`", _defined(events)
    yield "`luthier.errors`", {name: each for name, each in _defined(errors).items() if name not in names}
    yield "`luthier.jsonlines`", _defined(jsonlines)
    yield "`luthier.options`", _defined(options)
    yield "`luthier.suggest`", _defined(suggest)
    yield "`luthier.testing`", {name: getattr(testing, name) for name in testing.__all__}
    yield "Fixtures of `luthier.testing`", _defined(fixtures)


def _defined(module: ModuleType) -> dict[str, Any]:
    return {
        name: each
        for name, each in vars(module).items()
        if not name.startswith("_") and name not in ENGINES and _is_documented_kind(each, module.__name__)
    }


def _is_documented_kind(each: object, module: str) -> bool:
    own = getattr(each, "__module__", "") == module or is_fixture(each)
    return own and (inspect.isclass(each) or inspect.isfunction(each) or is_fixture(each))


def is_fixture(each: object) -> bool:
    """Whether it is one of pytest's."""
    return hasattr(each, "__wrapped__") and not inspect.isclass(each) and not inspect.isfunction(each)


def members(kind: type) -> dict[str, Any]:
    """The public methods and properties of a class, with those of bases that are not public by themselves."""
    told = [each for _, section in sections() for each in section.values()]
    found: dict[str, Any] = {}
    for base in reversed(kind.__mro__):
        if base.__module__.startswith("luthier") and (base is kind or base not in told):
            found |= {name: each for name, each in vars(base).items() if _is_member(name, each)}
    return found


def _is_member(name: str, each: object) -> bool:
    if name in ENGINES or (name.startswith("_") and name != "__call__"):
        return False
    return isinstance(each, property | cached_property | classmethod | staticmethod) or inspect.isfunction(each)


def docstring(each: object) -> str:
    """The docstring of its own; empty where there is none, or only the one that dataclasses make."""
    text = inspect.cleandoc(vars(each).get("__doc__") or "") if inspect.isclass(each) else inspect.getdoc(each) or ""
    return "" if inspect.isclass(each) and text.startswith(f"{each.__name__}(") else text


def markdown(each: object) -> str:
    """A docstring as Markdown: its lists of arguments, attributes and errors are lists."""
    lists = _ATTRIBUTES.sub(lambda found: f"- `{found[1].replace(', ', '`, `')}`: ", docstring(each))
    continued = re.sub(r"^ {8}", "  ", lists, flags=re.MULTILINE)
    spaced = re.sub(r"^(\w+:)\n(?=- )", r"\1\n\n", continued, flags=re.MULTILINE)
    return _SESSION.sub(
        lambda found: "```python\n" + found[0].replace(">>> ", "").rstrip() + "\n```\n", spaced
    ).rstrip()


def signature(function: Any) -> str:
    """A signature as the code has it, without `self`."""
    found = inspect.signature(function)
    parameters = [
        each if each.annotation is each.empty else each.replace(annotation=_Text(_written(each.annotation)))
        for each in found.parameters.values()
        if each.name not in ("self", "cls")
    ]
    returns = found.return_annotation
    returned = returns if returns is found.empty else _Text(_written(returns))
    text = str(found.replace(parameters=parameters, return_annotation=returned))
    return text.removesuffix(" -> None") if inspect.isclass(function) else text


def _written(annotation: Any) -> str:
    return annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)


def page() -> str:
    """The whole page."""
    lines = [_INTRODUCTION]
    for title, things in sections():
        lines.append(f"## {title}\n")
        for name, thing in things.items():
            if isinstance(thing, UnionType):
                lines += _alias(name, thing)
            else:
                lines += _class(name, thing) if inspect.isclass(thing) else _function(name, thing)
    return "\n".join(lines)


def _alias(name: str, union: UnionType) -> list[str]:
    """A name for a type: its parts, and the text below its definition."""
    written = re.search(rf'^{name} = (.+)\n"""(.+?)"""', inspect.getsource(artifacts), re.MULTILINE | re.DOTALL)
    if not written:
        raise ValueError(f"{name} ({union}) has no text below it in luthier.artifacts")
    return [f"### `{name}`: `{written[1]}`\n", f"{written[2]}\n"]


def _function(name: str, function: Any) -> list[str]:
    if is_fixture(function):
        gives = inspect.signature(function.__wrapped__).return_annotation
        return [f"### `{name}`: `{gives}`\n", f"{markdown(function.__wrapped__)}\n"]
    return [f"### `{name}{signature(function)}`\n", f"{markdown(function)}\n"]


def _class(name: str, kind: type) -> list[str]:
    made_by_users = kind is luthier.Recipe or issubclass(kind, luthier.LuthierError)
    lines = [f"### `{name}{signature(kind) if made_by_users else ''}`\n", f"{markdown(kind)}\n"]
    if dataclasses.is_dataclass(kind):
        fields = [f"`{each.name}: {_written(each.type)}{_default(each)}`" for each in dataclasses.fields(kind)]
        lines.append(f"Fields: {', '.join(fields)}.\n")
    for member, each in members(kind).items():
        lines += [f"#### `{name}.{member}{_of_member(each)}`\n".replace(".__call__", ""), f"{markdown(each)}\n"]
    return lines


def _default(each: dataclasses.Field[Any]) -> str:
    return "" if each.default is dataclasses.MISSING else f" = {each.default!r}"


def _of_member(member: Any) -> str:
    if isinstance(member, property | cached_property):
        getter: Any = member.fget if isinstance(member, property) else member.func
        return f": {inspect.signature(getter).return_annotation}"
    return signature(member.__func__ if isinstance(member, classmethod | staticmethod) else member)
