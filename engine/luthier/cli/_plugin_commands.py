"""Commands that plugins add: entry points in the group `luthier.commands`, `NAME = "module:app"`, each a typer app.

They are entry points and no hook, since a hook's answer costs the import of every plugin, and `--help` must not
wait for that: names and summaries are read from the distributions' metadata, and an app is imported when it is
called. `luthier plugins list` and `doctor` import all of them, to tell which are broken.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import typer

from luthier.cli._dispatch import Group
from luthier.errors import InputError, PluginError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

    from luthier.plugins import Broken, Registry

GROUP = "luthier.commands"


class BrokenCommand(PluginError):
    """A plugin's command cannot be loaded; `detail` is the traceback."""

    def __init__(self, message: str, remedy: str, detail: str) -> None:
        super().__init__(message, remedy)
        self.detail = detail


@dataclass(frozen=True)
class PluginCommand:
    """A command that distributions declare under one name: one distribution, or several that clash.

    Attributes:
        summary: what the distribution says of itself.
    """

    name: str
    distribution: str
    version: str
    summary: str
    entry_points: tuple[EntryPoint, ...]

    @property
    def giver(self) -> str:
        """Who gives it."""
        return f"{self.distribution} {self.version}".strip()

    @property
    def short_help(self) -> str:
        """The line that stands for it in `luthier --help`; nothing is imported for it."""
        if len(self.entry_points) > 1:
            return f"given by {self.distribution}, so by neither"
        return f"{self.distribution}: {self.summary}" if self.summary else self.distribution

    def load(self) -> Any:
        """Import its app; gives the group of commands.

        Raises:
            InputError: if several distributions give it.
            BrokenCommand: if it cannot be imported or is no typer app.
        """
        if len(self.entry_points) > 1:
            givers = " and by ".join(_giver(each) for each in self.entry_points)
            raise InputError(f"the command {self.name!r} is given by {givers}", "Uninstall one of them.")
        try:
            # What a plugin prints while it is imported must not mix with what a command answers.
            with contextlib.redirect_stdout(sys.stderr):
                app = self.entry_points[0].load()
            if not isinstance(app, typer.Typer):
                raise PluginError(f"{self.entry_points[0].value} is a {type(app).__name__}, not a typer.Typer")
            group = typer.main.get_group(app)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            raise self._broken(error) from error
        group.name = self.name
        return group

    def _broken(self, error: BaseException) -> BrokenCommand:
        import traceback

        from luthier.plugins import one_line

        return BrokenCommand(
            f"the command {self.name!r} of {self.giver} is broken: {one_line(error)}",
            f"Upgrade it: pip install --upgrade {self.distribution}; or leave it out: LUTHIER_DISABLE={self.name}",
            "".join(traceback.format_exception(error)),
        )


class LazyCommand(Group):
    """Stands for a plugin's command until that is called."""

    def __init__(self, command: PluginCommand) -> None:
        super().__init__(name=command.name, help=command.short_help)
        self._command = command

    def list_commands(self, ctx: Any) -> list[str]:
        """Its commands, which loads it; none of one that cannot be loaded, which calling it tells."""
        try:
            return list(self._command.load().commands)
        except (InputError, BrokenCommand):
            return []

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        """Load the command, and parse its arguments."""
        return self._command.load().make_context(info_name, args, parent=parent, **extra)


def find_commands(environ: Mapping[str, str] | None = None) -> dict[str, PluginCommand]:
    """The commands that the installed distributions declare, by name, without those that the environment blocks.

    Args:
        environ: where LUTHIER_PLUGINS and LUTHIER_DISABLE are read; `os.environ` if None.
    """
    if not _declared():
        return {}
    environ = os.environ if environ is None else environ
    by_name: dict[str, list[EntryPoint]] = {}
    for entry_point in _entry_points():
        if not _blocked(entry_point.name, environ):
            by_name.setdefault(entry_point.name, []).append(entry_point)
    return {name: _command(name, found) for name, found in sorted(by_name.items())}


def with_commands(registry: Registry) -> Registry:
    """The registry with the commands that are broken, clash, or have the name of one of ours; imports them all."""
    from dataclasses import replace

    from luthier.cli import app

    commands = find_commands()
    if not commands:
        return registry
    group = typer.main.get_command(app)
    assert isinstance(group, Group)
    # LUTHIER_PLUGINS may name a plugin that is a command and nothing else.
    others = [each for each in registry.broken if each.distribution or each.name not in commands]
    return replace(registry, broken=(*others, *_broken(commands.values(), group.commands)))


def _broken(commands: Iterable[PluginCommand], core: Collection[str]) -> Iterator[Broken]:
    from luthier.plugins import Broken

    for command in commands:
        what = (f"command {command.name}", command.distribution, command.version)
        if command.name in core:
            error = f"the command {command.name!r} of {command.giver} has the name of luthier's own command"
            remedy = "Its author must rename it; luthier's own is the one that is called."
            yield Broken(*what, error, "", remedy, "entry point")
            continue
        try:
            command.load()
        except (InputError, BrokenCommand) as error:
            yield Broken(*what, error.message, getattr(error, "detail", ""), error.remedy, "entry point")


def _declared() -> bool:
    """Whether any distribution on the path declares a command.

    Importing `importlib.metadata` costs a tenth of what `luthier --help` takes; this costs a hundredth.
    """
    section = f"[{GROUP}]".encode()
    for directory in sys.path:
        try:
            if os.path.isfile(directory):
                return True  # A zip file: ask importlib.metadata.
            names = os.listdir(directory or os.curdir)
        except OSError:
            continue
        for name in names:
            if name.endswith((".dist-info", ".egg-info")):
                try:
                    with open(os.path.join(directory, name, "entry_points.txt"), "rb") as file:
                        if section in file.read():
                            return True
                except OSError:
                    continue
    return False


def _entry_points() -> Iterator[EntryPoint]:
    from importlib.metadata import distributions

    seen: set[str] = set()
    for distribution in distributions():
        try:
            found = distribution.entry_points.select(group=GROUP)
        except Exception:  # noqa: S112 - `luthier plugins list` tells of metadata that cannot be read
            continue
        if found and distribution.name not in seen:
            seen.add(distribution.name)  # the first one on the path is the one that is imported
            yield from found


def _blocked(name: str, environ: Mapping[str, str]) -> bool:
    from luthier.discovery import names_in

    wanted = names_in(environ["LUTHIER_PLUGINS"]) if "LUTHIER_PLUGINS" in environ else None
    return name in names_in(environ.get("LUTHIER_DISABLE", "")) or (wanted is not None and name not in wanted)


def _command(name: str, found: list[EntryPoint]) -> PluginCommand:
    found.sort(key=_giver)
    givers = [each.dist for each in found if each.dist]
    summary = str(givers[0].metadata.json.get("summary", "")) if len(givers) == 1 else ""
    distribution, version = (" and ".join(getattr(each, what) for each in givers) for what in ("name", "version"))
    return PluginCommand(name, distribution, version, summary, tuple(found))


def _giver(entry_point: EntryPoint) -> str:
    return f"{entry_point.dist.name} {entry_point.dist.version}" if entry_point.dist else entry_point.value
