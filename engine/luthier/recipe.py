"""YAML to a validated recipe: every error at once, each with file, line, column, key and a suggestion."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from luthier.core_stages import Stage
from luthier.nodes import Node, Position, RecipeError, RecipeProblem, dump_yaml, node_from_value, parse_yaml, shown
from luthier.plugins import Registry
from luthier.steps import StepReader, StepSpec
from luthier.substitution import apply_overrides, interpolate, name_steps
from luthier.suggest import did_you_mean

RECIPE_VERSION = 1
RECIPE_KEYS = ("luthier", "name", "seed", "steps")
MAX_SEED = 2**32 - 1
"""numpy takes no larger one."""

_NAME = re.compile(r"\w[\w .-]{0,99}")


@dataclass(frozen=True)
class RecipeSpec:
    """A recipe, checked against the installed plugins.

    Attributes:
        path: its file; None for one that was built in Python or given as text.
        directory: where its relative locations start.
        text: as written.
        problems: what is wrong with a draft; planning adds what it finds and refuses it.
        unread: of a draft, the places of the steps that could not be read, with their stage where it is known.
    """

    name: str
    seed: int
    steps: tuple[StepSpec, ...]
    path: Path | None
    directory: Path
    text: str
    problems: tuple[RecipeProblem, ...] = ()
    unread: Mapping[int, Stage | None] = field(default_factory=dict)

    def checked(self) -> RecipeSpec:
        """The recipe itself.

        Raises:
            RecipeError: with everything that is wrong with it.
        """
        if self.problems:
            raise RecipeError(list(self.problems))
        return self


def load_recipe(path: Path, registry: Registry, overrides: Mapping[str, Any] | None = None) -> RecipeSpec:
    """Read a recipe's file as far as that is possible; its `problems` are for the planner to complete.

    Args:
        path: the YAML file; it is named in errors as it is given here.
        registry: the installed components.
        overrides: values by dotted path (`lora.rank`), in place of what the file says.

    Raises:
        RecipeError: if it cannot be read at all.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        problem = RecipeProblem(
            None, str(path), f"the recipe cannot be read: {error.strerror}", "`luthier init` writes one"
        )
        raise RecipeError([problem]) from None
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = data[: error.start]
        place = Position(str(path), before.count(b"\n") + 1, len(before) - before.rfind(b"\n"))
        raise RecipeError(
            [RecipeProblem(place, "", "the recipe is not UTF-8 from here on", "save it as UTF-8")]
        ) from None
    return parse_recipe(text, registry, path=path, directory=path.absolute().parent, overrides=overrides)


def parse_recipe(
    text: str, registry: Registry, *, path: Path | None, directory: Path, overrides: Mapping[str, Any] | None = None
) -> RecipeSpec:
    """Read a recipe's text; as `load_recipe`."""
    root = parse_yaml(text, str(path or "recipe"))
    return _Reader(registry, path, directory, text).read(root, overrides or {})


def recipe_from_mapping(
    mapping: Mapping[str, Any], registry: Registry, directory: Path, overrides: Mapping[str, Any] | None = None
) -> RecipeSpec:
    """Read a recipe that was built in Python: the same keys as in YAML; as `load_recipe`."""
    root = node_from_value(mapping)
    return _Reader(registry, None, directory, dump_yaml(root.to_value())).read(root, overrides or {})


