"""The recipe of a past run: the lines that say something, and what its steps say that no step's key holds."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from luthier.gates import GateSyntax, parse_gate
from luthier.nodes import Node, RecipeError, follow, parse_yaml
from luthier.runs import Run
from luthier.substitution import apply_overrides, name_steps

RECIPE_FILE = "recipe.yaml"
OVERRIDE = "# --set "

KeyPath = tuple[str | int, ...]
"""Of a value within a step: `("gate", "rougeL", 0, "at_least")`."""


class RecipeAsRun:
    """`recipe.yaml` in a run's directory: the recipe, below a line for each `--set`.

    One that is not there, or cannot be read, has no lines and says nothing.
    """

    def __init__(self, run: Run) -> None:
        try:
            text = (run.path / RECIPE_FILE).read_text(encoding="utf-8")
            self._root = parse_yaml(text, RECIPE_FILE)
        except (OSError, UnicodeDecodeError, RecipeError):
            text, self._root = "", Node({})
        self._text = text.splitlines()
        self._overridden, _ = apply_overrides(self._root, dict(self._overrides()))

    def lines(self, step: str, stage: str, path: KeyPath = ()) -> list[str]:
        """The lines that say so, as `recipe.yaml:9: steps: 2`; those of overrides where there are any.

        A key that the recipe does not have is a default: it has the line of its step, if any. Without a path,
        the line is the step's.
        """
        dotted = ".".join(map(str, path))
        names = ("seed",) if path == ("seed",) else tuple(f"{name}.{dotted}" for name in (step, stage))
        numbers = [number for number, line in enumerate(self._text, 1) if path and _is_override(line, names)]
        number = 0 if numbers else self._line_of(step, path)
        return [f"{RECIPE_FILE}:{each}: {self._text[each - 1].strip()}" for each in numbers or [number] if each]

    def says(self, step: str, key: str) -> Any:
        """What a step has under a key, with the overrides, as written; None where it does not have it."""
        node = _step(self._overridden, step)
        return node.value[key].to_value() if node and key in node.value else None

    def _line_of(self, step: str, path: KeyPath) -> int:
        if path == ("seed",):
            # A seed that nobody gave is no step's default.
            found = self._root.value.get("seed") if isinstance(self._root.value, dict) else None
            return found.place.line if found and found.place else 0
        node = _step(self._root, step)
        if node is None:
            return 0
        found, _ = follow(node, path)
        return found.place.line if found.place else 0

    def _overrides(self) -> Iterator[tuple[str, Any]]:
        for line in self._text:
            name, equals, value = line.removeprefix(OVERRIDE).partition("=")
            if not line.startswith(OVERRIDE) or not equals:
                return  # Below them is the recipe, with comments of its own.
            try:
                yield name, json.loads(value)
            except ValueError:
                return


def key_changes(before: RecipeAsRun, after: RecipeAsRun, step: str, key: str) -> Iterator[tuple[KeyPath, Any, Any]]:
    """Where a reserved key of a step differs: the path of each value, and the two values, None where it is absent."""
    was, now = before.says(step, key), after.says(step, key)
    if key == "gate" and _bounds(was) == _bounds(now):
        return  # `base + 0.10` is `base + .1`.
    old, new = dict(_leaves((key,), was)), dict(_leaves((key,), now))
    for path in dict.fromkeys([*old, *new]):
        if old.get(path) != new.get(path):
            yield path, old.get(path), new.get(path)


def _step(root: Node, step: str) -> Node | None:
    steps = root.value.get("steps") if isinstance(root.value, dict) else None
    return next((node for name, _, node in name_steps(steps) if name == step), None)


def _is_override(line: str, names: tuple[str, ...]) -> bool:
    """Whether a line notes a `--set` of one of the keys, of what is in it, or of what holds it."""
    wanted, equals, _ = line.removeprefix(OVERRIDE).partition("=")
    if not line.startswith(OVERRIDE) or not equals:
        return False
    return any(f"{name}.".startswith(f"{wanted}.") or wanted.startswith(f"{name}.") for name in names)


def _bounds(gate: Any) -> Any:
    try:
        return parse_gate(gate)
    except GateSyntax:
        return gate  # It holds a reference, such as ${env:BOUND}.


def _leaves(path: KeyPath, value: Any) -> Iterator[tuple[KeyPath, Any]]:
    """The values in mappings, and in lists of mappings, with their paths."""
    if isinstance(value, Mapping) and value:
        inner: list[tuple[str | int, Any]] = list(value.items())
    elif isinstance(value, list) and any(isinstance(each, Mapping) for each in value):
        inner = list(enumerate(value))
    else:
        inner = []
        if value is not None:
            yield path, value
    for name, each in inner:
        yield from _leaves((*path, name), each)


def path_text(path: KeyPath) -> str:
    """A path for people: `rougeL[0].at_least`."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")
