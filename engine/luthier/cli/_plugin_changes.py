"""`luthier plugins install`, `uninstall` and `new`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from luthier.cli._dispatch import Command
from luthier.cli._options import FindLinksOption, JsonOption, NoIndexOption, registry_here
from luthier.cli._output import print_json, warn
from luthier.cli._plugin_state import describe_plugin
from luthier.errors import InputError
from luthier.options import YesOption, confirm

if TYPE_CHECKING:
    from luthier.installing import Plan
    from luthier.plugins import Registry
    from luthier.scaffold import Naming

INSTALL_EXAMPLES = """
Examples:

\b
  luthier plugins install luthier-optimum
  luthier plugins install ./luthier-shout --yes
  luthier plugins install luthier-shout --find-links ./wheels --no-index
  luthier plugins install luthier-shout --json     what would change; nothing is changed
"""
UNINSTALL_EXAMPLES = """
Example:

\b
  luthier plugins uninstall luthier-shout
"""
NEW_EXAMPLES = """
Examples:

\b
  luthier plugins new shout --stage cleaner
  luthier plugins new shout --stage cleaner --single-file

STAGE is a stage's name in recipes, or what it is made of: clean, cleaner, cleaners. Stages that plugins add count too.
"""


def add_to(app: typer.Typer) -> None:
    """Add the commands to the group."""
    app.command(cls=Command, epilog=INSTALL_EXAMPLES)(install)
    app.command(cls=Command, epilog=UNINSTALL_EXAMPLES)(uninstall)
    app.command(cls=Command, epilog=NEW_EXAMPLES)(new)


def install(
    names: Annotated[
        list[str], typer.Argument(metavar="NAME…", help="Distributions, as pip takes them: names, files, URLs.")
    ],
    *,
    upgrade: Annotated[bool, typer.Option("--upgrade", "-U", help="Upgrade what is installed already.")] = False,
    find_links: FindLinksOption = [],  # noqa: B006 - typer copies it
    no_index: NoIndexOption = False,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Install plugins with pip into the running environment, after showing what changes.

    A plugin is code that you trust: it runs with your rights as soon as it is installed. What is no plugin is
    refused. With --json and without --yes nothing is changed.
    """
    from luthier import installing
    from luthier.environment_build import Sources

    sources = Sources(tuple(find_links), no_index)
    plan = installing.plan_install(names, sources=sources, upgrade=upgrade)
    if not _agreed(plan, "install", yes=yes, as_json=as_json):
        return
    if plan.changes:
        installing.install(names, plan, sources=sources, upgrade=upgrade)
    came = _came(plan)
    if as_json:
        print_json({**_as_json(plan), "applied": True, **came})
        return
    _tell_what_came(plan, came)


