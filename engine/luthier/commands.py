"""What the commands of plugins share with ours: options that mean the same everywhere, and the app of a command."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

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
RecipeHomeOption = Annotated[
    Path | None,
    typer.Option(
        "--home", metavar="DIR", help="The store's directory.  [default: LUTHIER_HOME, else .luthier beside the recipe]"
    ),
]
HomeOption = Annotated[
    Path | None,
    typer.Option("--home", metavar="DIR", help="The store's directory.  [default: LUTHIER_HOME, else ./.luthier]"),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def command_app() -> typer.Typer:
    """The app of a plugin's command that is called by its name alone: `@app.callback()` marks its function."""
    return typer.Typer(
        invoke_without_command=True,
        no_args_is_help=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        subcommand_metavar="",
        context_settings={"allow_interspersed_args": True, "help_option_names": ["-h", "--help"]},
    )
