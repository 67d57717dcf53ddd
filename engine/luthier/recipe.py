"""YAML to a validated recipe: every error at once, each with file, line, column, key and a suggestion."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from luthier.components import (
    RESERVED_KEYS,
    STAGES,
    SUBJECTS,
    Component,
    ConfigurationError,
    Problem,
    Stage,
    plain_value,
)
from luthier.errors import LuthierError
from luthier.nodes import Node, Position, RecipeError, RecipeProblem, dump_yaml, follow, node_from_value, parse_yaml
from luthier.plugins import Registry
from luthier.schema import example_step, nested_keys
from luthier.substitution import apply_overrides, interpolate, name_steps, parse_override, resolve_name, stage_names
from luthier.suggest import did_you_mean

__all__ = [
    "Position",
    "RecipeError",
    "RecipeProblem",
    "RecipeSpec",
    "StepSpec",
    "example_step",
    "load_recipe",
    "parse_override",
    "parse_recipe",
    "recipe_from_mapping",
]

RECIPE_VERSION = 1
RECIPE_KEYS = ("luthier", "name", "seed", "steps")
MAX_SEED = 2**32 - 1
"""numpy takes no larger one."""

_NAME = re.compile(r"\w[\w .-]{0,99}")
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}")


@dataclass(frozen=True)
class StepSpec:
    """One step of a recipe, checked.

    Attributes:
        id: its name within the recipe.
        config: the configuration as JSON values, defaults filled in, locations absolute.
        source: the ids of the steps that `from` names; empty if it names none.
        gate: the bounds as written; None without.
        runtime: the runtime that its subjects are loaded with; None for the kind's default.
        subjects: what a validator measures, of those that there are.
        position: where it begins in the file; None in a recipe that was built in Python.
        positions: where the keys of its configuration are.
    """

    id: str
    stage: Stage
    component: Component
    config: dict[str, Any]
    source: tuple[str, ...] = ()
    gate: Mapping[str, Any] | None = None
    runtime: str | None = None
    subjects: tuple[str, ...] = SUBJECTS
    position: Position | None = None
    positions: Mapping[str, Position] = field(default_factory=dict)


@dataclass(frozen=True)
class RecipeSpec:
    """A recipe, checked against the installed plugins.

    Attributes:
        path: its file; None for one that was built in Python or given as text.
        directory: where its relative locations start.
        text: as written.
    """

    name: str
    seed: int
    steps: tuple[StepSpec, ...]
    path: Path | None
    directory: Path
    text: str


def load_recipe(path: Path, registry: Registry, overrides: Mapping[str, Any] | None = None) -> RecipeSpec:
    """Read and check a recipe's file.

    Args:
        path: the YAML file; it is named in errors as it is given here.
        registry: the installed components.
        overrides: values by dotted path (`lora.rank`), in place of what the file says.

    Raises:
        RecipeError: with everything that is wrong with it.
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
    """Check a recipe's text; as `load_recipe`."""
    root = parse_yaml(text, str(path or "recipe"))
    return _Reader(registry, path, directory, text).read(root, overrides or {})


def recipe_from_mapping(
    mapping: Mapping[str, Any], registry: Registry, directory: Path, overrides: Mapping[str, Any] | None = None
) -> RecipeSpec:
    """Check a recipe that was built in Python: the same keys as in YAML; as `load_recipe`."""
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
        name, seed, steps = self._name(root), self._seed(root), self._steps(root)
        if self._problems:
            raise RecipeError(self._problems)
        return RecipeSpec(name, seed, tuple(steps), self._path, self._directory, self._text)

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
            self._add(node, "seed", f"a whole number from 0 to {MAX_SEED}, not {_shown(node)}")
            return 0
        return node.value

    def _steps(self, root: Node) -> list[StepSpec]:
        node = root.value.get("steps")
        if node is None:
            self._add(root, "steps", "required, but missing", "a list: `- source: jsonl`, …")
            return []
        if not isinstance(node.value, list) or not node.value:
            self._add(node, "steps", "a list of at least one step", "begin each with `- STAGE: COMPONENT`")
            return []
        self._check_ids(node)
        steps = []
        for index, step in enumerate(node.value):
            earlier = [(name, stage) for name, stage, _ in name_steps(Node(node.value[:index]))]
            later = [(name, stage) for name, stage, _ in name_steps(Node(node.value[index:]))]
            key = f"steps[{index}]"
            reader = _StepReader(self._registry, self._directory, self._add, key, earlier=earlier, later=later)
            read = reader.read(step)
            steps += [read] if read else []
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


