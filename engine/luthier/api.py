"""What the command line and notebooks call: plan a recipe, run it, look at runs."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from luthier import environments, hookspecs, lock, provenance, runs
from luthier.discovery import plugin_files
from luthier.errors import GateRefused, LuthierError
from luthier.events import Event, Listener, PluginHookFailed, listeners
from luthier.files import REMEDY, disk_errors
from luthier.interrupts import terminated_as_interrupt
from luthier.keys import History, PlannedNodes
from luthier.location_syntax import at_home
from luthier.planner import make_plan
from luthier.plans import Force, Plan, bounds
from luthier.plugins import Registry, load_plugins
from luthier.pool import Pool, available_cores
from luthier.recipe import RecipeSpec, load_recipe, recipe_from_mapping
from luthier.runner import Runner
from luthier.runrecord import RunData, StepResult
from luthier.runs import LATEST, Run, create_run, list_runs, now, run_id
from luthier.searching import resolve_step
from luthier.store import Store

if TYPE_CHECKING:
    from luthier.artifacts import Model, OnnxModel

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

    def history(self) -> History:
        """What the recipe's earlier runs say."""
        ingredients: dict[str, Mapping[str, Any]] = {}
        failures: dict[str, str] = {}
        for run in list_runs(self.store):
            if run.data.recipe == self.recipe.name:
                for step in run.steps:
                    for node in step.nodes:
                        ingredients.setdefault(node.id, node.ingredients)
                    for trial in step.search.trials if step.search else ():
                        if trial.state == "failed":
                            failures.setdefault(trial.key, trial.error)
        return History(ingredients, failures)

    def resolve(self) -> PlannedNodes:
        """What is known of every node now, in order."""
        outputs: dict[str, str] = {}
        history = self.history()
        planned = PlannedNodes()
        for node in self.plan.nodes:
            known = resolve_step(self.plan, node, outputs, self.store, history)
            if known.record:
                outputs[node.id] = known.record.output
            planned.append(known)
        return planned

    def newest_run(self) -> Run | None:
        """The recipe's newest run, whatever became of it."""
        return next((run for run in list_runs(self.store) if run.data.recipe == self.recipe.name), None)

    def current_run(self) -> Run | None:
        """The recipe's newest finished run, if it is this plan's: the same keys, the same gates."""
        planned = self.resolve()
        if not all(known.record for known in planned):
            return None
        run = self.newest_run()
        if run is None or run.state not in ("done", "refused"):
            return None
        if [step.id for step in run.steps] != [step.id for step in _planned_steps(self.plan)]:
            return None
        # Fused steps share a key, and so do subjects that are one model.
        keys = dict.fromkeys(node.key for step in run.steps for node in step.nodes)
        same = list(keys) == list(dict.fromkeys(known.key for known in planned))
        # A search whose winner is the only candidate of another has the same key.
        tried = [trial.key for step in run.steps if step.search for trial in step.search.trials]
        same = same and tried == [trial.planned.key for known in planned for trial in known.trials]
        return run if same and self._same_gates(run) else None

    def _same_gates(self, run: Run) -> bool:
        wanted = [(step.id, bound.metric, bound.text()) for step in _planned_steps(self.plan) for bound in bounds(step)]
        return wanted == [(gate.step, gate.metric, gate.bound) for gate in run.gates]


def open_store(directory: Path, home: Path | str | None = None) -> Store:
    """The store: `home`, else `LUTHIER_HOME`, else `.luthier` in `directory` (the recipe's)."""
    chosen = home or os.environ.get(HOME_VARIABLE)
    return Store(at_home(str(chosen)).absolute() if chosen else directory.absolute() / DEFAULT_HOME)


def find_model(name: str, *, home: Path | str | None = None) -> Model | OnnxModel:
    """The model that a directory, a location, a run or a step names: `hf:org/name`, `latest`, `latest:lora`, `lora`.

    Args:
        name: a directory; a location as in recipes; a run's id, a unique beginning of it, or `latest`, for its newest
            model; `RUN:STEP`, or the id of a step of the latest run.
        home: the store; `LUTHIER_HOME`, else `.luthier` in the current directory, if None.

    Raises:
        InputError: if it is none of them, or holds no model.
    """
    from luthier.adhoc import find_model as find

    return cast("Model", find(name, open_store(Path.cwd(), home)))


