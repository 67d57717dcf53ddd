"""typer's classes for groups and commands, with what Luthier changes: exit codes, and a cheaper start.

typer builds a pydantic adapter for every parameter of the command that runs, even for those that were
not given; importing pydantic for that costs more than all the rest of `luthier plugins list`. A value
that has its parameter's type already needs no adapter, and most have.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any, get_args, get_origin

import typer
from typer.core import TyperCommand, TyperGroup

from luthier.cli._failures import handled


class _AsGiven:
    """Takes a text as a text or a path, and what has its type already as it is; the rest is typer's."""

    def __init__(self, parameter: Any) -> None:
        self._parameter = parameter
        annotation = parameter.type_descriptor.annotation
        self._type = get_args(annotation)[0] if get_origin(annotation) is list else annotation

    def coerce(self, value: Any, param: Any, ctx: typer.Context) -> Any:
        many = param.multiple or param.nargs == -1
        values = list(value or ()) if many else [value]
        if self._type is Path:
            values = [Path(each) if isinstance(each, str) else each for each in values]
        if all(each is None or (isinstance(self._type, type) and isinstance(each, self._type)) for each in values):
            return values if many else values[0]
        self._parameter._runtime_param = None
        return self._parameter.get_runtime_param().coerce(value, param=param, ctx=ctx)


def _lighten(parameter: Any) -> None:
    # In a typer that has no such attribute this changes nothing.
    if parameter is not None and getattr(parameter, "_runtime_param", ...) is None:
        parameter._runtime_param = _AsGiven(parameter)


class Command(TyperCommand):
    """A command; its parameters are converted only where that is needed."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments into the context."""
        for parameter in self.get_params(ctx):
            _lighten(parameter)
        return super().parse_args(ctx, args)


class Group(TyperGroup):
    """A group of commands; its parameters are converted only where that is needed."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments into the context."""
        for parameter in self.get_params(ctx):
            _lighten(parameter)
        return super().parse_args(ctx, args)


class Root(Group):
    """The whole command line: our commands and the plugins'; what one raises becomes a message and an exit code."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Our commands, then those that plugins add."""
        return [*self.commands, *self._of_plugins]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """A command; a plugin's is imported when it is called, not here."""
        return self.commands.get(cmd_name) or self._of_plugins.get(cmd_name)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command that the arguments name; the error of one that is not there names those that may be meant."""
        if self.get_command(ctx, args[0]) is None and not ctx.resilient_parsing:
            meant = self._meant(ctx, args[0])
            if meant:
                ctx.fail(f"No such command {args[0]!r}. Did you mean {', '.join(map(repr, meant))}?")
        return super().resolve_command(ctx, args)

    def _meant(self, ctx: Any, word: str) -> list[str]:
        """The commands whose last word is the one nearest to a word: `runs list` and others of `list`."""
        from luthier.suggest import closest

        commands = {name: self.get_command(ctx, name) for name in self.list_commands(ctx)}
        groups = {name: each for name, each in commands.items() if isinstance(each, Group)}
        paths = [*commands, *(f"{name} {own}" for name, each in groups.items() for own in each.list_commands(ctx))]
        last = {path: path.split()[-1] for path in paths}
        nearest = closest(word, last.values())
        return [path for path in paths if last[path] == nearest]

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the commands to the help page, the plugins' in a section of their own."""
        sections = {"Commands": self.commands, "Commands of plugins": self._of_plugins}
        widest = max(len(name) for commands in sections.values() for name in commands)
        for title, commands in sections.items():
            rows = [(name, each.get_short_help_str(formatter.width - 6 - widest)) for name, each in commands.items()]
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)

    @cached_property
    def _of_plugins(self) -> dict[str, Any]:
        from luthier.cli._plugin_commands import LazyCommand, find_commands

        return {name: LazyCommand(each) for name, each in find_commands().items() if name not in self.commands}

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        with handled():
            return super().invoke(ctx)


def command_group(help: str, *, cls: type[Group] = Group) -> typer.Typer:
    """A group of commands with plain help: rich's would more than double what `--help` costs."""
    return typer.Typer(
        cls=cls,
        help=help,
        no_args_is_help=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
