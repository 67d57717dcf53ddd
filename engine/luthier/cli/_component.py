"""A component as a command: `luthier plugins run NAME`, its parameters as options made from its schema."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from luthier.cli._dispatch import Command, Group
from luthier.cli._options import local_files, registry_here
from luthier.cli._output import print_json
from luthier.errors import InputError
from luthier.schema import component_schema
from luthier.schema_walk import branches

if TYPE_CHECKING:
    from luthier.components import Component

PLUGIN_FLAG = "--plugin"
OWN_OPTIONS = ("input", "output", "seed", "json", "help", "plugin")
CLASH_PREFIX = "config-"


class ComponentGroup(Group):
    """One command for each component that works on rows, made when it is asked for."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the group's options; --plugin may also stand behind the component's name."""
        named, rest = _take_plugins(args)
        return super().parse_args(ctx, [*named, *rest])

    def list_commands(self, ctx: Any) -> list[str]:
        """The components that work on rows, by name; STAGE:NAME where another one, of any stage, has that name too."""
        components = registry_here(_plugins(ctx)).components
        names = [each.name for each in components]
        rows = [each for each in components if each.stage.gives == "dataset"]
        return [each.name if names.count(each.name) == 1 else str(each) for each in rows]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command that runs a component."""
        from luthier.cli._plugin_state import find_component

        return component_command(find_component(registry_here(_plugins(ctx)), cmd_name), _plugins(ctx))


def _plugins(ctx: Any) -> list[Path]:
    return list(ctx.params.get("plugins") or [])


def _take_plugins(args: list[str]) -> tuple[list[str], list[str]]:
    """Separate `--plugin FILE` from the other arguments."""
    named: list[str] = []
    rest: list[str] = []
    remaining = iter(args)
    for argument in remaining:
        if argument == "--":
            rest += [argument, *remaining]
        elif argument.startswith(f"{PLUGIN_FLAG}="):
            named.append(argument)
        elif argument == PLUGIN_FLAG:
            named += [argument, *([value] if (value := next(remaining, None)) is not None else [])]
        else:
            rest.append(argument)
    return named, rest


def component_command(component: Component, plugins: list[Path]) -> Any:
    """The command that runs a component on the rows of a file.

    Its function's signature is made from the component's schema, and typer reads it like any other.
    """
    schema = component_schema(component)
    properties: Mapping[str, Any] = schema.get("properties", {})
    parameters = [_parameter(name, prop, schema) for name, prop in properties.items()]

    def run(**options: Any) -> None:
        given = {name: options.pop(_field(name)) for name in properties}
        values = {
            name: _value(name, given[name], properties[name], schema) for name in given if given[name] not in (None, [])
        }
        _run(component, values, plugins, **options)

    takes_rows = bool({"frame", "data"} & set(component.inputs))
    signature = [*_own_parameters(takes_rows=takes_rows), *parameters]
    run.__signature__ = inspect.Signature(signature)  # type: ignore[attr-defined]
    run.__annotations__ = {each.name: each.annotation for each in signature}
    app = typer.Typer(rich_markup_mode=None, add_completion=False)
    app.command(component.name, cls=Command, help=_help(component))(run)
    return typer.main.get_command(app)


def _help(component: Component) -> str:
    """The docstring without its `Args`, which the options show."""
    lines = component.doc.splitlines()
    headings = [index for index, line in enumerate(lines) if line.strip() in ("Args:", "Arguments:")]
    return "\n".join(lines[: headings[0]] if headings else lines).strip()


def _own_parameters(*, takes_rows: bool) -> list[inspect.Parameter]:
    rows = ".jsonl, .parquet or .csv"
    source = Annotated[Path, typer.Option("--input", metavar="FILE", help=f"Rows with a `text`: {rows}.")]
    target = Annotated[Path, typer.Option("--output", metavar="FILE", help=f"Where the rows go: {rows}.")]
    seed = Annotated[int, typer.Option("--seed", metavar="N", help="Of the component's randomness.")]
    as_json = Annotated[bool, typer.Option("--json", help="Print what became of the rows as JSON.")]
    parameters = [_keyword("source", source)] if takes_rows else []
    return [*parameters, _keyword("target", target), _keyword("seed", seed, 0), _keyword("as_json", as_json, False)]


def _keyword(name: str, annotation: Any, default: Any = inspect.Parameter.empty) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=default)


def _run(
    component: Component,
    configuration: Mapping[str, Any],
    plugins: list[Path],
    *,
    target: Path,
    seed: int,
    as_json: bool,
    source: Path | None = None,
) -> None:
    from luthier.adhoc import quarantine_of, run_component

    _check(component, configuration)
    counts = run_component(
        component,
        configuration,
        source.absolute() if source else None,
        target.absolute(),
        local=local_files(plugins),
        seed=seed,
        listen=_tell_log,
    )
    if as_json:
        print_json(counts)
        return
    from luthier.formatting import describe_counts

    typer.echo(f"{target}: {describe_counts(counts) or 'no rows'}")
    if counts["quarantined"]:
        typer.echo(f"quarantined, with reasons: {quarantine_of(target)}")


def _check(component: Component, configuration: Mapping[str, Any]) -> None:
    """Refuse a configuration in the words of the command line."""
    from luthier.components import ConfigurationError

    try:
        component.configure(configuration)
    except ConfigurationError as error:
        problems = [
            f"{_flag(str(problem.key[0]))}: {problem.message}" if problem.key else problem.message
            for problem in error.problems
        ]
        raise typer.BadParameter("; ".join(problems)) from None


def _tell_log(message: Mapping[str, Any]) -> None:
    if message["type"] == "log":
        typer.echo(f"{message['level']}: {message['message']}", err=True)


# --- parameters as options ----------------------------------------------------------------------------


def _field(name: str) -> str:
    """The option's name in our function, where it cannot meet one of ours."""
    return f"config_{name}"