class _Reader:
    """Reads one recipe and collects what is wrong with it."""

    def __init__(self, registry: Registry, path: Path | None, directory: Path, text: str) -> None:
        self._registry = registry
        self._path = path
        self._directory = directory
        self._text = text
        self._problems: list[RecipeProblem] = []

    def read(self, root: Node, overrides: Mapping[str, Any]) -> RecipeSpec:
        if not isinstance(root.value, dict):
            self._add(root, "", "a recipe is a mapping with the keys " + ", ".join(RECIPE_KEYS))
            raise RecipeError(self._problems)
        self._check_version(root)
        root, found = apply_overrides(root, overrides)
        self._problems += found
        root, found = interpolate(root, self._directory, os.environ)
        self._problems += found
        for key, node in root.value.items():
            if key not in RECIPE_KEYS:
                self._add(
                    node, key, "unknown key", did_you_mean(key, RECIPE_KEYS) or f"the keys are {', '.join(RECIPE_KEYS)}"
                )
        name, seed, read = self._name(root), self._seed(root), self._steps(root)
        return RecipeSpec(
            name,
            seed,
            tuple(step for step in read if isinstance(step, StepSpec)),
            self._path,
            self._directory,
            self._text,
            problems=tuple(self._problems),
            unread={place: step for place, step in enumerate(read) if not isinstance(step, StepSpec)},
        )

    def _add(self, node: Node, key: str, message: str, suggestion: str = "") -> None:
        """Record a problem, unless a reference within that value has one already: what follows is of it."""
        problem = RecipeProblem(None if node.override else node.place, node.override or key, message, suggestion)
        unresolved = isinstance(node.value, str) and any(
            node.override == other.key if node.override else node.position and node.position == other.position
            for other in self._problems
        )
        if not unresolved:
            self._problems.append(problem)

    def _check_version(self, root: Node) -> None:
        node = root.value.get("luthier")
        if node is None:
            self._add(root, "luthier", "required, but missing", f"begin the recipe with `luthier: {RECIPE_VERSION}`")
        elif type(node.value) is not int or node.value < 1:
            self._add(node, "luthier", f"the format's version is {RECIPE_VERSION}, not {node.value!r}")
        elif node.value > RECIPE_VERSION:
            # What a newer format means is not ours to judge, so this is the only problem.
            message = f"the recipe has the format {node.value}; this Luthier reads up to {RECIPE_VERSION}"
            raise RecipeError([RecipeProblem(node.place, "luthier", message, "pip install --upgrade luthier")])

    def _name(self, root: Node) -> str:
        node = root.value.get("name")
        if node is None:
            stem = re.sub(r"[^\w .-]", "-", self._path.stem if self._path else "").lstrip(" .-")
            return stem[:100] or "recipe"
        if not isinstance(node.value, str) or not _NAME.fullmatch(node.value):
            self._add(node, "name", f"a name of letters, digits, spaces, `.`, `-` and `_`, not {node.value!r}")
        return str(node.value)

    def _seed(self, root: Node) -> int:
        node = root.value.get("seed", Node(0))
        if type(node.value) is not int or not 0 <= node.value <= MAX_SEED:
            self._add(node, "seed", f"a whole number from 0 to {MAX_SEED}, not {shown(node)}")
            return 0
        return node.value

    def _steps(self, root: Node) -> list[StepSpec | Stage | None]:
        """The steps; of one that cannot be read its stage, if that is known."""
        node = root.value.get("steps")
        if node is None:
            self._add(root, "steps", "required, but missing", "a list: `- source: jsonl`, …")
            return []
        if not isinstance(node.value, list) or not node.value:
            self._add(node, "steps", "a list of at least one step", "begin each with `- STAGE: COMPONENT`")
            return []
        self._check_ids(node)
        steps: list[StepSpec | Stage | None] = []
        for index, step in enumerate(node.value):
            earlier = [(name, stage) for name, stage, _ in name_steps(Node(node.value[:index]))]
            later = [(name, stage) for name, stage, _ in name_steps(Node(node.value[index:]))]
            key = f"steps[{index}]"
            reader = StepReader(self._registry, self._directory, self._add, key, earlier=earlier, later=later)
            steps.append(reader.read(step))
        return steps

    def _check_ids(self, steps: Node) -> None:
        seen: dict[str, Node] = {}
        for index, node in enumerate(steps.value):
            named = name_steps(Node([node]))
            if not named or not (name := named[0][0]):
                continue
            if name in seen:
                first = seen[name].position
                where = f" (line {first.line})" if first else ""
                message = f"a second step with the id {name!r}; the first{where} has it already"
                self._add(node.value.get("id", node), f"steps[{index}].id", message, "give one of them an `id`")
            seen.setdefault(name, node)
