"""What the command line and notebooks call: plan a recipe, run it, look at runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from luthier import lock, runs
from luthier.events import Listener
from luthier.execution import lock_path, missing_environments, prepare_environments, run_session, run_shown
from luthier.keys import PlannedNodes
from luthier.runs import LATEST, Run, list_runs
from luthier.sessions import Recipe, Session, open_session, open_store

if TYPE_CHECKING:
    from luthier.artifacts import Model, OnnxModel

__all__ = [
    "Recipe",
    "Session",
    "find_model",
    "find_run",
    "list_runs",
    "lock_path",
    "missing_environments",
    "open_session",
    "open_store",
    "plan",
    "prepare_environments",
    "run",
    "run_session",
]


def find_model(name: str, *, home: Path | str | None = None) -> Model | OnnxModel:
    """The model that a name stands for: `path/to/model`, `hf:org/name`, `latest`, `latest:lora`, `lora`, `champion`.

    Args:
        name: a directory; a location as in recipes; a run's id, a unique beginning of it, or `latest`, for its newest
            model; `RUN:STEP`, or the id of a step of the latest run; `champion` or
            `champion:NAME`, or with `:STEP` a step of the run that made it.
        home: the store; `LUTHIER_HOME`, else `.luthier` in the current directory, if None.

    Raises:
        InputError: if it is none of them, or holds no model.
    """
    from luthier.adhoc import find_model as find

    return cast("Model", find(name, open_store(Path.cwd(), home)))


def find_run(name: str = LATEST, *, home: Path | str | None = None) -> Run:
    """A run by its id, a unique beginning of it, `latest`, or `champion` (`champion:NAME`) for the one that made it.

    Args:
        name: which run.
        home: the store; `LUTHIER_HOME`, else `.luthier` in the current directory, if None.

    Raises:
        InputError: with the closest ids.
    """
    return runs.find_run(open_store(Path.cwd(), home), name)


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
    do = run_shown if display else run_session
    return do(session, [listen] if listen else [], jobs=jobs, step_timeout=step_timeout, device=device)
