"""What changes a recipe's values before they are read: `--set STEP.KEY=VALUE`, `${env:NAME}`, `${recipe_dir}`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from luthier.errors import InputError
from luthier.nodes import Node, RecipeError, RecipeProblem, node_from_value, parse_yaml, resolve_scalar
from luthier.suggest import closest, did_you_mean

TOP_KEYS = ("name", "seed")
_REFERENCE = re.compile(r"\$(\$\{)|\$\{([^}]*)(\}?)")
_HELP = "there are ${env:NAME} and ${recipe_dir}; $${ gives the characters themselves"


def parse_override(text: str) -> tuple[str, Any]:
    """Read `lora.rank=8`: the dotted path, and the value as YAML.

    Raises:
        InputError: without `=`, without a path, or with a value that is not YAML.
    """
    path, equals, value = text.partition("=")
    path = path.strip()
    if not equals or not path:
        raise InputError(
            f"--set {text}: there is no KEY=VALUE in it", "Write --set STEP.KEY=VALUE, as in --set lora.rank=8."
        )
    if not value.strip():
        return path, None
    try:
        # Within a list, since a document that is nothing but `null` counts as an empty recipe.
        values = parse_yaml(f"- {value}", "").to_value()
    except RecipeError as error:
        raise InputError(
            f"--set {text}: {error.problems[0].message}", "Put the value in quotes within the quotes."
        ) from None
    if len(values) != 1:
        raise InputError(f"--set {text}: there is more than one value in it", "Write a list as [1, 2].")
    return path, values[0]


def name_steps(steps: Node | None) -> list[tuple[str, str, Node]]:
    """The id, stage and node of each step, as far as they can be told; what cannot is left out."""
    found = []
    nodes: list[Node] = steps.value if steps and isinstance(steps.value, list) else []
    for node in nodes:
        if isinstance(node.value, dict) and node.value:
            stage, component = next(iter(node.value.items()))
            given = node.value["id"].value if "id" in node.value else component.value
            found.append((given if isinstance(given, str) else "", stage, node))
    return found


def resolve_name(name: str, steps: Sequence[tuple[str, str]]) -> tuple[str, str]:
    """The id that `name` stands for: a step's id, or the stage of exactly one of `steps` (id, stage).

    Gives the id and an empty text, or an empty text and what is wrong.
    """
    if name and any(name == step_id for step_id, _ in steps):
        return name, ""
    of_stage = [step_id for step_id, stage in steps if stage == name]
    if len(of_stage) == 1:
        return of_stage[0], ""
    if of_stage:
        return "", f"{name!r} could be any of the steps {', '.join(of_stage)}"
    return "", f"no step is called {name!r}"


def apply_overrides(root: Node, overrides: Mapping[str, Any]) -> tuple[Node, list[RecipeProblem]]:
    """The recipe with the overrides in place of what it says, and the overrides that name nothing."""
    problems: list[RecipeProblem] = []
    for path, value in overrides.items():
        label = f"--set {path}"
        try:
            root = _override(root, path.split("."), node_from_value(value, label), label)
        except RecipeError as error:
            problems += error.problems
    return root, problems


def _override(root: Node, path: Sequence[str], value: Node, label: str) -> Node:
    def refuse(message: str, suggestion: str = "") -> RecipeError:
        return RecipeError([RecipeProblem(None, label, message, suggestion)])

    if not isinstance(root.value, dict):
        return root  # which the reader refuses
    if len(path) == 1 and path[0] in TOP_KEYS:
        return _put(root, path, value)
    named = name_steps(root.value.get("steps"))
    ids = [step_id for step_id, _, _ in named]
    step_id, wrong = resolve_name(path[0], [(step_id, stage) for step_id, stage, _ in named])
    if wrong:
        options = [*ids, *TOP_KEYS] if len(path) == 1 else ids
        raise refuse(wrong, did_you_mean(path[0], options) or f"the steps are {', '.join(ids)}")
    if len(path) == 1:
        raise refuse("it names a step, but none of its keys", f"write {label}.KEY=VALUE")
    steps = root.value["steps"]
    index = next(
        i for i, node in enumerate(steps.value) if any(node is found for name, _, found in named if name == step_id)
    )
    if path[1] in ("id", next(iter(steps.value[index].value))):
        raise refuse(f"{path[1]!r} says which step it is, and cannot be set", "edit the recipe")
    return _put(root, ["steps", str(index), *path[1:]], value)


def _put(node: Node, path: Sequence[str], value: Node) -> Node:
    """A copy of `node` with `value` at `path`; mappings on the way are made where there are none."""
    if not path:
        return replace(value, key_position=None)
    key, rest = path[0], path[1:]
    if isinstance(node.value, list) and key.isdecimal() and int(key) < len(node.value):
        items = list(node.value)
        items[int(key)] = _put(items[int(key)], rest, value)
        return replace(node, value=items)
    inner = node.value if isinstance(node.value, dict) else {}
    missing = Node({}, override=value.override)
    return replace(node, value={**inner, key: _put(inner.get(key, missing), rest, value)})


def interpolate(
    node: Node, directory: Path, environ: Mapping[str, str], key: str = ""
) -> tuple[Node, list[RecipeProblem]]:
    """The node with its references replaced, and what is wrong with them.

    A plain scalar's type is read again from what came out (`rank: ${env:RANK}` is a number); a quoted
    one stays a string.
    """
    problems: list[RecipeProblem] = []
    if isinstance(node.value, dict):
        items = {}
        for name, inner in node.value.items():
            items[name], found = interpolate(inner, directory, environ, f"{key}.{name}" if key else name)
            problems += found
        return replace(node, value=items), problems
    if isinstance(node.value, list):
        elements = []
        for index, inner in enumerate(node.value):
            element, found = interpolate(inner, directory, environ, f"{key}[{index}]")
            elements.append(element)
            problems += found
        return replace(node, value=elements), problems
    if not isinstance(node.value, str) or "${" not in node.value:
        return node, problems
    value: Any = _REFERENCE.sub(lambda match: _lookup(match, directory, environ), node.value)
    problems = [
        RecipeProblem(None if node.override else node.position, node.override or key, message, suggestion)
        for message, suggestion in _reference_problems(node.value, environ)
    ]
    if node.plain and not problems:
        try:
            value = resolve_scalar(value)
        except ValueError as error:
            problems.append(RecipeProblem(node.position, key, str(error), "quotes make it a string"))
    return replace(node, value=value), problems


def _lookup(match: re.Match[str], directory: Path, environ: Mapping[str, str]) -> str:
    escaped, reference, _ = match.groups()
    if escaped:
        return str(escaped)
    if reference == "recipe_dir":
        return str(directory)
    return environ.get(reference.removeprefix("env:"), "") if reference.startswith("env:") else ""


def _reference_problems(text: str, environ: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for escaped, reference, closed in _REFERENCE.findall(text):
        if escaped or (closed and reference == "recipe_dir"):
            continue
        kind, _, name = reference.partition(":")
        if not closed:
            yield f"{'${' + reference!r} is not closed", _HELP
        elif kind != "env" or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            yield f"there is no reference ${{{reference}}}", _HELP
        elif name not in environ:
            near = closest(name, environ)
            yield f"the environment variable {name} is not set", f"did you mean {near}?" if near else f"export {name}=…"