def find_run(name: str = LATEST, *, home: Path | str | None = None) -> Run:
    """A run by its id, a unique beginning of it, or `latest`.

    Args:
        name: which run.
        home: the store; `LUTHIER_HOME`, else `.luthier` in the current directory, if None.

    Raises:
        InputError: with the closest ids.
    """
    return runs.find_run(open_store(Path.cwd(), home), name)


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
    plan = make_plan(spec, registry, until=until, force=wanted)
    return Session(plan, open_store(directory, home), local, overrides or {})


def _overridden(mapping: dict[str, Any]) -> dict[str, Any]:
    # A notebook's values may be tuples or paths; recipes hold JSON values.
    return dict(json.loads(json.dumps(mapping, default=str)))


def plan(
    recipe: Recipe | str | Path,
    *,
    overrides: Mapping[str, Any] | None = None,
    plugins: Sequence[str | Path] = (),
    home: str | Path | None = None,
    until: str | None = None,
    start: str | None = None,
    force: Sequence[str] = (),
) -> PlannedNodes:
    """What running a recipe would do: each node, cached or to run, and why. The arguments are those of `run`.

    A notebook shows it as a table.

    Raises:
        RecipeError: with everything that is wrong with the recipe.
    """
    session = open_session(
        recipe, overrides=overrides, plugins=plugins, home=home, until=until, start=start, force=force
    )
    return session.resolve()


def run(
    recipe: Recipe | str | Path,
    *,
    overrides: Mapping[str, Any] | None = None,
    plugins: Sequence[str | Path] = (),
    home: str | Path | None = None,
    until: str | None = None,
    start: str | None = None,
    force: Sequence[str] = (),
    jobs: int | None = None,
    step_timeout: float | None = None,
    device: str = "auto",
    build_environments: bool = False,
    locked: bool | str | Path = False,
    listen: Listener | None = None,
    display: bool = True,
) -> Run:
    """Run a recipe; steps whose result is in the store are not done again.

    Args:
        recipe: a YAML file, or a `Recipe`.
        overrides: by step id: `{"lora.rank": 8}`.
        plugins: one-file plugins besides those in `plugins.d/` beside the recipe.
        home: where the store is; otherwise LUTHIER_HOME, or `.luthier` beside the recipe.
        until: stop after this step.
        start: do this step and all after it again.
        force: do these steps again.
        jobs: how many processes work on shards side by side; otherwise the number of cores.
        step_timeout: end a worker that reports nothing for so many seconds.
        device: where models run: `auto`, `cpu`, `cuda`, `mps`.
        build_environments: build what is missing of the environments that plugins need, before anything runs.
        locked: refuse to run with other code or versions than a lock names: that file, or where True,
            `luthier.lock` beside the recipe.
        listen: called with every event.
        display: show progress in the terminal or the notebook.

    Returns:
        The run; if nothing was left to do, the newest one that did it.

    Raises:
        GateRefused: if a gate refused the result.
        LuthierError: anything else that went wrong, with its remedy.
    """
    session = open_session(
        recipe, overrides=overrides, plugins=plugins, home=home, until=until, start=start, force=force
    )
    prepare_environments(session.plan, build=build_environments)
    if locked:
        lock.check_lock(session.plan, lock_path(session) if locked is True else Path(locked))
    do = _run_shown if display else run_session
    return do(session, [listen] if listen else [], jobs=jobs, step_timeout=step_timeout, device=device)


def _run_shown(session: Session, heard: Sequence[Listener], **options: Any) -> Run:
    """Run with a display, which at the end says what came out of it, however it ended."""
    from luthier.display import show

    with show() as display:
        try:
            run = run_session(session, [*heard, display], **options)
        except (LuthierError, KeyboardInterrupt) as error:
            ended = _ended_run(session, display.run, error)
            if ended:
                display.tell_outcome(ended)
            raise
        display.tell_outcome(run)
        return run


