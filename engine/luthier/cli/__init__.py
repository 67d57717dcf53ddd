"""The command line: one module a command group. Importing it imports typer and the standard library only.

The commands are thin: they parse, call `luthier.api`, and print. Engine modules are imported inside
the commands, so `--help` pays for none of them.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from luthier.cli import doctor, env, evaluate, generate, plugins, recipes, registry, run, runs, store
from luthier.cli._dispatch import Root, command_group

app = command_group("Raw text to a proven, quantized small language model; every stage is a plugin.", cls=Root)


def _print_version(wanted: bool) -> None:
    if wanted:
        from luthier import __version__

        typer.echo(f"luthier {__version__}")
        raise typer.Exit


EXAMPLES = """
Examples:

\b
  luthier init                      write a recipe to start from
  luthier plan recipe.yaml          what would run, and why
  luthier run recipe.yaml           run it; run it again to go on where it stopped
  luthier generate latest "…"       ask the model that the newest run made
  luthier registry promote latest   make that model the champion
  luthier plugins list              every component that is installed

Exit codes: 0 done, 1 your input, 2 usage, 3 a bug, 4 a gate refused, 130 interrupted.
"""


@app.callback(epilog=EXAMPLES)
def _root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Raw text to a proven, quantized small language model; every stage is a plugin."""


run.add_to(app)
recipes.add_to(app)
generate.add_to(app)
evaluate.add_to(app)
app.add_typer(runs.app, name="runs")
app.add_typer(registry.app, name="registry")
app.add_typer(plugins.app, name="plugins")
app.add_typer(env.app, name="env")
app.add_typer(store.app, name="store")
doctor.add_to(app)


def main() -> None:
    """The console script."""
    for stream in (sys.stdout, sys.stderr):
        # A terminal that cannot show ✓ must not end a run.
        stream.reconfigure(errors="replace")  # type: ignore[union-attr]
    app(prog_name="luthier")
