"""A recipe that was loaded with its plugins and checked, and the store that it uses."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from luthier.discovery import plugin_files
from luthier.errors import InputError
from luthier.keys import History, PlannedNodes
from luthier.location_syntax import at_home
from luthier.planner import make_plan
from luthier.plans import Force, Node, Plan, bounds
from luthier.plugins import load_plugins
from luthier.recipe import RecipeSpec, load_recipe, recipe_from_mapping
from luthier.registry import Champions
from luthier.runs import Run, list_runs
from luthier.searching import resolve_step
from luthier.steps import StepSpec
from luthier.store import Store

HOME_VARIABLE = "LUTHIER_HOME"
DEFAULT_HOME = ".luthier"


class Recipe:
    """A recipe built in Python: the same steps, keys and checks as in YAML.

    >>> recipe = Recipe("docstring-summaries", seed=7)
    >>> recipe.step("source", "docstrings", packages="installed")
    >>> recipe.step("clean", "near-duplicates", threshold=0.8)
    """

    def __init__(self, name: str, *, seed: int = 0) -> None:
        self.name = name
        self.seed = seed
        self._steps: list[dict[str, Any]] = []

    def step(self, stage: str, component: str, **configuration: Any) -> Recipe:
        """Add a step; keys that Python reserves take an underscore (`from_`). Gives the recipe itself."""
        self._steps.append(
            {stage: component, **{name.removesuffix("_"): value for name, value in configuration.items()}}
        )
        return self

    def mapping(self) -> dict[str, Any]:
        """What its YAML would hold."""
        return {"luthier": 1, "name": self.name, "seed": self.seed, "steps": self._steps}


@dataclass(frozen=True)
class Session:
    """A recipe with the plugins and the store that it uses."""

    plan: Plan
    store: Store
    local: Sequence[Path] = ()
    overrides: Mapping[str, Any] = field(default_factory=dict)

    @property
    def recipe(self) -> RecipeSpec:
        """The recipe."""
        return self.plan.recipe

    @property
    def steps(self) -> list[StepSpec]:
        """The steps that the plan does, in order: not those behind the one that it stops at."""
        return list({step.id: step for node in self.plan.nodes for step in node.parts}.values())

    def history(self) -> History:
        """What the recipe's earlier runs say."""
        ingredients: dict[str, Mapping[str, Any]] = {}
        failures: dict[str, str] = {}
        for run in self._earlier_runs():
            for step in run.steps:
                for node in step.nodes:
                    ingredients.setdefault(node.id, node.ingredients)
                for trial in step.search.trials if step.search else ():
                    if trial.state == "failed":
                        failures.setdefault(trial.key, trial.error)
        return History(ingredients, failures)

    def resolve(self) -> PlannedNodes:
        """What is known of every node now, in order."""
        outputs = dict(self.plan.given)
        history = self.history()
        planned = PlannedNodes()
        for node in self.plan.nodes:
            known = resolve_step(self.plan, node, outputs, self.store, history)
            if known.record:
                outputs[node.id] = known.record.output
            planned.append(known)
        return planned

    def newest_run(self) -> Run | None:
        """The recipe's newest run, whatever became of it; of an evaluation, the newest of the same promoted run."""
        return next(self._earlier_runs(), None)

    def _earlier_runs(self) -> Iterator[Run]:
        kind = (self.recipe.name, self.plan.evaluates)
        return (run for run in list_runs(self.store) if (run.data.recipe, run.data.evaluates) == kind)

    def current_run(self) -> Run | None:
        """The recipe's newest finished run, if it is this plan's: the same keys, the same gates."""
        planned = self.resolve()
        if not all(known.record for known in planned):
            return None
        run = self.newest_run()
        if run is None or run.state not in ("done", "refused"):
            return None
        if [step.id for step in run.steps] != [step.id for step in self.steps]:
            return None
        # Fused steps share a key, and so do subjects that are one model.
        keys = dict.fromkeys(node.key for step in run.steps for node in step.nodes)
        same = list(keys) == list(dict.fromkeys(known.key for known in planned))
        # A search whose winner is the only candidate of another has the same key.
        tried = [trial.key for step in run.steps if step.search for trial in step.search.trials]
        same = same and tried == [trial.planned.key for known in planned for trial in known.trials]
        return run if same and self._same_gates(run) else None

    def _same_gates(self, run: Run) -> bool:
        wanted = [(step.id, bound.metric, bound.text()) for step in self.steps for bound in bounds(step)]
        return wanted == [(gate.step, gate.metric, gate.bound) for gate in run.gates]


def open_store(directory: Path, home: Path | str | None = None) -> Store:
    """The store: `home`, else `LUTHIER_HOME`, else `.luthier` in `directory` (the recipe's)."""
    chosen = home or os.environ.get(HOME_VARIABLE)
    return Store(at_home(str(chosen)).absolute() if chosen else directory.absolute() / DEFAULT_HOME)


def open_session(
    recipe: Recipe | str | Path,
    *,
    overrides: Mapping[str, Any] | None = None,
    plugins: Sequence[str | Path] = (),
    home: str | Path | None = None,
    until: str | None = None,
    start: str | None = None,
    force: Sequence[str] = (),
) -> Session:
    """Load a recipe with its plugins and check all of it.

    Raises:
        RecipeError: with everything that is wrong with the recipe.
    """
    if isinstance(recipe, Recipe):
        directory = Path.cwd()
        local = plugin_files(directory, list(map(Path, plugins)))
        registry = load_plugins(local=local)
        spec = recipe_from_mapping(_overridden(recipe.mapping()), registry, directory, overrides or {})
    else:
        path = Path(recipe)
        directory = path.absolute().parent
        local = plugin_files(directory, list(map(Path, plugins)))
        registry = load_plugins(local=local)
        spec = load_recipe(path, registry, overrides or {})
    wanted = Force(frozenset(force), start)
    store = open_store(directory, home)
    plan = make_plan(spec, registry, until=until, force=wanted, champion=_champion(store, spec.name))
    return Session(plan, store, local, overrides or {})


def _champion(store: Store, name: str) -> Node | InputError | None:
    """What stands for the champion of a recipe's name; an error that a recipe is told only if it compares with it."""
    try:
        entry = Champions(store).champion(name)
        return Node.of_champion(Champions(store).model(name, entry)) if entry else None
    except InputError as error:
        return error


def _overridden(mapping: dict[str, Any]) -> dict[str, Any]:
    # A notebook's values may be tuples or paths; recipes hold JSON values.
    return dict(json.loads(json.dumps(mapping, default=str)))
