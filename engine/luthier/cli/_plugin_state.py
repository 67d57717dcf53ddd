"""Where plugins come from, the state of their environments, and `luthier plugins doctor`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import typer

from luthier.errors import InputError
from luthier.suggest import did_you_mean

if TYPE_CHECKING:
    from luthier.plugins import Broken, PluginInfo, Registry

State = Literal["built", "not built", "out of date"]


def environment_state(distribution: str) -> State | None:
    """The state of the environment that a plugin declares; None for a plugin that declares none."""
    from luthier import environments

    if not environments.declares(distribution):
        return None
    if environments.current(distribution):
        return "built"
    name = environments.normalized(distribution)
    found = [each.manifest for each in environments.environments() if environments.of_this_main(each)]
    return "out of date" if any(manifest and manifest.plugin == name for manifest in found) else "not built"


def environment_problem(distribution: str) -> tuple[str, str] | None:
    """Why the plugin's steps cannot run, and the command that mends it; None if they can."""
    from luthier import environments

    if environment_state(distribution) in (None, "built"):
        return None
    try:
        environments.require(distribution)
    except InputError as error:
        return error.message, error.remedy
    return None


def environment_problems(registry: Registry) -> list[tuple[str, str]]:
    """What is wrong with the declared environments: problems with their remedies."""
    distributions = dict.fromkeys(each.distribution for each in registry.plugins)
    return [problem for each in distributions if (problem := environment_problem(each))]


def examine(registry: Registry, name: str | None) -> list[dict[str, Any]]:
    """What is known of each plugin, the working ones first, or of those that `name` names.

    Raises:
        InputError: if no plugin, distribution or component has that name.
    """
    found = [_working(registry, info) for info in registry.plugins] + [_broken(each) for each in registry.broken]
    if name is None:
        return found
    chosen = [each for each in found if name in (each["name"], each["distribution"], *each["components"])]
    if chosen:
        return chosen
    if name in registry.blocked:
        raise InputError(f"the plugin {name!r} is blocked", "Look at LUTHIER_PLUGINS and LUTHIER_DISABLE.")
    known = [each[key] for each in found for key in ("name", "distribution")]
    raise InputError(f"no plugin is called {name!r}", did_you_mean(name, known) or "See: luthier plugins list")


def _working(registry: Registry, info: PluginInfo) -> dict[str, Any]:
    problem = environment_problem(info.distribution)
    return {
        "name": info.name,
        "distribution": info.distribution,
        "version": info.version,
        "origin": info.origin,
        "path": str(info.path) if info.path else "",
        "loads": True,
        "hooks": hooks_of(registry, info.name),
        "components": [str(each) for each in registry.components if each.plugin == info.name],
        "environment": environment_state(info.distribution),
        "error": problem[0] if problem else "",
        "traceback": "",
        "remedy": problem[1] if problem else "",
    }


def _broken(broken: Broken) -> dict[str, Any]:
    return {
        "name": broken.name,
        "distribution": broken.distribution,
        "version": broken.version,
        "origin": "",
        "path": "",
        "loads": False,
        "hooks": [],
        "components": [],
        "environment": None,
        "error": broken.error,
        "traceback": broken.traceback,
        "remedy": broken.remedy,
    }


def hooks_of(registry: Registry, plugin: str) -> list[str]:
    """The hooks that a plugin implements, by name."""
    for name, manager in registry._managers:
        if name == plugin:
            callers = manager.get_hookcallers(manager.get_plugin(plugin)) or []
            return sorted(caller.name for caller in callers)
    return []


def tell(plugin: dict[str, Any]) -> None:
    """Print what is known of one plugin."""
    head = f"{plugin['name']}  {plugin['distribution']} {plugin['version']}".rstrip()
    typer.secho(head, bold=True, fg="red" if plugin["error"] else None)
    if plugin["loads"]:
        where = f"{plugin['origin']}, {plugin['path']}" if plugin["path"] else plugin["origin"]
        facts = {"from": where, "hooks": ", ".join(plugin["hooks"]), "gives": ", ".join(plugin["components"])}
        facts["environment"] = plugin["environment"] or ""
        for label, value in facts.items():
            if value:
                typer.echo(f"  {label:<12}{value}")
    if plugin["traceback"]:
        typer.echo("\n".join(f"  {line}" for line in plugin["traceback"].rstrip().splitlines()))
    if plugin["error"]:
        typer.echo(f"  {plugin['error']}\n  {plugin['remedy']}".rstrip())