def uninstall(
    names: Annotated[list[str], typer.Argument(metavar="NAME…", help="Plugins, or their distributions.")],
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Uninstall plugins with pip; what they required stays.

    With --json and without --yes nothing is changed.
    """
    from luthier import environments, installing

    plan = installing.plan_uninstall(names)
    if not _agreed(plan, "uninstall", yes=yes, as_json=as_json):
        return
    installing.uninstall(plan)
    if as_json:
        print_json({**_as_json(plan), "applied": True})
        return
    typer.echo(f"uninstalled {', '.join(change.name for change in plan.changes)}")
    gone = {change.name for change in plan.changes}
    for name in sorted({each.manifest.plugin for each in environments.environments() if each.manifest} & gone):
        typer.echo(f"its environment is kept; to remove it: luthier env rm {name}")


def new(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The plugin's name, and its component's.")],
    stage: Annotated[str, typer.Option("--stage", metavar="STAGE", help="What it is: cleaner, tuner, validator, …")],
    single_file: Annotated[
        bool, typer.Option("--single-file", help="Write plugins.d/NAME.py alone, which needs no installing.")
    ] = False,
) -> None:
    """Write a new plugin with one working component, to change into yours. Nothing is ever overwritten."""
    from luthier import scaffold

    registry = registry_here([])
    found = scaffold.find_stage(stage, registry.stages)
    plugin = scaffold.Naming.of(name)
    _refuse_clashes(registry, plugin, found.label)
    written = scaffold.write(plugin, found, Path(), single_file=single_file, added=registry.added_stages)
    for path in written:
        typer.echo(f"wrote {path}")
    if single_file:
        typer.echo("next: luthier plugins list")
    else:
        typer.echo(f"next: cd {Path(name)}, then pip install --group dev --editable ., pytest, luthier plugins list")


def _refuse_clashes(registry: Registry, plugin: Naming, stage: str) -> None:
    """Two plugins of one name are both left out, so the second is better not written."""
    other = next((each for each in registry.plugins if each.name == plugin.plugin), None)
    if other:
        raise InputError(f"{other.distribution} is a plugin of the name {plugin.plugin!r}", "Choose another name.")
    clash = next((each for each in registry.named(f"{stage}:{plugin.component}")), None)
    if clash:
        raise InputError(f"{clash.distribution} gives {clash} already", "Choose another name.")


# --- showing a change ---------------------------------------------------------------------------------


def _agreed(plan: Plan, verb: str, *, yes: bool, as_json: bool) -> bool:
    """Show the plan and ask; False where only the plan was asked for."""
    if as_json:
        if not yes:
            print_json({**_as_json(plan), "applied": False})
        return yes
    if not plan.changes:
        typer.echo("nothing changes: what was named is installed (--upgrade looks for newer versions)")
        return True
    for change in plan.changes:
        typer.echo(f"  {change.action:<10} {change.name} {_versions(change.before, change.after)}")
    _tell_breaks(plan)
    if not yes:
        confirm(f"{verb}?".capitalize(), default=not plan.breaks)
    return True


def _versions(before: str, after: str) -> str:
    return f"{before} -> {after}" if before and after and before != after else after or before


def _tell_breaks(plan: Plan) -> None:
    for each in plan.breaks:
        there = f"would be {each.found}" if each.found else "would be gone"
        message = f"{each.distribution} {each.version} requires {each.requirement}, which {there}"
        if each.needed:
            typer.secho("BREAKS: ", err=True, fg="red", bold=True, nl=False)
            typer.echo(f"{message}; Luthier or a plugin needs {each.distribution}", err=True)
        else:
            warn(message)
    if any(each.needed for each in plan.breaks):
        typer.echo(
            "  A plugin whose requirements conflict can have an environment of its own, if its author names them "
            "under the extra `environment`.",
            err=True,
        )


def _as_json(plan: Plan) -> dict[str, Any]:
    return {
        "changes": [
            {"name": each.name, "before": each.before, "after": each.after, "action": each.action}
            for each in plan.changes
        ],
        "breaks": [
            {
                "distribution": each.distribution,
                "version": each.version,
                "requirement": each.requirement,
                "found": each.found,
                "needed": each.needed,
            }
            for each in plan.breaks
        ],
    }


# --- what came ----------------------------------------------------------------------------------------


def _came(plan: Plan) -> dict[str, Any]:
    """Of `luthier plugins list --json` what the plan's distributions give.

    Asked in a new process: this one has the modules and the metadata of before.
    """
    from luthier.distributions import normalized

    done = subprocess.run(
        [sys.executable, "-m", "luthier.cli", "plugins", "list", "--json"],
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    if done.returncode:
        raise InputError(f"installed, but luthier does not start any more:\n{done.stderr.strip()}", _undo(plan))
    names = {change.name for change in plan.changes}
    listing: dict[str, list[dict[str, Any]]] = json.loads(done.stdout)
    return {
        kind: [each for each in listing[kind] if normalized(each["distribution"]) in names]
        for kind in ("plugins", "components", "broken")
    }


def _undo(plan: Plan) -> str:
    back = [f"{change.name}=={change.before}" for change in plan.changes if change.before]
    away = [change.name for change in plan.changes if not change.before]
    commands = [f"pip install {' '.join(back)}"] if back else []
    return "To go back: " + "; ".join([*commands, *([f"pip uninstall {' '.join(away)}"] if away else [])])


def _tell_what_came(plan: Plan, came: dict[str, Any]) -> None:
    for each in came["components"]:
        typer.echo(f"{each['stage']}:{each['name']}  {each['summary']}")
    giving = {each["distribution"] for each in came["components"]}
    for each in came["plugins"]:
        if each["distribution"] not in giving:
            typer.echo(f"{each['name']}  {describe_plugin(each)}")
    for each in came["broken"]:
        warn(f"the plugin {each['name']} is broken: {each['error']}", f"luthier plugins doctor {each['name']}")
    for distribution in dict.fromkeys(each["distribution"] for each in came["plugins"] if each["environment"]):
        typer.echo(f"{distribution} runs in an environment of its own; build it: luthier env build {distribution}")
