"""`luthier schema` and `luthier init`: what helps with writing recipes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from luthier.cli._dispatch import Command
from luthier.cli._options import registry_here
from luthier.cli._output import print_json
from luthier.errors import InputError
from luthier.options import PluginOption

STARTER = Path(__file__).with_name("starter.yaml")
RECIPE_NAME = "recipe.yaml"

SCHEMA_EXAMPLES = """
Example:

\b
  luthier schema > recipe.schema.json

Then begin a recipe with `# yaml-language-server: $schema=recipe.schema.json`.
"""
INIT_EXAMPLES = """
Examples:

\b
  luthier init
  luthier init my-model && luthier plan my-model/recipe.yaml
"""


def add_to(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.command(cls=Command, epilog=SCHEMA_EXAMPLES)(schema)
    app.command(cls=Command, epilog=INIT_EXAMPLES)(init)


def schema(plugins: PluginOption = []) -> None:  # noqa: B006 - typer copies it
    """Print the JSON Schema of recipes for the installed plugins, for editors."""
    from luthier.schema import recipe_schema

    print_json(recipe_schema(registry_here(plugins)))


def init(
    directory: Annotated[Path, typer.Argument(metavar="[DIRECTORY]", help="Where; made if it is missing.")] = Path(),
) -> None:
    """Write a commented recipe to start from. An existing one is never overwritten."""
    target = directory / RECIPE_NAME
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with target.open("x", encoding="utf-8") as file:
            file.write(STARTER.read_text(encoding="utf-8"))
    except FileExistsError:
        what = target if target.exists() else directory
        raise InputError(f"{what} exists already", "Name another directory: luthier init DIRECTORY") from None
    except OSError as error:
        raise InputError(f"{target} cannot be written: {error.strerror}", "Name another directory.") from None
    typer.echo(f"wrote {target}")
    typer.echo(f"next: luthier plan {target}, then luthier run {target}")
