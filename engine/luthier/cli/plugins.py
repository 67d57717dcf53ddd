"""`luthier plugins`: what is installed, what each component takes, and one component by itself."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from luthier.cli import _plugin_changes
from luthier.cli._component import ComponentGroup
from luthier.cli._dispatch import Command, command_group
from luthier.cli._options import JsonOption, registry_here
from luthier.cli._output import print_json, print_table
from luthier.cli._plugin_commands import with_commands
from luthier.cli._plugin_state import (
    commands_alone,
    describe_plugin,
    environment_problems,
    examine,
    find_component,
    loaded,
    tell,
)
from luthier.options import PluginOption

if TYPE_CHECKING:
    from luthier.components import Component
    from luthier.plugins import Broken, Registry

app = command_group("Install, write, list, show and try plugins and their components.")

LIST_EXAMPLES = """
Examples:

\b
  luthier plugins list
  luthier plugins list --stage clean
  luthier plugins list --plugin shout.py --json
"""
DOCTOR_EXAMPLES = """
Examples:

\b
  luthier plugins doctor
  luthier plugins doctor luthier-shout --json
"""
SHOW_EXAMPLES = """
Examples:

\b
  luthier plugins show near-duplicates
  luthier plugins show validate:perplexity --json
"""
RUN_EXAMPLES = """
Examples:

\b
  luthier plugins run unicode --input data.jsonl --output out.parquet
  luthier plugins run near-duplicates --help
  luthier plugins run shout --plugin shout.py --input data.jsonl --output out.jsonl --max-capitals 0.2

A parameter that has the name of one of our options (input, output, seed, json, help, plugin) is given with the
prefix config-: --config-seed. A component whose plugin declares an environment of its own runs there, once that
is built: luthier env build DISTRIBUTION.
"""


@app.command("list", cls=Command, epilog=LIST_EXAMPLES)
def list_(
    stage: Annotated[str | None, typer.Option(metavar="STAGE", help="Only this stage's components.")] = None,
    plugins: PluginOption = [],  # noqa: B006 - typer copies it
    as_json: JsonOption = False,
) -> None:
    """List the components of the plugins that are installed or in ./plugins.d, the other plugins, and the broken."""
    registry = with_commands(registry_here(plugins))
    components = [each for each in registry.components if stage in (None, stage_name(each))]
    facts = {plugin["name"]: plugin for plugin in loaded(registry)}
    if as_json:
        print_json(
            {
                "components": [_listed(each, facts[each.plugin]) for each in components],
                "broken": [_broken(each) for each in registry.broken],
                "plugins": [*facts.values(), *commands_alone(registry)],
            }
        )
        return
    if components:
        rows = [
            (
                stage_name(each),
                each.name,
                _short(each.distribution),
                each.version,
                _origin(facts[each.plugin]),
                each.summary,
            )
            for each in components
        ]
        print_table(["STAGE", "NAME", "DISTRIBUTION", "VERSION", "FROM", "SUMMARY"], rows)
    giving = {each.plugin for each in registry.components}
    others = [each for each in facts.values() if each["name"] not in giving] + commands_alone(registry)
    if others and not stage:
        typer.echo("\nplugins without components:" if components else "plugins without components:")
        given = [
            (each["name"], _short(each["distribution"]), each["version"], _origin(each), describe_plugin(each))
            for each in others
        ]
        print_table(["NAME", "DISTRIBUTION", "VERSION", "FROM", "GIVES"], given)
    elif not components:
        typer.echo(_none(stage, registry), err=True)
    for problem, remedy in environment_problems(registry):
        typer.secho(f"\n{problem}", fg="yellow")
        typer.echo(f"  {remedy}")
    for broken in registry.broken:
        typer.secho(f"\nbroken: {broken.name} ({_giver(broken)})", fg="red")
        typer.echo(f"  {broken.error}\n  {broken.remedy}")


@app.command("doctor", cls=Command, epilog=DOCTOR_EXAMPLES)
def doctor(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="Only this plugin, distribution, component or command.")
    ] = None,
    plugins: PluginOption = [],  # noqa: B006
    as_json: JsonOption = False,
) -> None:
    """Say of each plugin whether it loads, its hooks, components and environment; of a broken one the traceback.

    Of each component the parameters are looked at too: their types, and whether their defaults are allowed.
    Exit code 1 if something is wrong. A plugin that ends the whole process while it is imported, below
    Python (a crash in C, os._exit), ends this command too: LUTHIER_DISABLE=NAME leaves it out.
    """
    found = examine(with_commands(registry_here(plugins)), name)
    if as_json:
        print_json({"plugins": found})
    else:
        for each in found:
            tell(each)
        if not found:
            typer.echo("no plugins are installed", err=True)
    if any(each["error"] for each in found):
        raise typer.Exit(1)


@app.command(cls=Command, epilog=SHOW_EXAMPLES)
def show(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A component, or STAGE:NAME.")],
    plugins: PluginOption = [],  # noqa: B006
    as_json: JsonOption = False,
) -> None:
    """Show a component: its parameters with types and defaults, its description, an example step."""
    component = find_component(registry_here(plugins), name)
    if as_json:
        print_json(_shown(component))
        return
    from luthier.schema import example_step

    typer.secho(str(component), bold=True, nl=False)
    typer.echo(f"  {component.distribution} {component.version}".rstrip())
    typer.echo(f"takes {', '.join(component.inputs) or 'nothing'}; gives {_gives(component)}\n")
    typer.echo(f"{component.doc}\n")
    rows = [(entry["name"], entry["type"], _default(entry)) for entry in _parameters(component)]
    if rows:
        print_table(["PARAMETER", "TYPE", "DEFAULT"], rows)
    else:
        typer.echo("no parameters")
    typer.echo(f"\n{example_step(component)}")


_plugin_changes.add_to(app)
run = command_group("Run one component by itself on the rows of a file, its parameters as options.", cls=ComponentGroup)
app.add_typer(run, name="run", epilog=RUN_EXAMPLES)


@run.callback()
def _run(plugins: PluginOption = []) -> None:  # noqa: B006
    """Run one component by itself on the rows of a file, its parameters as options."""


def stage_name(component: Component) -> str:
    """The stage's name as people know it: one that recipes do not list as a step has none of its own."""
    return component.stage.label


