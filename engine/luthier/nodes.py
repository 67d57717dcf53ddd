"""YAML text as nodes that know their position, and the errors that point at them.

Only the core types of YAML 1.2 exist: `yes` and `2024-01-01` are strings, and there are no tags. Aliases
work, within limits, because what they name is expanded.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from luthier.errors import InputError

MAX_DEPTH = 50
MAX_NODES = 100_000
MAX_DIGITS = 300

_NULL = re.compile(r"null|Null|NULL|~|")
_TRUE = re.compile(r"true|True|TRUE")
_FALSE = re.compile(r"false|False|FALSE")
_INTEGER = re.compile(r"[-+]?[0-9]+")
_OCTAL = re.compile(r"0o[0-7]+")
_HEXADECIMAL = re.compile(r"0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_SIMPLE = re.compile(r"[A-Za-z_…/][\w./…-]*")
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")


@dataclass(frozen=True, order=True)
class Position:
    """A place in a file; lines and columns count from 1."""

    file: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


@dataclass(frozen=True)
class RecipeProblem:
    """One thing that is wrong with a recipe.

    Attributes:
        position: where it is; None in a recipe without a file, or where `--set` brought it in.
        key: the path of the key (`steps[3].threshold`), or `--set lora.rank`.
        message: what is wrong.
        suggestion: what to do, or the closest match; may be empty.
    """

    position: Position | None
    key: str
    message: str
    suggestion: str = ""

    def __str__(self) -> str:
        where = [str(part) for part in (self.position, self.key) if part]
        return ": ".join([*where, self.message]) + (f"; {self.suggestion}" if self.suggestion else "")


class RecipeError(InputError):
    """Everything that is wrong with a recipe: a line for each problem, in the file's order."""

    def __init__(self, problems: Sequence[RecipeProblem]) -> None:
        def place(problem: RecipeProblem) -> tuple[bool, int, int]:
            position = problem.position
            return (position is None, position.line if position else 0, position.column if position else 0)

        self.problems = sorted(dict.fromkeys(problems), key=place)
        super().__init__("\n".join(map(str, self.problems)))


@dataclass(frozen=True)
class Node:
    """A value and where it stands.

    Attributes:
        value: a dict of nodes, a list of nodes, or a string, number, boolean or None.
        position: where the value begins; None for one that was built in Python.
        key_position: where its key is, if it has one.
        plain: a scalar without quotes, whose text decides its type.
        override: the `--set` that brought it in, as the user wrote it.
        size: how many nodes it is, with all below it.
    """

    value: Any
    position: Position | None = None
    key_position: Position | None = None
    plain: bool = False
    override: str = ""
    size: int = 1

    @property
    def place(self) -> Position | None:
        """Where an error about it points: its key, or else itself."""
        return self.key_position or self.position

    def to_value(self) -> Any:
        """The plain value, without positions."""
        if isinstance(self.value, dict):
            return {key: node.to_value() for key, node in self.value.items()}
        if isinstance(self.value, list):
            return [node.to_value() for node in self.value]
        return self.value


def node_from_value(value: Any, override: str = "") -> Node:
    """Nodes for a value that was built in Python: dicts with string keys, lists, tuples, scalars.

    Raises:
        RecipeError: for any other type.
    """
    if isinstance(value, Mapping):
        items = {str(key): node_from_value(inner, override) for key, inner in value.items()}
        return Node(items, override=override)
    if isinstance(value, list | tuple):
        return Node([node_from_value(inner, override) for inner in value], override=override)
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if value is None or isinstance(value, str | bool | int | float):
        _check_scalar(value, None, override)
        return Node(value, override=override)
    raise RecipeError(
        [RecipeProblem(None, override, f"{value!r} is a {type(value).__name__}, which a recipe cannot hold")]
    )


