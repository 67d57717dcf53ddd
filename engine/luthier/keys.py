"""Keys: what a node's result depends on, whether it is in the store, and if not, why it must run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

from luthier import environments, provenance
from luthier.components import Component, describe
from luthier.core_stages import STAGES, Stage
from luthier.errors import LuthierError, PluginError
from luthier.explain import explain
from luthier.markup import html_table
from luthier.nodes import RecipeError, RecipeProblem
from luthier.plans import Node, Plan
from luthier.steps import StepSpec
from luthier.store import StepRecord, Store

FORCED = "forced"


@dataclass(frozen=True)
class History:
    """What earlier runs of a recipe say.

    Attributes:
        ingredients: those of each node when it was last done, by node id: they tell why it runs again.
        failures: why trials of a search failed, by key: the same input would fail again.
    """

    ingredients: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class PlannedTrial:
    """One trial of a search, with what is known of it now.

    Attributes:
        label: the candidate's values, for people.
        amount: the budget that it gets, for people; empty where the recipe gives none.
        planned: its step.
        result: the metric, for people; empty as long as there is none.
    """

    label: str
    amount: str
    planned: Planned
    result: str = ""

    @property
    def told(self) -> str:
        """Its state for people: `cached: valid_loss 2.31`, `runs`, `failed: training diverged`."""
        if self.planned.failed:
            return f"failed: {self.planned.why}"
        if self.planned.record:
            return f"cached: {self.result}"
        if self.planned.state == "depends":
            return self.planned.why
        return "runs (forced)" if self.planned.why == FORCED else "runs"


@dataclass(frozen=True, repr=False)
class Planned:
    """A node with what is known of it now.

    `key` and `ingredients` are None while an input is still to be made. `record` is the step's record
    where it is cached; otherwise `why` says why it must run. Of a step that is searched, all are of the trial
    that won, once that is known, and `trials` are those that the search has come to. A trial has `failed` where
    an earlier run found so; `why` is the reason.
    """

    node: Node
    key: str | None
    ingredients: dict[str, Any] | None
    record: StepRecord | None
    why: str
    trials: tuple[PlannedTrial, ...] = ()
    failed: bool = False

    @property
    def state(self) -> Literal["cached", "runs", "depends"]:
        """`cached`, `runs`, or `depends` (on an earlier step's result)."""
        if self.record:
            return "cached"
        ready = self.key or any(trial.planned.key for trial in self.trials)
        return "runs" if ready else "depends"

    @property
    def told(self) -> str:
        """The state for people: `cached`, `runs (not done yet)`, `depends on lora`."""
        space = self.node.step.space if self.node.parts else None
        if self.state == "depends" and space:
            return f"{self.why}; {space.describe()}"
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
        """Number, id, component and state of each step: a fused pass has a row for each of its steps.

        Below a step that is searched is a row for each trial that is known; they have no number.
        """
        rows, number = [], 0
        for planned in self:
            for name, component in planned.steps:
                number += 1
                rows.append((str(number), name, component, planned.told))
            rows += [("", f"  {trial.label}", trial.amount, trial.told) for trial in planned.trials]
        return rows

    def _repr_html_(self) -> str:
        return html_table(["", "step", "component", "state"], self.rows())


def resolve(
    plan: Plan,
    node: Node,
    outputs: Mapping[str, str],
    store: Store,
    history: History,
    *,
    ignore_force: Collection[str] = (),
) -> Planned:
    """What is known of a node.

    Args:
        outputs: the hashes of the results that are known, by node id.
        history: what the recipe's earlier runs say.
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
        return Planned(node, key, parts, None, FORCED)
    record = store.step(key)
    if record:
        return Planned(node, key, parts, record, "")
    if node.trial and key in history.failures:
        return Planned(node, key, parts, None, history.failures[key], failed=True)
    before = history.ingredients.get(node.id)
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