class _StepReader:
    """Reads one step; `earlier` and `later` are the (id, stage) of the steps before it, and from it on."""

    def __init__(
        self,
        registry: Registry,
        directory: Path,
        add: Callable[..., None],
        key: str,
        *,
        earlier: list[tuple[str, str]],
        later: list[tuple[str, str]],
    ) -> None:
        self._registry = registry
        self._directory = directory
        self._add = add
        self._key = key
        self._earlier = earlier
        self._later = later

    def read(self, step: Node) -> StepSpec | None:
        stage = self._stage(step)
        if stage is None:
            return None
        component = self._component(step, stage)
        step_id = self._id(step, stage)
        reserved = {key: node for key, node in step.value.items() if key in RESERVED_KEYS}
        config_nodes = {key: node for key, node in step.value.items() if key not in (*RESERVED_KEYS, stage.name)}
        if "environment" in reserved:
            self._add(
                reserved["environment"],
                f"{self._key}.environment",
                "environments of a step's own are not in this version",
                "remove the key; the plugin runs in the main environment",
            )
        source = self._from(reserved.get("from"))
        gate = self._gate(reserved.get("gate"), stage)
        runtime = self._runtime(reserved.get("runtime"), stage)
        subjects = self._subjects(reserved.get("subjects"), stage)
        config = self._configure(component, step, config_nodes) if component else None
        if component is None or config is None:
            return None
        positions = {key: node.place for key, node in config_nodes.items() if node.place and not node.override}
        return StepSpec(step_id, stage, component, config, source, gate, runtime, subjects, step.position, positions)

    def _stage(self, step: Node) -> Stage | None:
        if not isinstance(step.value, dict) or not step.value:
            self._add(step, self._key, "a step is a mapping", "write `- STAGE: COMPONENT`, then its configuration")
            return None
        first, node = next(iter(step.value.items()))
        stage = next((stage for stage in STAGES if stage.name and stage.name == first), None)
        if stage is None:
            elsewhere = [key for key in step.value if key in stage_names()]
            suggestion = f"put `{elsewhere[0]}` first" if elsewhere else did_you_mean(first, stage_names())
            message = f"a step's first key is its stage, and {first!r} is none"
            self._add(node, f"{self._key}.{first}", message, suggestion or f"the stages are {', '.join(stage_names())}")
        return stage

    def _component(self, step: Node, stage: Stage) -> Component | None:
        node = step.value[stage.name]
        key = f"{self._key}.{stage.name}"
        if not isinstance(node.value, str) or not node.value:
            self._add(node, key, f"the name of a component, not {_shown(node)}", "`luthier plugins list` shows them")
            return None
        try:
            return self._registry.find(stage.name, node.value)
        except LuthierError as error:
            self._add(node, key, error.message, error.remedy)
            return None

    def _id(self, step: Node, stage: Stage) -> str:
        node = step.value.get("id", step.value[stage.name])
        if "id" in step.value and not (isinstance(node.value, str) and _ID.fullmatch(node.value)):
            self._add(node, f"{self._key}.id", f"an id of letters, digits, `-` and `_`, not {_shown(node)}")
        return str(node.value)

    def _from(self, node: Node | None) -> tuple[str, ...]:
        if node is None:
            return ()
        names = node.value if isinstance(node.value, list) else [node]
        found = []
        for name in names:
            if not isinstance(name.value, str):
                self._add(
                    name, f"{self._key}.from", f"the id of an earlier step, or a list of them, not {_shown(name)}"
                )
                continue
            step_id, wrong = resolve_name(name.value, self._earlier)
            if any(name.value in names for names in self._later) and not any(
                name.value in names for names in self._earlier
            ):
                self._add(name, f"{self._key}.from", f"{name.value!r} is not an earlier step", "move it up")
            elif wrong:
                ids = [step_id for step_id, _ in self._earlier]
                suggestion = did_you_mean(name.value, ids) or f"earlier steps: {', '.join(ids) or 'none'}"
                self._add(name, f"{self._key}.from", wrong, suggestion)
            found.append(step_id)
        return tuple(found)

    def _gate(self, node: Node | None, stage: Stage) -> Mapping[str, Any] | None:
        if node is None or not self._only_validate(node, "gate", stage):
            return None
        from luthier.gates import GateSyntax, parse_gate

        gate = node.to_value()
        try:
            parse_gate(gate)
        except GateSyntax as error:
            for path, message in error.problems:
                place, shown = follow(node, path)
                self._add(place, f"{self._key}.gate{shown}", message)
        return gate if isinstance(gate, dict) else None

    def _runtime(self, node: Node | None, stage: Stage) -> str | None:
        if node is None or not self._only_validate(node, "runtime", stage):
            return None
        if not isinstance(node.value, str):
            self._add(node, f"{self._key}.runtime", f"the name of a runtime, not {_shown(node)}")
            return None
        try:
            return self._registry.runtime(node.value).name
        except LuthierError as error:
            self._add(node, f"{self._key}.runtime", error.message, error.remedy)
            return None

    def _subjects(self, node: Node | None, stage: Stage) -> tuple[str, ...]:
        if node is None or not self._only_validate(node, "subjects", stage):
            return SUBJECTS
        named = node.to_value()
        if not isinstance(named, list) or "candidate" not in named or not set(named) <= set(SUBJECTS):
            what = f"a list of {', '.join(SUBJECTS)}, with candidate among them, not {_shown(node)}"
            self._add(node, f"{self._key}.subjects", what)
            return SUBJECTS
        return tuple(name for name in SUBJECTS if name in named)

    def _only_validate(self, node: Node, key: str, stage: Stage) -> bool:
        if stage.gives != "report":
            self._add(node, f"{self._key}.{key}", f"only a `validate` step has a {key}")
        return stage.gives == "report"

    def _configure(self, component: Component, step: Node, nodes: dict[str, Node]) -> dict[str, Any] | None:
        given = replace(step, value=nodes)
        try:
            values = component.configure(given.to_value())
        except ConfigurationError as error:
            for problem in error.problems:
                self._add_configuration_problem(component, given, problem)
            return None
        except LuthierError as error:
            self._add(step, self._key, error.message, error.remedy)
            return None
        config: dict[str, Any] = {}
        for name, value in values.items():
            try:
                config[name] = plain_value(value, self._absolute)
            except LuthierError as error:
                self._add(nodes.get(name, step), f"{self._key}.{name}", error.message, error.remedy)
        return config

    def _absolute(self, location: str) -> str:
        from luthier.locations import absolute

        return absolute(location, self._directory)

    def _add_configuration_problem(self, component: Component, step: Node, problem: Problem) -> None:
        node, shown = follow(step, problem.key)
        suggestion = ""
        if problem.unknown:
            parent = problem.key[:-1]
            known = list(nested_keys(component, parent)) + (list(RESERVED_KEYS) if not parent else [])
            name = str(problem.key[-1])
            suggestion = (
                did_you_mean(name, known) or f"{component} has {', '.join(nested_keys(component, parent)) or 'no keys'}"
            )
        self._add(node, f"{self._key}{shown}", problem.message, suggestion)


def _shown(node: Node) -> str:
    text = repr(node.to_value())
    return text if len(text) <= 60 else f"{text[:57]}…"
