"""`luthier run`, `luthier plan` and `luthier lock`."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from luthier.cli._dispatch import Command
from luthier.cli._failures import discard_output
from luthier.cli._options import (
    ForceOption,
    FromOption,
    JsonOption,
    OverridesOption,
    RecipeArgument,
    RecipeHomeOption,
    UntilOption,
)
from luthier.cli._output import print_json, print_table, warn
from luthier.errors import GateRefused, InputError, LuthierError
from luthier.options import DeviceOption, PluginOption

if TYPE_CHECKING:
    from luthier.api import Session
    from luthier.events import Event
    from luthier.keys import Planned
    from luthier.plugins import Registry
    from luthier.runs import Run

RUN_EXAMPLES = """
Examples:

\b
  luthier run recipe.yaml
  luthier run recipe.yaml --set lora.rank=8 --set lora.max_minutes=2
  luthier run recipe.yaml --until near-duplicates
  luthier run recipe.yaml --force rouge
  luthier run recipe.yaml --locked
  luthier run recipe.yaml --json | jq -c 'select(.type == "step_finished")'
"""
PLAN_EXAMPLES = """
Examples:

\b
  luthier plan recipe.yaml
  luthier plan recipe.yaml --set lora.rank=8
  luthier plan recipe.yaml --set "lora.rank=[8, 16]"
  luthier plan recipe.yaml --json
"""
LOCK_EXAMPLES = """
Examples:

\b
  luthier lock recipe.yaml && git add luthier.lock
  luthier lock recipe.yaml --output linux.lock
  luthier run recipe.yaml --locked
"""


def add_to(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.command(cls=Command, epilog=RUN_EXAMPLES)(run)
    app.command(cls=Command, epilog=PLAN_EXAMPLES)(plan)
    app.command(cls=Command, epilog=LOCK_EXAMPLES)(lock)


def run(
    recipe: RecipeArgument,
    *,
    overrides: OverridesOption = [],  # noqa: B006 - typer copies it
    until: UntilOption = None,
    start: FromOption = None,
    force: ForceOption = [],  # noqa: B006
    jobs: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Processes for shards.  [default: the number of cores]")
    ] = None,
    step_timeout: Annotated[
        float | None, typer.Option(min=0.1, metavar="S", help="End a step that reports nothing for so many seconds.")
    ] = None,
    device: DeviceOption = "auto",
    build_environments: Annotated[
        bool, typer.Option("--build-environments", help="First build the environments that are missing.")
    ] = False,
    locked: Annotated[
        bool, typer.Option("--locked", help="Refuse other code or versions than luthier.lock beside the recipe names.")
    ] = False,
    lock_file: Annotated[
        Path | None, typer.Option("--lock-file", metavar="FILE", help="As --locked, with another lock.")
    ] = None,
    plugins: PluginOption = [],  # noqa: B006
    home: RecipeHomeOption = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress, only the outcome.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the events as JSON, one a line.")] = False,
) -> None:
    """Run a recipe. Steps whose result is in the store are not done again, so running again resumes.

    Exit code 4 says that everything was measured and a gate refused the result.
    """
    from luthier import api
    from luthier.display import show
    from luthier.events import RunFinished
    from luthier.lock import check_lock
    from luthier.runs import Run

    session = _open(recipe, overrides=overrides, plugins=plugins, home=home, until=until, start=start, force=force)
    api.prepare_environments(session.plan, build=build_environments, tell=lambda line: typer.echo(line, err=True))
    if locked or lock_file:
        check_lock(session.plan, lock_file or api.lock_path(session))
    started: list[str] = []

    def note(event: Event) -> None:
        if event.type == "run_started":
            started.append(event.run)  # type: ignore[attr-defined]

    refusal = None
    print_event = _EventPrinter()
    with contextlib.ExitStack() as stack:
        watching = print_event if as_json else stack.enter_context(show(quiet=quiet))
        try:
            done = api.run_session(session, [note, watching], jobs=jobs, step_timeout=step_timeout, device=device)
        except GateRefused as error:
            refusal, done = error, Run.at(session.store.runs / error.run)
        except (LuthierError, KeyboardInterrupt):
            stack.close()
            if started and not as_json:
                typer.echo(f"{started[0]} ended early; run it again to go on from what is finished", err=True)
            raise
    if as_json:
        if not started:
            print_event(RunFinished(run=done.id, state=done.state, seconds=0.0))
    else:
        _tell_outcome(done, session, nothing_to_do=not started)
    if refusal:
        raise refusal


def plan(
    recipe: RecipeArgument,
    *,
    overrides: OverridesOption = [],  # noqa: B006
    until: UntilOption = None,
    start: FromOption = None,
    force: ForceOption = [],  # noqa: B006
    plugins: PluginOption = [],  # noqa: B006
    home: RecipeHomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check a recipe and show what running it would do: what is cached, what runs, and why."""
    from luthier import api

    session = _open(recipe, overrides=overrides, plugins=plugins, home=home, until=until, start=start, force=force)
    planned = session.resolve()
    if as_json:
        print_json(
            {
                "recipe": session.recipe.name,
                "champion": session.plan.champion.given if session.plan.champion else None,
                "steps": [_planned_record(each) for each in planned],
                "skipped": [
                    {"step": step.id, "metric": bound.metric, "bound": bound.text()}
                    for step, bound in session.plan.skipped
                ],
            }
        )
        return
    print_table(["", "STEP", "COMPONENT", "STATE"], planned.rows())
    for step, bound in session.plan.skipped:
        typer.echo(
            f"- {step.id}: {bound.metric} {bound.text()} is skipped: there is no champion {session.recipe.name!r} yet"
        )
    cached = sum(each.state == "cached" for each in planned)
    options: dict[str, Sequence[object]] = {
        "--set": overrides,
        "--until": [until],
        "--from": [start],
        "--force": force,
        "--plugin": plugins,
    }
    given = [part for name, values in options.items() for value in values if value for part in (name, str(value))]
    given += ["--home", str(home)] if home else []
    command = shlex.join(["luthier", "run", str(recipe), *given])
    typer.echo("\nnothing to do: every step is cached" if cached == len(planned) else f"\nrun it: {command}")
    for distribution, first in api.missing_environments(session.plan).items():
        remedy = f"luthier env build {distribution}, or run it with --build-environments"
        warn(f"{first} runs in the environment of {distribution}, which is not built", remedy)


