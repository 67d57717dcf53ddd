"""Where plugins come from, the state of their environments, and `luthier plugins doctor`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import typer

from luthier.errors import InputError, PluginError
from luthier.suggest import did_you_mean

if TYPE_CHECKING:
    from luthier.cli._plugin_commands import PluginCommand
    from luthier.components import Component
    from luthier.plugins import Broken, Registry

State = Literal["built", "not built", "out of date"]


def environment_state(distribution: str) -> State | None:
    """The state of the environment that a plugin declares; None for a plugin that declares none."""
    from luthier import environments

    if not environments.declares(distribution):
        return None
    sound, reasons = environments.assess(distribution)
    return "built" if sound else "out of date" if reasons else "not built"


def environment_problem(distribution: str) -> tuple[str, str] | None:
    """Why the plugin's steps cannot run, and the command that mends it; None if they can."""
    from luthier import environments

    if environments.declares(distribution):
        try:
            environments.require(distribution)
        except InputError as error:
            return error.message, error.remedy
    return None


def environment_problems(registry: Registry) -> list[tuple[str, str]]:
    """What is wrong with the declared environments: problems with their remedies."""
    distributions = dict.fromkeys(each.distribution for each in registry.plugins)
    return [problem for each in distributions if (problem := environment_problem(each))]


# --- what there is ------------------------------------------------------------------------------------


def loaded(registry: Registry) -> list[dict[str, Any]]:
    """Of each plugin that loaded: where it comes from, its hooks, and the commands of its distribution."""
    commands = _commands(registry)
    return [
        {
            "name": info.name,
            "distribution": info.distribution,
            "version": info.version,
            "origin": info.origin,
            "environment": environment_state(info.distribution),
            "hooks": registry.hooks(info.name),
            "commands": [each.name for each in commands if each.distribution == info.distribution],
        }
        for info in registry.plugins
    ]


def commands_alone(registry: Registry) -> list[dict[str, Any]]:
    """The working commands of distributions that have no plugin besides, in the same form."""
    others = {info.distribution for info in registry.plugins}
    return [
        {
            "name": each.name,
            "distribution": each.distribution,
            "version": each.version,
            "origin": "entry point",
            "environment": None,
            "hooks": [],
            "commands": [each.name],
        }
        for each in _commands(registry)
        if each.distribution not in others
    ]


def _commands(registry: Registry) -> list[PluginCommand]:
    """The commands that are not broken, if the registry knows of those that are."""
    from luthier.cli._plugin_commands import find_commands

    broken = {each.name for each in registry.broken}
    return [each for each in find_commands().values() if f"command {each.name}" not in broken]


def describe_plugin(plugin: Mapping[str, Any]) -> str:
    """A plugin's commands and hooks, in a line."""
    commands = [f"luthier {name}" for name in plugin["commands"]]
    return ", ".join([*commands, *plugin["hooks"]])


def examine(registry: Registry, name: str | None) -> list[dict[str, Any]]:
    """What is known of each plugin, the working ones first, or of those that `name` names.

    Raises:
        InputError: if no plugin, distribution, component or command has that name.
    """
    found = [{**each, **_looked_at(registry, each)} for each in [*loaded(registry), *commands_alone(registry)]]
    found += [_broken(each) for each in registry.broken]
    if name is None:
        return found
    chosen = [
        each
        for each in found
        if name in (each["name"], each["distribution"], *each["components"], *each["commands"])
        or each["name"] == f"command {name}"
    ]
    if chosen:
        return chosen
    refuse_blocked(registry, name)
    known = [known for each in found for known in (each["name"], each["distribution"], *each["commands"])]
    raise InputError(f"no plugin is called {name!r}", did_you_mean(name, known) or "See: luthier plugins list")


def refuse_blocked(registry: Registry, name: str) -> None:
    """Say of a plugin or distribution that was kept from loading by what it was.

    Raises:
        InputError: if it was.
    """
    from luthier.catalogue import UNBLOCK

    by = registry.blocked_by(name)
    if by:
        raise InputError(f"the plugin {name!r} is blocked by {by}", UNBLOCK[by])


def refuse_broken(registry: Registry, name: str) -> None:
    """Say of a name that nothing has which broken plugins it may be of.

    Raises:
        InputError: if a broken plugin has that name, or any is broken and no component has a name like it.
    """
    of_name = [each for each in registry.broken if name in (each.name, each.distribution)]
    if of_name:
        raise InputError(f"the plugin {name!r} is broken: {of_name[0].error}", of_name[0].remedy)
    guess = did_you_mean(name, (each.name for each in registry.components))
    if guess or not registry.broken:
        return
    told = "; ".join(f"{each.name}: {each.error}" for each in registry.broken)
    remedies = "\n".join(f"{each.name}: {each.remedy}" for each in registry.broken)
    raise InputError(f"no component is called {name!r}; it may be of a plugin that is broken ({told})", remedies)


