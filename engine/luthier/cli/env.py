"""`luthier env`: environments of their own, for plugins whose requirements conflict with the main one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from luthier.cli._dispatch import Command, command_group
from luthier.cli._options import FindLinksOption, JsonOption, NoIndexOption
from luthier.cli._output import format_bytes, print_json, print_table
from luthier.errors import InputError

if TYPE_CHECKING:
    from luthier.environments import Environment

app = command_group("Build and look after the environments of plugins whose requirements conflict.")

BUILD_EXAMPLES = """
Examples:

\b
  luthier env build luthier-optimum
  luthier env build luthier-optimum --find-links ./wheels --no-index
"""

PluginArgument = Annotated[
    str, typer.Argument(metavar="DISTRIBUTION", help="The plugin's distribution, as pip knows it.")
]
OptionalPlugin = Annotated[
    str | None, typer.Argument(metavar="[DISTRIBUTION]", help="Only this plugin's.", show_default=False)
]


@app.command(cls=Command, epilog=BUILD_EXAMPLES)
def build(
    distribution: PluginArgument,
    find_links: FindLinksOption = [],  # noqa: B006 - typer copies it
    no_index: NoIndexOption = False,
    rebuild: Annotated[bool, typer.Option("--rebuild", help="Build it again although it is sound.")] = False,
) -> None:
    """Build a plugin's environment; what it shares with the main environment is linked, not copied.

    Where distributions come from is what pip is set to. The main environment is not changed. It
    separates versions, not privileges: a plugin is code that you trust.
    """
    from luthier.environment_build import Sources
    from luthier.environment_build import build as build_environment

    sources = Sources(tuple(find_links), no_index)
    environment = build_environment(distribution, sources=sources, rebuild=rebuild, tell=typer.echo)
    assert environment.manifest is not None
    manifest = environment.manifest
    typer.echo(
        f"{manifest.plugin}: {len(manifest.linked)} distributions shared, {len(manifest.installed)} of its own "
        f"({format_bytes(manifest.own_bytes)}), {environment.path}"
    )


@app.command("list", cls=Command)
def list_(as_json: JsonOption = False) -> None:
    """List the environments, and why one must be built again."""
    from luthier import environments

    found = [(each, environments.staleness(each)) for each in environments.environments()]
    if as_json:
        print_json({"environments": [_listed(each, reasons) for each, reasons in found]})
        return
    if not found:
        typer.echo("no environments are built; `luthier plugins list` shows which plugins need one", err=True)
        return
    rows = [
        (
            each.manifest.plugin if each.manifest else each.path.name,
            format_bytes(each.manifest.own_bytes) if each.manifest else "?",
            str(each.path),
            _state(each, reasons),
        )
        for each, reasons in found
    ]
    print_table(["PLUGIN", "OWN SIZE", "PATH", "STATE"], rows)


@app.command(cls=Command)
def check(distribution: OptionalPlugin = None, as_json: JsonOption = False) -> None:
    """Compare environments with what they were built from, and every file with its hash; find what was added.

    Exit code 1 if one must be built again.
    """
    from luthier import environments
    from luthier.environment_damage import damage

    found = _named(distribution)
    if distribution and not found:
        environments.require(distribution)
    checked = [(each, environments.staleness(each) + damage(each)) for each in found]
    if as_json:
        print_json({"environments": [_listed(each, problems) for each, problems in checked]})
    else:
        for each, problems in checked:
            typer.echo(f"{each.path}: {'sound' if not problems else ''}")
            for problem in problems:
                typer.echo(f"  {problem}")
            if problems:
                typer.echo(f"  build it again: luthier env build {each.plugin} --rebuild")
            if not each.manifest:
                typer.echo("  or remove it: luthier env rm --stale")
    if any(problems for _, problems in checked):
        raise typer.Exit(1)


@app.command(cls=Command)
def rm(
    distribution: OptionalPlugin = None,
    stale: Annotated[
        bool, typer.Option("--stale", help="Remove all that are out of date or were left unfinished.")
    ] = False,
) -> None:
    """Remove a plugin's environments, or those that are out of date."""
    from luthier import environments
    from luthier.environment_build import remove

    if not distribution and not stale:
        raise InputError("nothing is named to remove", "Name a plugin's distribution, or use --stale.")
    found = [each for each in _named(distribution) if not stale or environments.staleness(each)]
    for each in found:
        remove(each)
        typer.echo(f"removed {each.path}")
    if not found:
        typer.echo("nothing to remove")


def _named(distribution: str | None) -> list[Environment]:
    from luthier import environments
    from luthier.distributions import normalized

    name = normalized(distribution) if distribution else ""
    return [each for each in environments.environments() if not name or each.plugin == name]


def _state(environment: Environment, reasons: list[str]) -> str:
    from luthier.environments import of_this_main

    if not of_this_main(environment):
        return f"of another main environment, {environment.manifest.parent}" if environment.manifest else "unfinished"
    return f"out of date: {'; '.join(reasons)}" if reasons else "sound"


def _listed(environment: Environment, problems: list[str]) -> dict[str, Any]:
    manifest = environment.manifest
    return {
        "plugin": manifest.plugin if manifest else "",
        "path": str(environment.path),
        "parent": manifest.parent if manifest else "",
        "linked": {name: version for name, (version, _) in manifest.linked.items()} if manifest else {},
        "installed": {name: version for name, (version, _) in manifest.installed.items()} if manifest else {},
        "own_bytes": manifest.own_bytes if manifest else 0,
        "created": manifest.created if manifest else "",
        "problems": problems,
    }
