"""One step of a recipe: its mapping, checked against the component that it names."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from luthier.components import RESERVED_KEYS, Component, ConfigurationError, Problem, plain_value
from luthier.core_stages import DEFAULT_EXECUTOR, NAMED_INPUTS, REFERENCE, SUBJECTS, Stage
from luthier.errors import LuthierError
from luthier.formatting import with_article
from luthier.nodes import Node, Position, follow, shown
from luthier.plugins import Registry, UnknownStage
from luthier.search import Space, lists_in, read_space
from luthier.substitution import resolve_name
from luthier.suggest import did_you_mean

ENVIRONMENTS = ("own", "main")
"""Where a step can be told to run: in the environment of its plugin alone, or where luthier itself is."""

_NAMED_HELP = "the id of an earlier step; what comes from elsewhere has an `architecture` step of its own"

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}")


@dataclass(frozen=True)
class ComponentSpec:
    """A runtime or an executor by name, with its configuration as JSON values, defaults filled in."""

    name: str
    config: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class StepSpec:
    """One step of a recipe, checked.

    Attributes:
        id: its name within the recipe.
        config: the configuration as JSON values, defaults filled in, locations absolute; of a step that is
            searched, its first candidate's.
        source: the ids of the steps that `from` names; empty if it names none.
        named: for each named input (`teacher`), and the `reference` of a validator, the id of the step that gives it.
        gate: the bounds as written; None without.
        runtime: the runtime that its subjects are loaded with; None for the kind's default.
        executor: what starts its processes; None for the default one, where there are several.
        subjects: what a validator measures, of those that there are.
        environment: `own` or `main`; empty for what the plugin declares.
        position: where it begins in the file; None in a recipe that was built in Python.
        positions: where the keys of its configuration and of its named inputs are.
        space: what it is searched for, if parameters of it have lists of values to choose from.
    """

    id: str
    stage: Stage
    component: Component
    config: dict[str, Any]
    source: tuple[str, ...] = ()
    named: Mapping[str, str] = field(default_factory=dict)
    gate: Mapping[str, Any] | None = None
    runtime: ComponentSpec | None = None
    subjects: tuple[str, ...] = SUBJECTS
    environment: str = ""
    position: Position | None = None
    positions: Mapping[str, Position] = field(default_factory=dict)
    space: Space | None = None
    executor: ComponentSpec | None = None

    @property
    def configurations(self) -> list[dict[str, Any]]:
        """Every configuration that it may run with: one, or those of its candidates."""
        return [candidate.config for candidate in self.space.candidates] if self.space else [self.config]


class StepReader:
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

    def read(self, step: Node) -> StepSpec | Stage | None:
        """Check one step; where it cannot be read, its stage is given, or None if even that is wrong."""
        stage = self._stage(step)
        if stage is None:
            return None
        component = self._component(step, stage)
        step_id = self._id(step, stage)
        reserved = {key: node for key, node in step.value.items() if key in RESERVED_KEYS}
        config_nodes = {key: node for key, node in step.value.items() if key not in (*RESERVED_KEYS, stage.name)}
        environment = self._environment(reserved.get("environment"))
        source = self._from(reserved.get("from"))
        named = self._named(step, component) if component else {}
        gate = self._gate(reserved.get("gate"), stage)
        runtime = self._runtime(reserved.get("runtime"), stage, component)
        executor = self._executor(reserved.get("executor"), component)
        subjects = self._subjects(reserved.get("subjects"), stage, component)
        if component is None:
            return stage
        space, readable = self._space(component, step, config_nodes)
        config = space.candidates[0].config if space else None
        if not space and readable:
            config = self._configure(component, step, config_nodes, self._key)
        if config is None:
            return stage
        if "executor" not in reserved:
            configs = [each.config for each in space.candidates] if space else [config]
            self._check_default_executor(component, configs, step)
        located = config_nodes | {key: reserved[key] for key in named}
        positions = {key: node.place for key, node in located.items() if node.place and not node.override}
        return StepSpec(
            step_id,
            stage,
            component,
            config,
            source,
            named,
            gate,
            runtime,
            subjects,
            environment,
            position=step.position,
            positions=positions,
            space=space,
            executor=executor,
        )

    def _stage(self, step: Node) -> Stage | None:
        if not isinstance(step.value, dict) or not step.value:
            self._add(step, self._key, "a step is a mapping", "write `- STAGE: COMPONENT`, then its configuration")
            return None
        first, node = next(iter(step.value.items()))
        try:
            return self._registry.stage(first)
        except UnknownStage as error:
            elsewhere = [key for key in step.value if key in self._registry.stage_names]
            remedy = f"put `{elsewhere[0]}` first" if elsewhere else error.remedy
            self._add(node, f"{self._key}.{first}", error.message, remedy)
            return None

    def _component(self, step: Node, stage: Stage) -> Component | None:
        node = step.value[stage.name]
        key = f"{self._key}.{stage.name}"
        if not isinstance(node.value, str) or not node.value:
            self._add(node, key, f"the name of a component, not {shown(node)}", "`luthier plugins list` shows them")
            return None
        try:
            return self._registry.find(stage.name, node.value)
        except LuthierError as error:
            self._add(node, key, error.message, error.remedy)
            return None

    def _id(self, step: Node, stage: Stage) -> str:
        node = step.value.get("id", step.value[stage.name])
        if "id" in step.value and not (isinstance(node.value, str) and _ID.fullmatch(node.value)):
            self._add(node, f"{self._key}.id", f"an id of letters, digits, `-` and `_`, not {shown(node)}")
        return str(node.value)

    def _from(self, node: Node | None) -> tuple[str, ...]:
        if node is None:
            return ()
        names = node.value if isinstance(node.value, list) else [node]
        found = [self._earlier_step(name, "from", "the id of an earlier step, or a list of them") for name in names]
        return tuple(step_id for step_id in found if step_id is not None)

    def _named(self, step: Node, component: Component) -> dict[str, str]:
        """The steps that give the inputs which a recipe names."""
        found: dict[str, str] = {}
        for name in NAMED_INPUTS:
            node, asked = step.value.get(name), name in component.inputs
            if node is None and asked:
                self._add(step, f"{self._key}.{name}", "required, but missing", f"write `{name}: STEP`, {_NAMED_HELP}")
            elif node is not None and not asked:
                self._add(node, f"{self._key}.{name}", f"{component} takes no {name}")
            elif node is not None:
                step_id = self._earlier_step(node, name, "the id of an earlier step", _NAMED_HELP)
                found |= {name: step_id} if step_id else {}
        node = step.value.get(REFERENCE)
        if node is not None and self._measures(node, REFERENCE, component.stage, component):
            step_id = self._earlier_step(node, REFERENCE, "the id of an earlier step", _NAMED_HELP)
            found |= {REFERENCE: step_id} if step_id else {}
        return found

    def _earlier_step(self, name: Node, key: str, expected: str, help: str = "") -> str | None:
        """The id of the earlier step that is named under a key; empty, or None, where there is none."""
        if not isinstance(name.value, str):
            self._add(name, f"{self._key}.{key}", f"{expected}, not {shown(name)}", help)
            return None
        step_id, wrong = resolve_name(name.value, self._earlier)
        if any(name.value in names for names in self._later) and not any(
            name.value in names for names in self._earlier
        ):
            self._add(name, f"{self._key}.{key}", f"{name.value!r} is not an earlier step", "move it up")
        elif wrong:
            ids = [step_id for step_id, _ in self._earlier]
            suggestion = did_you_mean(name.value, ids) or f"earlier steps: {', '.join(ids) or 'none'}"
            self._add(name, f"{self._key}.{key}", wrong, "; ".join(filter(None, (suggestion, help))))
        return step_id

    def _gate(self, node: Node | None, stage: Stage) -> Mapping[str, Any] | None:
        if node is None or not self._measures(node, "gate", stage, None):
            return None
        from luthier.gates import GateSyntax, parse_gate

        gate = node.to_value()
        try:
            parse_gate(gate)
        except GateSyntax as error:
            for path, message in error.problems:
                place, key = follow(node, path)
                self._add(place, f"{self._key}.gate{key}", message)
        return gate if isinstance(gate, dict) else None

    def _runtime(self, node: Node | None, stage: Stage, component: Component | None) -> ComponentSpec | None:
        """What loads the models that are measured."""
        if node is None or not self._measures(node, "runtime", stage, component):
            return None
        return self._chosen(node, "runtime")

    def _executor(self, node: Node | None, component: Component | None) -> ComponentSpec | None:
        """Where the step's processes run."""
        if node is None or component is None:
            return None
        if not component.declared.processes:
            able = [str(each) for each in self._registry.components if each.declared.processes]
            told = f"; {', '.join(able)} can be done by several processes" if able else ""
            self._add(node, f"{self._key}.executor", f"{component} runs where the worker does, so it has none{told}")
            return None
        return self._chosen(node, "executor")

    def _check_default_executor(self, component: Component, configs: list[dict[str, Any]], step: Node) -> None:
        """See that there is something that starts several processes, where they are asked for."""
        if not any(map(component.needs_executor, configs)):
            return
        try:
            self._registry.find("executor", DEFAULT_EXECUTOR)
        except LuthierError as error:
            self._add(step.value.get("processes", step), f"{self._key}.processes", error.message, error.remedy)

    def _chosen(self, node: Node, kind: str) -> ComponentSpec | None:
        """A component in a reserved key: `KIND: NAME`, or `KIND: {name: NAME, PARAMETER: VALUE}`."""
        key = f"{self._key}.{kind}"
        nodes = dict(node.value) if isinstance(node.value, dict) else {"name": node}
        name = nodes.pop("name", node)
        if not isinstance(name.value, str):
            wanted = f"the name of {with_article(kind)}, or a mapping with its `name`"
            self._add(name, key, f"{wanted}, not {shown(name)}")
            return None
        try:
            found = self._registry.find(kind, name.value)
        except LuthierError as error:
            self._add(name, key, error.message, error.remedy)
            return None
        config = self._configure(found, node, nodes, key)
        return None if config is None else ComponentSpec(found.name, config)

    def _subjects(self, node: Node | None, stage: Stage, component: Component | None) -> tuple[str, ...]:
        if node is None or not self._measures(node, "subjects", stage, component):
            return SUBJECTS
        named = node.to_value()
        if not isinstance(named, list) or "candidate" not in named or not set(named) <= set(SUBJECTS):
            what = f"a list of {', '.join(SUBJECTS)}, with candidate among them, not {shown(node)}"
            self._add(node, f"{self._key}.subjects", what)
            return SUBJECTS
        return tuple(name for name in SUBJECTS if name in named)

    def _environment(self, node: Node | None) -> str:
        if node is None:
            return ""
        if node.value not in ENVIRONMENTS:
            known = " or ".join(ENVIRONMENTS)
            hint = did_you_mean(str(node.value), ENVIRONMENTS)
            self._add(node, f"{self._key}.environment", f"one of {known}, not {shown(node)}", hint)
            return ""
        return str(node.value)

    def _measures(self, node: Node, key: str, stage: Stage, component: Component | None) -> bool:
        """Whether the step gives a report, and if its component is given, one of a subject."""
        if stage.gives != "report":
            stages = [f"`{each.name}`" for each in self._registry.stages if each.gives == "report"]
            self._add(node, f"{self._key}.{key}", f"only a {' or '.join(stages)} step has a {key}")
            return False
        if component and "subject" not in component.inputs:
            self._add(node, f"{self._key}.{key}", f"{component} measures no `subject`, so it has no {key}")
            return False
        return True

    def _space(self, component: Component, step: Node, nodes: dict[str, Node]) -> tuple[Space | None, bool]:
        """What the lists of a step are searched for, and whether they can be; nothing where there are none."""
        given = replace(step, value=nodes)
        try:
            lists = lists_in(component, given.to_value())
            return (read_space(component, given.to_value(), lists, self._absolute) if lists else None), True
        except ConfigurationError as error:
            for problem in error.problems:
                self._add_configuration_problem(component, given, problem, self._key)
        except LuthierError as error:
            self._add(step, self._key, error.message, error.remedy)
        return None, False

    def _configure(self, component: Component, step: Node, nodes: dict[str, Node], key: str) -> dict[str, Any] | None:
        given = replace(step, value=nodes)
        try:
            values = component.configure(given.to_value())
        except ConfigurationError as error:
            for problem in error.problems:
                self._add_configuration_problem(component, given, problem, key)
            return None
        except LuthierError as error:
            self._add(step, key, error.message, error.remedy)
            return None
        config: dict[str, Any] = {}
        for name, value in values.items():
            try:
                config[name] = plain_value(value, self._absolute)
            except LuthierError as error:
                self._add(nodes.get(name, step), f"{key}.{name}", error.message, error.remedy)
        return config

    def _absolute(self, location: str) -> str:
        from luthier.locations import absolute

        return absolute(location, self._directory)

    def _add_configuration_problem(self, component: Component, step: Node, problem: Problem, key: str) -> None:
        node, path = follow(step, problem.key)
        suggestion = ""
        if len(problem.key) == 1 and isinstance(node.value, list) and not component.declared.search:
            suggestion = self._searchable(component)
        if problem.unknown:
            reserved = RESERVED_KEYS if len(problem.key) == 1 and component.stage.name else ()
            suggestion = component.key_meant(problem.key, reserved)
        self._add(node, f"{key}{path}", problem.message, suggestion)

    def _searchable(self, component: Component) -> str:
        """What can be given a list of values, for one who gave one to a component that cannot be searched."""
        able = [str(each) for each in self._registry.components if each.declared.search]
        told = f"{component} does not say how its results compare, so it takes no lists of values to choose from"
        return f"{told}; {', '.join(able)} {'does' if len(able) == 1 else 'do'}" if able else told