def parse_yaml(text: str, file: str) -> Node:
    """The nodes of a YAML document.

    Args:
        text: the document.
        file: its name, for positions.

    Raises:
        RecipeError: with one problem: where the text stops being YAML, or what a recipe may not hold.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    try:
        return _Builder(YAML(typ="safe", pure=True).parse(text), file).document()
    except RecipeError:
        raise
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        what = " ".join(filter(None, (error.context, error.problem))) or "it cannot be parsed"
        raise _error(_position(mark, file), f"not valid YAML: {what}", _hint(text, mark)) from None
    except YAMLError as error:
        # A character that YAML does not allow; it knows only how many characters come before it.
        before = text[: getattr(error, "position", 0)]
        place = Position(file, before.count("\n") + 1, len(before) - before.rfind("\n"))
        raise _error(place, f"not valid YAML: {getattr(error, 'reason', None) or error}") from None
    except Exception as error:
        # The parser lets a few of Python's own errors through: `"\U99999999"`, absurd version numbers.
        raise _error(Position(file, 1, 1), f"not valid YAML: {error or type(error).__name__}") from error


def resolve_scalar(text: str) -> str | int | float | bool | None:
    """The value of a plain scalar by the core schema of YAML 1.2.

    Raises:
        ValueError: for a number that JSON does not have: infinite, or no number at all.
    """
    if _NULL.fullmatch(text):
        return None
    if _TRUE.fullmatch(text):
        return True
    if _FALSE.fullmatch(text):
        return False
    for pattern, base in ((_INTEGER, 10), (_OCTAL, 8), (_HEXADECIMAL, 16)):
        if pattern.fullmatch(text):
            if len(text) > MAX_DIGITS:
                raise ValueError(f"a number of more than {MAX_DIGITS} digits")
            return int(text, base)
    if _NOT_FINITE.fullmatch(text) or (_FLOAT.fullmatch(text) and not math.isfinite(float(text))):
        raise ValueError(f"{text} is not a finite number")
    return float(text) if _FLOAT.fullmatch(text) else text


def dump_yaml(value: Any, indent: str = "") -> str:
    """Write JSON-like values as YAML that `parse_yaml` reads back the same: a line each, short lists in one."""
    if isinstance(value, dict) and value:
        lines = [f"{indent}{dump_scalar(key)}:{_below(inner, indent)}" for key, inner in value.items()]
    elif isinstance(value, list) and value:
        # A mapping's first key goes on the dash's line, where it stands as deep as the others.
        lines = [f"{indent}- {dump_yaml(inner, indent + '  ').lstrip(' ')}" for inner in value]
    else:
        return f"{indent}{dump_scalar(value)}\n"
    return "".join(lines)


def _below(value: Any, indent: str) -> str:
    simple = not isinstance(value, dict | list) or not value
    return f" {dump_scalar(value)}\n" if simple else f"\n{dump_yaml(value, indent + '  ')}"


def dump_scalar(value: Any) -> str:
    """A value in one line of YAML: JSON, without the quotes that a simple string does not need."""
    if not isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if _SIMPLE.fullmatch(value) and resolve_scalar(value) == value:
        return value
    quoted = json.dumps(value, ensure_ascii=False)
    return "".join(c if c.isprintable() else f"\\U{ord(c):08x}" for c in quoted)


class _Builder:
    """Builds nodes from the parser's events; positions of keys and limits need more than its own tree has."""

    def __init__(self, events: Iterator[Any], file: str) -> None:
        self._events = events
        self._file = file
        self._anchors: dict[str, Node | None] = {}

    def document(self) -> Node:
        root: Node | None = None
        for event in self._events:
            kind = type(event).__name__
            if kind == "DocumentStartEvent" and root is not None:
                raise self._refuse(event, "a second document; a recipe is one")
            if kind in ("ScalarEvent", "SequenceStartEvent", "MappingStartEvent", "AliasEvent"):
                root = self._node(event, 0)
        if root is None or (root.value is None and root.plain):
            raise _error(Position(self._file, 1, 1), "the recipe is empty", "`luthier init` writes one to start from")
        return root

    def _node(self, event: Any, depth: int) -> Node:
        kind = type(event).__name__
        if kind == "AliasEvent":
            return self._alias(event)
        if getattr(event, "tag", None) is not None:
            raise self._refuse(event, f"the tag {event.tag}; recipes have none", "quotes make a string")
        if depth > MAX_DEPTH:
            raise self._refuse(event, f"nested more than {MAX_DEPTH} deep")
        if event.anchor:
            self._anchors[event.anchor] = None
        if kind == "ScalarEvent":
            node = self._scalar(event)
        elif kind == "SequenceStartEvent":
            node = self._sequence(event, depth)
        else:
            node = self._mapping(event, depth)
        if node.size > MAX_NODES:
            raise self._refuse(event, f"more than {MAX_NODES} values, with the aliases expanded")
        if event.anchor:
            self._anchors[event.anchor] = node
        return node

    def _alias(self, event: Any) -> Node:
        if event.anchor not in self._anchors:
            raise self._refuse(event, f"the alias *{event.anchor} has no anchor before it")
        node = self._anchors[event.anchor]
        if node is None:
            raise self._refuse(event, f"the alias *{event.anchor} contains itself")
        return replace(node, position=_position(event.start_mark, self._file), key_position=None)

    def _scalar(self, event: Any) -> Node:
        plain = event.implicit[0]
        position = _position(event.start_mark, self._file)
        try:
            value = resolve_scalar(event.value) if plain else event.value
        except ValueError as error:
            raise self._refuse(event, str(error), "quotes make it a string") from None
        _check_scalar(value, position)
        return Node(value, position, plain=plain)

    def _sequence(self, event: Any, depth: int) -> Node:
        items = []
        while type(inner := next(self._events)).__name__ != "SequenceEndEvent":
            items.append(self._node(inner, depth + 1))
        return Node(items, _position(event.start_mark, self._file), size=1 + sum(item.size for item in items))

    def _mapping(self, event: Any, depth: int) -> Node:
        items: dict[str, Node] = {}
        while type(inner := next(self._events)).__name__ != "MappingEndEvent":
            if type(inner).__name__ != "ScalarEvent" or inner.tag is not None:
                raise self._refuse(inner, "a key that is not a simple name")
            key, place = inner.value, _position(inner.start_mark, self._file)
            _check_scalar(key, place)
            if key in items:
                first = items[key].key_position
                raise self._refuse(inner, f"the key {key!r} again; it is already on line {first.line if first else 1}")
            items[key] = replace(self._node(next(self._events), depth + 1), key_position=place)
        size = 1 + sum(item.size for item in items.values())
        return Node(items, _position(event.start_mark, self._file), size=size)

    def _refuse(self, event: Any, message: str, suggestion: str = "") -> RecipeError:
        return _error(_position(event.start_mark, self._file), message, suggestion)