def lock(
    recipe: RecipeArgument,
    *,
    overrides: OverridesOption = [],  # noqa: B006
    output: Annotated[
        Path | None, typer.Option("--output", metavar="FILE", help="Write it there, for `luthier run --lock-file`.")
    ] = None,
    plugins: PluginOption = [],  # noqa: B006
) -> None:
    """Write luthier.lock beside a recipe: the plugins, their code and the versions that its results come from."""
    from luthier import api
    from luthier.files import disk_errors, write_atomically
    from luthier.lock import lock_of

    session = _open(recipe, overrides=overrides, plugins=plugins)
    api.prepare_environments(session.plan, build=False)
    found, path = lock_of(session.plan), output or api.lock_path(session)
    if path.is_dir() or not path.parent.is_dir():
        what = f"{path} is a directory" if path.is_dir() else f"there is no directory {path.parent}"
        raise InputError(f"the lock cannot be written: {what}", "Name a file in a directory: --output team.lock")
    with disk_errors(path.parent, "Or name another file: --output FILE"):
        write_atomically(path, found.to_json(), path.parent)
    typer.echo(f"{path}: {len(found.plugins)} plugins, {len(found.requirements)} versions of libraries")


def _open(recipe: Path, *, overrides: Sequence[str], plugins: Sequence[Path], **options: Any) -> Session:
    """Check the recipe, and warn of the plugins that were left out: one of them may be what is missing."""
    from luthier.api import open_session
    from luthier.discovery import plugin_files
    from luthier.nodes import RecipeError
    from luthier.plugins import load_plugins
    from luthier.substitution import parse_override

    values = dict(map(parse_override, overrides))
    try:
        session = open_session(recipe, overrides=values, plugins=plugins, **options)
    except RecipeError:
        _warn_of_broken(load_plugins(local=plugin_files(recipe.absolute().parent, plugins)))
        raise
    _warn_of_broken(session.plan.registry)
    return session


def _warn_of_broken(registry: Registry) -> None:
    for broken in registry.broken:
        warn(f"the plugin {broken.name} was left out: {broken.error}", broken.remedy)


# --- plan ---------------------------------------------------------------------------------------------


def _planned_record(planned: Planned) -> dict[str, Any]:
    record = {
        "id": planned.node.id,
        "steps": [{"id": step.id, "component": str(step.component)} for step in planned.node.parts],
        "state": planned.state,
        "why": planned.why,
        "key": planned.key,
    }
    trials = [
        {"candidate": each.label, "budget": each.amount, "state": each.told, "key": each.planned.key}
        for each in planned.trials
    ]
    return record | ({"trials": trials} if trials else {})


# --- run ----------------------------------------------------------------------------------------------


class _EventPrinter:
    """Prints events as JSON lines. A reader that goes away (`| head`) does not end hours of work."""

    def __init__(self) -> None:
        self._read = True

    def __call__(self, event: Event) -> None:
        if not self._read:
            return
        try:
            typer.echo(event.to_json())
        except BrokenPipeError:
            self._read = False
            discard_output()
            warn("nobody reads the events any more; the run goes on", "Its events.jsonl has all of them.")


def _tell_outcome(run: Run, session: Session, *, nothing_to_do: bool) -> None:
    from luthier.display.wording import headline

    typer.echo(headline(run, began=not nothing_to_do))
    print_gates(run)
    if run.report_path.exists():
        typer.echo(f"report: {run.report_path}")
    if run.state == "done" and any(step.kind in ("model", "onnx") and step.artifact for step in run.steps):
        home = "" if _is_default_home(session.store.root) else f" --home {shlex.quote(str(session.store.root))}"
        typer.echo(f'try it: {_this_command()} generate {run.id} "…"{home}')
        formats = [step.config for step in session.recipe.steps if step.stage.name == "format"]
        for prompt in dict.fromkeys(config["prompt"] for config in formats if "prompt" in config):
            typer.echo(f"  with a prompt as it learnt them: {json.dumps(prompt, ensure_ascii=False)}")


def _this_command() -> str:
    """How the user can call luthier again: by its name where the shell finds this one, else by its path."""
    here, found = Path(sys.argv[0]), shutil.which("luthier")
    if found and here.exists() and Path(found).samefile(here):
        return "luthier"
    return shlex.quote(sys.argv[0]) if here.name.startswith("luthier") else "luthier"


def print_gates(run: Run) -> None:
    """One line for each bound: ✓, ✗ or - (skipped), what was measured, what it was held against."""
    from luthier.formatting import gate_mark

    for gate in run.gates:
        mark = gate_mark(passed=gate.passed, skipped=gate.skipped)
        typer.secho(f"{mark} ", fg=None if gate.skipped else "green" if gate.passed else "red", nl=False)
        typer.echo(f"{gate.step}: {gate.reason}")


def _is_default_home(root: Path) -> bool:
    from luthier.sessions import DEFAULT_HOME, HOME_VARIABLE

    if HOME_VARIABLE in os.environ:
        return Path(os.environ[HOME_VARIABLE]).expanduser().absolute() == root
    return root == Path.cwd() / DEFAULT_HOME