def _origin(plugin: Mapping[str, Any]) -> str:
    """Where a component comes from, in a few words; where it runs, if that is elsewhere."""
    state = plugin["environment"]
    if state is None:
        return str(plugin["origin"])
    return "own environment" if state == "built" else f"own environment ({state})"


def _listed(component: Component, plugin: Mapping[str, Any]) -> dict[str, str | None]:
    return {**_identity(component), "origin": plugin["origin"], "environment": plugin["environment"]}


def _identity(component: Component) -> dict[str, str]:
    return {
        "stage": stage_name(component),
        "name": component.name,
        "distribution": component.distribution,
        "version": component.version,
        "summary": component.summary,
    }


def _broken(broken: Broken) -> dict[str, str]:
    return {
        "name": broken.name,
        "distribution": broken.distribution,
        "version": broken.version,
        "origin": broken.origin,
        "error": broken.error,
        "remedy": broken.remedy,
    }


def _giver(broken: Broken) -> str:
    """Whose it is, and where that was found."""
    giver = f"{_short(broken.distribution)} {broken.version}".strip() or "not installed"
    return f"{giver}, {broken.origin}" if broken.origin else giver


def _short(distribution: str) -> str:
    """A local plugin's distribution is its path; near the current directory it is shown from there."""
    path = Path(distribution)
    return os.path.relpath(path) if path.is_absolute() and path.is_relative_to(Path.cwd()) else distribution


def _none(stage: str | None, registry: Registry) -> str:
    if stage is None or not registry.components:
        return "no components are installed; for those of Luthier: pip install 'luthier[standard]'"
    stages = dict.fromkeys(stage_name(each) for each in registry.components)
    return f"no component of the stage {stage!r} is installed; there are: {', '.join(stages)}"


def _gives(component: Component) -> str:
    form = component.declared.gives
    kind = component.kind or component.stage.given
    if isinstance(form, Mapping):
        return f"{kind} of the form {' or '.join(dict.fromkeys(form.values()))}, by that of its input"
    if form and not isinstance(form, str):
        return f"{kind} of the form that its configuration says"
    return f"{kind} of the form {form}" if form else kind


def _shown(component: Component) -> dict[str, Any]:
    from luthier.schema import example_step

    return {
        **_identity(component),
        "inputs": list(component.inputs),
        "parameters": _parameters(component),
        "doc": component.doc,
        "example": example_step(component),
    }


def _parameters(component: Component) -> list[dict[str, Any]]:
    from luthier.cli._component import describe_type
    from luthier.schema import component_schema

    schema = component_schema(component)
    required = schema.get("required", [])
    return [
        {
            "name": name,
            "type": describe_type(schema, prop),
            "required": name in required,
            "default": prop.get("default"),
            "description": prop.get("description", ""),
        }
        for name, prop in schema.get("properties", {}).items()
    ]


def _default(entry: dict[str, Any]) -> str:
    import json

    return "required" if entry["required"] else json.dumps(entry["default"], ensure_ascii=False)