def _flag(name: str) -> str:
    flag = name.replace("_", "-")
    return f"--{CLASH_PREFIX}{flag}" if flag in OWN_OPTIONS else f"--{flag}"


def _parameter(name: str, prop: Mapping[str, Any], schema: Mapping[str, Any]) -> inspect.Parameter:
    """The typer option of a component's parameter; one that is not given is None, so the default holds."""
    kind = _kind(schema, prop)
    flag = _flag(name)
    required = name in schema.get("required", [])
    default = "" if required else f"  [default: {json.dumps(prop.get('default'), ensure_ascii=False)}]"
    renamed = f"  [the parameter {name!r}]" if flag.startswith(f"--{CLASH_PREFIX}") else ""
    help_text = f"{prop.get('description', '')}{renamed}{default}".strip()
    declaration = f"{flag}/--no-{flag.removeprefix('--')}" if kind == "boolean" else flag
    metavar = None if kind == "boolean" else describe_type(schema, prop)
    option = typer.Option(declaration, help=help_text, metavar=metavar, show_default=False)
    annotation = _ANNOTATIONS[kind] if required else _OPTIONAL_ANNOTATIONS[kind]
    return _keyword(_field(name), Annotated[annotation, option], inspect.Parameter.empty if required else None)


Kind = Literal["boolean", "integer", "number", "string", "array", "json"]
_ANNOTATIONS: Mapping[Kind, Any] = {
    "boolean": bool,
    "integer": int,
    "number": float,
    "string": str,
    "array": list[str],
    "json": str,
}
_OPTIONAL_ANNOTATIONS: Mapping[Kind, Any] = {kind: annotation | None for kind, annotation in _ANNOTATIONS.items()}


def _kind(schema: Mapping[str, Any], prop: Mapping[str, Any]) -> Kind:
    """How an option's text is read: by its type where it has one besides null, else as JSON."""
    kinds = {_type(branch) for branch in branches(schema, prop)} - {"null"}
    if kinds == {"integer", "number"}:
        return "number"
    return kinds.pop() if len(kinds) == 1 else "json"  # type: ignore[return-value]


def _type(branch: Mapping[str, Any]) -> str:
    if "enum" in branch or "const" in branch:
        values = branch.get("enum", [branch.get("const")])
        return "string" if all(isinstance(value, str) for value in values) else "json"
    kind = branch.get("type")
    return kind if kind in ("boolean", "integer", "number", "string", "array", "null") else "json"


def describe_type(schema: Mapping[str, Any], prop: Mapping[str, Any]) -> str:
    """A parameter's type in a word or two: `number`, `integer or null`, `a|b|c`, `list of string`."""
    names = []
    for branch in branches(schema, prop):
        if "enum" in branch or "const" in branch:
            names.append("|".join(map(str, branch.get("enum", [branch.get("const")]))))
        elif branch.get("type") == "array":
            names.append(f"list of {describe_type(schema, branch.get('items', {}))}")
        elif branch.get("type") == "object" or "properties" in branch:
            names.append(f"{{{', '.join(branch.get('properties', {}))}}}" if branch.get("properties") else "mapping")
        else:
            names.append(branch.get("type", "value"))
        names[-1] += _bounds(branch)
    return " or ".join(dict.fromkeys(names))


_COMPARISONS = {"exclusiveMinimum": ">", "minimum": "≥", "exclusiveMaximum": "<", "maximum": "≤"}


def _bounds(branch: Mapping[str, Any]) -> str:
    found = [f"{sign} {branch[key]}" for key, sign in _COMPARISONS.items() if key in branch]
    return f" ({', '.join(found)})" if found else ""


def _value(name: str, given: Any, prop: Mapping[str, Any], schema: Mapping[str, Any]) -> Any:
    """The JSON value that an option's text stands for."""
    kind = _kind(schema, prop)
    if kind == "array":
        return _read_list(name, given, prop, schema)
    return _read_json(name, given) if kind == "json" else given


def _read_json(name: str, given: str) -> Any:
    """A value whose type the text decides, as in a recipe: JSON and YAML are both read."""
    from luthier.substitution import parse_override

    try:
        return parse_override(f"{name}={given}")[1]
    except InputError as error:
        raise typer.BadParameter(f"{_flag(name)}: {error.message}") from None


def _read_list(name: str, given: list[str], prop: Mapping[str, Any], schema: Mapping[str, Any]) -> list[Any]:
    """A list: as JSON (`'["a", "b"]'`), or one element each time that the option is given."""
    if len(given) == 1 and given[0].lstrip().startswith("["):
        return list(_read_json(name, given[0]))
    items = next(branch["items"] for branch in branches(schema, prop) if branch.get("type") == "array")
    return list(given) if _kind(schema, items) == "string" else [_read_json(name, each) for each in given]
