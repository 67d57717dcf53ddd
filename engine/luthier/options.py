"""Options that commands of the core and of plugins share, so that each has one name, one help text and one meaning.

A command group of `luthier_commands` annotates its parameters with them: `home: HomeOption = None`. `PluginOption`
names one-file plugins, which `luthier.plugin_files` finds; `RuntimeOption` and `SettingsOption` say what loads a model,
and with which parameters, which `runtime_parameters` reads. `command_app` is the app of a single command.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

PluginOption = Annotated[
    list[Path],
    typer.Option(
        "--plugin",
        metavar="FILE",
        help="Load a one-file plugin, besides those in plugins.d/. May be given several times.",
    ),
]
DeviceOption = Annotated[
    str, typer.Option("--device", metavar="D", help="Where models run: auto, cpu, cuda, cuda:1, mps.")
]
HomeOption = Annotated[
    Path | None,
    typer.Option("--home", metavar="DIR", help="The store's directory.  [default: LUTHIER_HOME, else ./.luthier]"),
]
RuntimeOption = Annotated[
    str | None,
    typer.Option("--runtime", metavar="NAME", help="What loads a model.  [default: the one for its kind]"),
]
SettingsOption = Annotated[
    list[str],
    typer.Option("--set", metavar="KEY=VALUE", help="Set a parameter of the runtime. May be given several times."),
]


def command_app() -> typer.Typer:
    """The app of a command that is called by the name of its group alone: `@app.callback()` marks its function."""
    return typer.Typer(
        invoke_without_command=True,
        no_args_is_help=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        subcommand_metavar="",
        context_settings={"allow_interspersed_args": True, "help_option_names": ["-h", "--help"]},
    )


def runtime_parameters(settings: Sequence[str]) -> dict[str, Any]:
    """The parameters of a runtime that `--set` gave, their values read as YAML.

    Raises:
        InputError: if one is no KEY=VALUE.
    """
    from luthier.substitution import parse_override

    return dict(map(parse_override, settings))