def _check_scalar(value: object, position: Position | None, override: str = "") -> None:
    """Refuse what JSON and UTF-8 cannot hold: the configuration travels to workers as both."""
    if isinstance(value, float) and not math.isfinite(value):
        raise RecipeError([RecipeProblem(position, override, f"{value} is not a finite number")])
    if isinstance(value, str) and any("\ud800" <= character <= "\udfff" for character in value):
        raise RecipeError([RecipeProblem(position, override, "a lone surrogate, which is no character")])


def _position(mark: Any, file: str) -> Position:
    return Position(file, mark.line + 1, mark.column + 1) if mark else Position(file, 1, 1)


def _error(position: Position, message: str, suggestion: str = "") -> RecipeError:
    return RecipeError([RecipeProblem(position, "", message, suggestion)])


def _hint(text: str, mark: Any) -> str:
    lines = text.splitlines()
    line = lines[mark.line] if mark and mark.line < len(lines) else ""
    if "\t" in line:
        return "indent with spaces: YAML allows no tabs there"
    if "{" in line or ": " in line:
        return "a text that holds `: ` or `{` needs quotes"
    return ""


def follow(node: Node, path: Iterable[str | int]) -> tuple[Node, str]:
    """The deepest node on a path, and the path for people.

    pydantic's paths hold the branches of unions too (`sizes`, `list[int]`, 0); what is no key of the
    recipe is left out, but for the last: a key that is missing.
    """
    parts = list(path)
    shown = ""
    for index, part in enumerate(parts):
        items = node.value
        if isinstance(items, dict) and str(part) in items:
            node, shown = items[str(part)], f"{shown}.{part}"
        elif isinstance(items, list) and isinstance(part, int) and part < len(items):
            node, shown = items[part], f"{shown}[{part}]"
        elif isinstance(items, dict) and index == len(parts) - 1:
            shown = f"{shown}.{part}"
    return node, shown


def shown(node: Node) -> str:
    """A node's value for a message, cut to 60 characters."""
    text = repr(node.to_value())
    return text if len(text) <= 60 else f"{text[:57]}…"
