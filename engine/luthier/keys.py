"""Keys: what a node's result depends on, whether it is in the store, and if not, why it must run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from luthier import environments, provenance
from luthier.components import Component, describe
from luthier.core_stages import STAGES, Stage
from luthier.errors import LuthierError, PluginError
from luthier.explain import explain
from luthier.markup import html_table
from luthier.nodes import RecipeError, RecipeProblem
from luthier.planner import Node, Plan
from luthier.steps import StepSpec
from luthier.store import StepRecord, Store


@dataclass(frozen=True, repr=False)
class Planned:
    """A node with what is known of it now.

    `key` and `ingredients` are None while an input is still to be made. `record` is the step's record
    where it is cached; otherwise `why` says why it must run.
    """

    node: Node
    key: str | None
    ingredients: dict[str, Any] | None
    record: StepRecord | None
    why: str

    @property
    def state(self) -> Literal["cached", "runs", "depends"]:
        """`cached`, `runs`, or `depends` (on an earlier step's result)."""
        if self.record:
            return "cached"
        return "runs" if self.key else "depends"

    @property
    def told(self) -> str:
        """The state for people: `cached`, `runs (not done yet)`, `depends on lora`."""
        if self.state == "runs":
            return f"runs ({self.why})"
        return self.why if self.state == "depends" else self.state

    @property
    def steps(self) -> list[tuple[str, str]]:
        """The id and component of each step that the node does; a validator's id names its subject."""
        return [(self.node.id if step is self.node.step else step.id, str(step.component)) for step in self.node.parts]

    def __repr__(self) -> str:
        steps = " + ".join(f"{name} ({component})" for name, component in self.steps)
        return f"<Planned {steps}: {self.told}>"


class PlannedNodes(list[Planned]):
    """The nodes of a plan, in order; a notebook shows them as a table."""

    def rows(self) -> list[tuple[str, str, str, str]]:
        """Number, id, component and state of each step: a fused pass has a row for each of its steps."""
        rows = [(*step, planned.told) for planned in self for step in planned.steps]
        return [(str(number), *row) for number, row in enumerate(rows, 1)]

    def _repr_html_(self) -> str:
        return html_table(["", "step", "component", "state"], self.rows())


def resolve(
    plan: Plan,
    node: Node,
    outputs: Mapping[str, str],
    store: Store,
    previous: Mapping[str, Mapping[str, Any]],
    *,
    ignore_force: Collection[str] = (),
) -> Planned:
    """What is known of a node.

    Args:
        outputs: the hashes of the results that are known, by node id.
        previous: the ingredients of the nodes of the recipe's last run, by node id.
        ignore_force: ids of nodes that were done in this run already, so are not forced again.
    """
    missing = next((made.id for made in node.inputs.values() if made.id not in outputs), None)
    if missing:
        return Planned(node, None, None, None, f"depends on {missing}")
    if node.environment and environments.current(node.environment) is None:
        return Planned(node, None, None, None, f"its environment is missing: luthier env build {node.environment}")
    parts = ingredients(plan, node, outputs)
    key = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
    if plan.forced(node) and node.id not in ignore_force:
        return Planned(node, key, parts, None, "forced")
    record = store.step(key)
    if record:
        return Planned(node, key, parts, record, "")
    before = previous.get(node.id)
    why = "not done yet" if before is None else explain(before, parts)
    return Planned(node, key, parts, None, why)


def ingredients(plan: Plan, node: Node, outputs: Mapping[str, str]) -> dict[str, Any]:
    """Everything a node's result depends on, as JSON values."""
    found: dict[str, Any] = {
        "parts": [_part(step, plan.identity, node.environment) for step in node.parts],
        "inputs": {name: outputs[made.id] for name, made in sorted(node.inputs.items())},
        "runtimes": {
            name: {"config": dict(runtime.config), **_code(plan.registry.runtime(runtime.name), node.environment)}
            for name, runtime in sorted(node.runtimes.items())
        },
    }
    if any("ctx" in step.component.inputs for step in node.parts):
        found["seed"] = plan.recipe.seed
    if any(step.component.declared.platform for step in node.parts):
        found["platform"] = provenance.this_platform()
    return found


def _part(step: StepSpec, identify: Callable[..., str], environment: str) -> dict[str, Any]:
    component = step.component
    try:
        config = component.canonical(step.config, partial(identify, only=_files(step)))
    except LuthierError as error:
        raise _at(step, error) from error
    part = {
        "stage": step.stage.name,
        "contract": step.stage.contract,
        "config": config,
        **_code(component, environment),
    }
    if step.stage not in STAGES:
        part["declares"] = _declares(step.stage)
    if component.declared.fingerprint:
        part["fingerprint"] = hashlib.sha256(_fingerprint(step).encode()).hexdigest()
    return part


def _files(step: StepSpec) -> Sequence[str]:
    """The patterns of the files that count of a directory; none where all do."""
    files = step.component.declared.files
    if files is None:
        return ()
    given: Sequence[str] = _asked(step, "files", files)
    if isinstance(given, str) or not all(isinstance(each, str) and each for each in given):
        raise _at(step, PluginError(f"{step.component}: its `files` gave {given!r}", "It gives a list of patterns."))
    return given


def _declares(stage: Stage) -> dict[str, Any]:
    """What a stage of a plugin's says of itself that decides what a step of it gets and gives."""
    return {"gives": stage.gives, "needs": [*stage.needs], "one_of": [*stage.one_of], "optional": [*stage.optional]}


def _fingerprint(step: StepSpec) -> str:
    fingerprint = step.component.declared.fingerprint
    assert fingerprint is not None
    given = _asked(step, "fingerprint", fingerprint)
    if not isinstance(given, str):
        raise _at(step, PluginError(f"{step.component}: its `fingerprint` gave {given!r}", "It gives a text."))
    return given


def _asked(step: StepSpec, what: str, declared: Callable[..., Any]) -> Any:
    """What a component's declaration says of a configuration; its bugs are told as the plugin's."""
    try:
        return declared(**step.component.configure(step.config))
    except LuthierError as error:
        raise _at(step, error) from error
    except Exception as error:
        message = f"{step.component}: its `{what}` failed: {type(error).__name__}: {error}"
        raise _at(step, PluginError(message, f"See {describe(declared)}.")) from error


def _at(step: StepSpec, error: LuthierError) -> RecipeError:
    return RecipeError([RecipeProblem(step.position, step.id, error.message, error.remedy)])


def _code(component: Component, environment: str) -> dict[str, Any]:
    found = environments.current(environment) if environment else None
    return {
        "component": component.name,
        "plugin": component.plugin,
        "code": provenance.code_of(component),
        "requires": provenance.versions_of(component, found.distributions() if found else None),
    }