def component_problems(component: Component) -> list[tuple[str, str]]:
    """What is wrong with a component that no listing shows: problems with their remedies.

    Its schema is built, which imports pydantic, and its defaults are validated.
    """
    from luthier.artifacts import DATASET_FORMS
    from luthier.components import ConfigurationError, describe
    from luthier.plugins import one_line

    where = describe(component.function)
    problems = []
    form = component.declared.gives
    if form is None and component.stage.name == "format":
        declare = f'Put `@luthier.component(gives="…")` above it; forms: {", ".join(DATASET_FORMS)}.'
        problems.append((f"{where} does not say which form it gives", declare))
    if isinstance(form, str) and component.stage.gives == "dataset" and form not in DATASET_FORMS:
        problems.append((f"{where} gives the unknown form {form!r}", f"Forms: {', '.join(DATASET_FORMS)}."))
    try:
        component.model.model_json_schema()
        component.configure({})
    except ConfigurationError:
        pass  # what is required is missing, which is right
    except PluginError as error:
        problems.append((error.message, error.remedy))
    except Exception as error:
        problems.append((f"{where} cannot be configured: {one_line(error)}", "Mend the types of its parameters."))
    return problems


def _looked_at(registry: Registry, plugin: Mapping[str, Any]) -> dict[str, Any]:
    """What only a closer look tells of a plugin that works."""
    info = next((each for each in registry.plugins if each.name == plugin["name"]), None)
    components = [each for each in registry.components if info and each.plugin == info.name]
    problems = [problem for each in components for problem in component_problems(each)]
    own = environment_problem(plugin["distribution"])
    problems += [own] if own else []
    return {
        "path": str(info.path) if info and info.path else "",
        "loads": True,
        "components": [str(each) for each in components],
        "error": "; ".join(error for error, _ in problems),
        "traceback": "",
        "remedy": " ".join(dict.fromkeys(remedy for _, remedy in problems)),
    }


def _broken(broken: Broken) -> dict[str, Any]:
    return {
        "name": broken.name,
        "distribution": broken.distribution,
        "version": broken.version,
        "origin": broken.origin,
        "environment": None,
        "hooks": [],
        "commands": [],
        "path": "",
        "loads": False,
        "components": [],
        "error": broken.error,
        "traceback": broken.traceback,
        "remedy": broken.remedy,
    }


def tell(plugin: dict[str, Any]) -> None:
    """Print what is known of one plugin."""
    head = f"{plugin['name']}  {plugin['distribution']} {plugin['version']}".rstrip()
    typer.secho(head, bold=True, fg="red" if plugin["error"] else None)
    if plugin["loads"]:
        where = f"{plugin['origin']}, {plugin['path']}" if plugin["path"] else plugin["origin"]
        facts = {"from": where, "hooks": ", ".join(plugin["hooks"]), "gives": ", ".join(plugin["components"])}
        facts["commands"] = ", ".join(f"luthier {name}" for name in plugin["commands"])
        facts["environment"] = plugin["environment"] or ""
        for label, value in facts.items():
            if value:
                typer.echo(f"  {label:<12}{value}")
    if plugin["traceback"]:
        typer.echo("\n".join(f"  {line}" for line in plugin["traceback"].rstrip().splitlines()))
    if plugin["error"]:
        typer.echo(f"  {plugin['error']}\n  {plugin['remedy']}".rstrip())


def find_component(registry: Registry, name: str) -> Component:
    """The one component that `NAME` or `STAGE:NAME` names.

    Raises:
        InputError: if there is none, or several.
    """
    found = registry.named(name)
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(map(str, found))
        raise InputError(f"several components are called {name!r}", f"Name the stage as well: {names}.")
    known = [each.name for each in registry.components] + [str(each) for each in registry.components]
    stage, _, rest = name.rpartition(":")
    for each in [stage] if stage else _first_party_stages(name):
        registry.find(each, rest)  # says what it knows of a component that is missing
    refuse_blocked(registry, name)
    refuse_broken(registry, name)
    raise InputError(f"no component is called {name!r}", did_you_mean(name, known) or "See: luthier plugins list")


def _first_party_stages(name: str) -> list[str]:
    """The stages of which our own plugins, installed or not, give a component of that name."""
    from luthier.catalogue import FIRST_PARTY

    parts = [each.partition(":") for names in FIRST_PARTY.values() for each in names]
    return [stage for stage, _, component in parts if component == name]
