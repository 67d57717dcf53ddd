"""Executes a checked recipe as a run: its record, its log, what is told of it, and the environments it needs."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from luthier import environments, lock, provenance
from luthier.errors import GateRefused, LuthierError
from luthier.events import Listener, listeners
from luthier.files import REMEDY, disk_errors
from luthier.interrupts import terminated_as_interrupt
from luthier.lifecycle import log_of, with_hooks, write_to
from luthier.plans import Plan
from luthier.pool import Pool, available_cores
from luthier.runner import Runner
from luthier.runrecord import RunData, StepResult
from luthier.runs import Run, create_run, now, run_id
from luthier.sessions import Session


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
        champion=session.plan.champion.given if session.plan.champion else "",
        unjudged=session.plan.unjudged,
        evaluates=session.plan.evaluates,
        steps=[StepResult(step.id, step.stage.name, step.component.name) for step in session.steps],
    )
    history = session.history()
    record = create_run(session.store, data)
    changes = "".join(f"# --set {name}={json.dumps(value, default=str)}\n" for name, value in session.overrides.items())
    with (
        disk_errors(session.store.root, REMEDY),
        record.lock(),
        log_of(record) as log,
        terminated_as_interrupt(),
        Pool(
            record.path / "logs", jobs=jobs or available_cores(), local_plugins=session.local, timeout=step_timeout
        ) as pool,
    ):
        (record.path / "recipe.yaml").write_text(changes + spec.text, encoding="utf-8")
        (record.path / lock.FILE_NAME).write_text(lock.lock_of(session.plan).to_json(), encoding="utf-8")
        write = write_to(log, session.store.root)
        tell = with_hooks(session.plan.registry, record, listeners(write, *heard))
        runner = Runner(session.plan, session.store, record, pool, history=history, listen=tell, device=device)
        runner.execute()
    return record


def _raise_if_refused(run: Run) -> None:
    refused = [gate for gate in run.gates if not gate.passed]
    if refused:
        raise GateRefused(
            "\n".join(f"{gate.step}: {gate.reason}" for gate in refused),
            f"Nothing changed since the run {run.id}, which was refused.",
            run=run.id,
        )


def run_shown(session: Session, heard: Sequence[Listener] = (), **options: Any) -> Run:
    """Run with a display, which at the end says what came out of it, however it ended."""
    from luthier.display import show

    with show() as display:
        try:
            run = run_session(session, [*heard, display], **options)
        except (LuthierError, KeyboardInterrupt) as error:
            ended = error.run if isinstance(error, GateRefused) else display.run
            if ended:
                display.tell_outcome(Run.at(session.store.runs / ended))
            raise
        display.tell_outcome(run)
        return run