def _ended_run(session: Session, began: str, error: BaseException) -> Run | None:
    """The run that an error ended, or that a gate had refused before; None where none began."""
    if began:
        return Run.at(session.store.runs / began)
    return session.newest_run() if isinstance(error, GateRefused) else None


def prepare_environments(plan: Plan, *, build: bool, tell: Callable[[str], None] = lambda line: None) -> None:
    """See to it that every environment that the plan needs is built.

    Raises:
        InputError: if one is not, and `build` is not wanted, with the command that builds it.
    """
    for distribution in dict.fromkeys(node.environment for node in plan.nodes if node.environment):
        if build:
            from luthier import environment_build

            environment_build.build(distribution, tell=tell)
        else:
            environments.require(distribution)


def missing_environments(plan: Plan) -> dict[str, str]:
    """The distributions whose environments a plan needs and that are not built or out of date, with the first step."""
    needed = {node.environment: node.id for node in reversed(plan.nodes) if node.environment}
    return {name: step for name, step in needed.items() if environments.current(name) is None}


def lock_path(session: Session) -> Path:
    """Where the lock of a recipe is kept: beside its file, or in the working directory."""
    return session.recipe.directory / lock.FILE_NAME


def run_session(
    session: Session,
    heard: Sequence[Listener] = (),
    *,
    jobs: int | None = None,
    step_timeout: float | None = None,
    device: str = "auto",
) -> Run:
    """Run a checked recipe; see `run`."""
    current = session.current_run()
    if current is not None:
        _raise_if_refused(current)
        return current
    spec = session.recipe
    data = RunData(
        id=run_id(spec.name),
        recipe=spec.name,
        recipe_file=str(spec.path or ""),
        seed=spec.seed,
        started=now(),
        environment=provenance.environment() | {"environments": lock.environment_versions(session.plan)},
        steps=[StepResult(step.id, step.stage.name, step.component.name) for step in _planned_steps(session.plan)],
    )
    history = session.history()
    record = create_run(session.store, data)
    changes = "".join(f"# --set {name}={json.dumps(value, default=str)}\n" for name, value in session.overrides.items())
    with (
        disk_errors(session.store.root, REMEDY),
        record.lock(),
        # What is no Unicode (a file's name may be none) becomes a JSON escape.
        (record.path / "events.jsonl").open("a", encoding="utf-8", errors="backslashreplace") as log,
        terminated_as_interrupt(),
        Pool(
            record.path / "logs", jobs=jobs or available_cores(), local_plugins=session.local, timeout=step_timeout
        ) as pool,
    ):
        (record.path / "recipe.yaml").write_text(changes + spec.text, encoding="utf-8")
        (record.path / lock.FILE_NAME).write_text(lock.lock_of(session.plan).to_json(), encoding="utf-8")
        write = _write_to(log, session.store.root)
        tell = _with_hooks(session.plan.registry, record, listeners(write, *heard))
        runner = Runner(session.plan, session.store, record, pool, history=history, listen=tell, device=device)
        runner.execute()
    return record


def _planned_steps(plan: Plan) -> list[Any]:
    return list({step.id: step for node in plan.nodes for step in node.parts}.values())


def _raise_if_refused(run: Run) -> None:
    refused = [gate for gate in run.gates if not gate.passed]
    if refused:
        raise GateRefused(
            "\n".join(f"{gate.step}: {gate.reason}" for gate in refused),
            f"Nothing changed since the run {run.id}, which was refused.",
        )


def _write_to(log: Any, root: Path) -> Listener:
    def write(event: Event) -> None:
        with disk_errors(root, REMEDY):
            log.write(event.to_json() + "\n")
            log.flush()

    return write


def _with_hooks(registry: Registry, record: Run, tell: Listener) -> Listener:
    """Tell the plugins' lifecycle hooks as well; an error in one is told, and stops nothing."""

    def told(event: Event) -> None:
        tell(event)
        hook = f"luthier_{event.type}"
        if not hasattr(hookspecs, hook):
            return
        for plugin, error in registry.notify(hook, run=record, event=event):
            tell(PluginHookFailed(plugin=plugin, hook=hook, error=f"{type(error).__name__}: {error}"))

    return told
