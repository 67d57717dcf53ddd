"""`luthier doctor`: what this installation is, and what is wrong with it."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from luthier.cli._dispatch import Command
from luthier.cli._options import JsonOption, registry_here, store_here
from luthier.cli._output import format_bytes, print_json, warn
from luthier.cli._plugin_commands import with_commands
from luthier.cli._plugin_state import component_problems, environment_problems, environment_state
from luthier.options import HomeOption, PluginOption

if TYPE_CHECKING:
    from luthier.plugins import Registry

ROOM = 2_000_000_000
"""Bytes below which a store is likely to fill up: a small model, tuned and exported, takes about as much."""

TOOLS = {"pip": "fetches wheel: locations"}


def add_to(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command(cls=Command)(doctor)


def doctor(plugins: PluginOption = [], home: HomeOption = None, as_json: JsonOption = False) -> None:  # noqa: B006
    """Show the machine, the store and the plugins, and say what is wrong and how to mend it.

    Exit code 1 if something is.
    """
    registry = with_commands(registry_here(plugins))
    facts = {**_machine(), "store": _store(home), "tools": _tools(), "plugins": _plugins(registry)}
    facts["problems"] = _problems(facts, registry)
    if as_json:
        print_json(facts)
    else:
        _print(facts)
    if facts["problems"]:
        raise typer.Exit(1)


def _machine() -> dict[str, Any]:
    from luthier import __version__
    from luthier.pool import available_cores

    total, available = _memory()
    return {
        "luthier": __version__,
        "python": platform.python_version(),
        "executable": sys.executable,
        "platform": platform.platform(),
        "cores": available_cores(),
        "memory": {"total": total, "available": available},
    }


def _memory() -> tuple[int | None, int | None]:
    """The bytes of memory in all and available; None where the system does not tell."""
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        page = os.sysconf("SC_PAGE_SIZE")
        free = os.sysconf("SC_AVPHYS_PAGES") * page if "SC_AVPHYS_PAGES" in os.sysconf_names else None
        return os.sysconf("SC_PHYS_PAGES") * page, _available_on_linux() or free
    return None, None


def _available_on_linux() -> int | None:
    # SC_AVPHYS_PAGES leaves out what the page cache would give back.
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), None)


def _store(home: Path | None) -> dict[str, Any]:
    root = store_here(home).root
    place = next(path for path in (root, *root.parents) if path.exists())
    return {
        "path": str(root),
        "exists": root.exists(),
        "writable": os.access(place, os.W_OK),
        "free": shutil.disk_usage(place).free,
    }


def _tools() -> dict[str, str | None]:
    from importlib.util import find_spec

    # What we run is `python -m pip`, whether or not a pip is on the PATH.
    return {"pip": f"{sys.executable} -m pip" if find_spec("pip") else None}


def _plugins(registry: Registry) -> dict[str, Any]:
    return {
        "loaded": [
            {
                "name": plugin.name,
                "distribution": plugin.distribution,
                "version": plugin.version,
                "environment": environment_state(plugin.distribution),
            }
            for plugin in registry.plugins
        ],
        "blocked": list(registry.blocked),
        "broken": [
            {
                "name": each.name,
                "distribution": each.distribution,
                "version": each.version,
                "origin": each.origin,
                "error": each.error,
                "remedy": each.remedy,
            }
            for each in registry.broken
        ],
    }


def _problems(facts: dict[str, Any], registry: Registry) -> list[dict[str, str]]:
    store = facts["store"]
    problems = [
        {"problem": f"the plugin {broken.name} is broken: {broken.error}", "remedy": broken.remedy}
        for broken in registry.broken
    ]
    hidden = [problem for each in registry.components for problem in component_problems(each)]
    hidden += [*environment_problems(registry), *_unmet()]
    problems += [{"problem": problem, "remedy": remedy} for problem, remedy in hidden]
    if not store["writable"]:
        problems.append({"problem": f"{store['path']} cannot be written", "remedy": "Set LUTHIER_HOME, or use --home."})
    if store["free"] < ROOM:
        problems.append(
            {
                "problem": f"the store's disk has only {format_bytes(store['free'])} left",
                "remedy": "Free some: luthier store gc --keep-runs 3; or set LUTHIER_HOME.",
            }
        )
    if not facts["tools"]["pip"]:
        problems.append({"problem": "pip is missing, which fetches wheel: locations", "remedy": "python -m ensurepip"})
    return problems


def _unmet() -> list[tuple[str, str]]:
    """The requirements of Luthier and its plugins that do not hold, each with what mends it."""
    from luthier.installing import unmet

    return [
        (
            f"{each.distribution} {each.version} requires {each.requirement}, which is {each.found or 'not installed'}",
            f'pip install "{each.requirement.partition(";")[0].strip()}"',
        )
        for each in unmet()
    ]


def _print(facts: dict[str, Any]) -> None:
    memory = facts["memory"]
    store = facts["store"]
    told = {
        "luthier": facts["luthier"],
        "python": f"{facts['python']}  {facts['executable']}",
        "platform": facts["platform"],
        "cores": facts["cores"],
        "memory": " of ".join(
            format_bytes(memory[name]) + (" available" if name == "available" else "")
            for name in ("available", "total")
            if memory[name]
        )
        or "unknown",
        "store": f"{store['path']}  {format_bytes(store['free'])} free"
        + ("" if store["exists"] else "  (not made yet)"),
        **{name: f"{path or 'not found'}  ({TOOLS[name]})" for name, path in facts["tools"].items()},
    }
    for name, value in told.items():
        typer.echo(f"{name:<9} {value}")
    loaded = [f"{plugin['name']} {plugin['version']}".strip() for plugin in facts["plugins"]["loaded"]]
    typer.echo(f"{'plugins':<9} {', '.join(loaded) or 'none'}")
    own = [f"{each['name']} ({each['environment']})" for each in facts["plugins"]["loaded"] if each["environment"]]
    if own:
        typer.echo(f"{'own env':<9} {', '.join(own)}")
    if facts["plugins"]["blocked"]:
        typer.echo(f"{'blocked':<9} {', '.join(facts['plugins']['blocked'])}")
    for problem in facts["problems"]:
        warn(problem["problem"], problem["remedy"])
    if not facts["problems"]:
        typer.echo("everything is in order")
