"""Arguments and options that several commands of the core share; `luthier.options` has those for plugins too."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from luthier.plugins import Registry
    from luthier.store import Store

RecipeArgument = Annotated[Path, typer.Argument(metavar="RECIPE", help="The recipe: a YAML file.")]
RunArgument = Annotated[
    str, typer.Argument(metavar="RUN", help="A run: its id, a unique beginning of it, `latest`, or `champion`.")
]
OverridesOption = Annotated[
    list[str],
    typer.Option("--set", metavar="STEP.KEY=VALUE", help="Override a key of a step. May be given several times."),
]
UntilOption = Annotated[str | None, typer.Option("--until", metavar="STEP", help="Stop after this step.")]
FromOption = Annotated[str | None, typer.Option("--from", metavar="STEP", help="Do this step and all after it again.")]
ForceOption = Annotated[
    list[str], typer.Option("--force", metavar="STEP", help="Do this step again. May be given several times.")
]
RecipeHomeOption = Annotated[
    Path | None,
    typer.Option(
        "--home", metavar="DIR", help="The store's directory.  [default: LUTHIER_HOME, else .luthier beside the recipe]"
    ),
]
FindLinksOption = Annotated[
    list[str],
    typer.Option("--find-links", metavar="DIR", help="Look for wheels here too. May be given several times."),
]
NoIndexOption = Annotated[
    bool, typer.Option("--no-index", help="Look only in --find-links and in what pip is set to find.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def local_files(plugins: Sequence[Path]) -> list[Path]:
    """The one-file plugins in ./plugins.d, and those that --plugin named."""
    from luthier.discovery import plugin_files

    return plugin_files(Path.cwd(), plugins)


def registry_here(plugins: Sequence[Path]) -> Registry:
    """The installed plugins, those in ./plugins.d, and those that --plugin named."""
    from luthier.plugins import load_plugins

    return load_plugins(local=local_files(plugins))


def store_here(home: Path | None) -> Store:
    """The store that --home names, else LUTHIER_HOME, else .luthier in the current directory."""
    from luthier.api import open_store

    return open_store(Path.cwd(), home)
