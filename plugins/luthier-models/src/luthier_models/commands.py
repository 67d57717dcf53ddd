"""`luthier models`: look at models. Light: what it needs is imported when it is called."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Look at models.", no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.callback()
def models() -> None:
    """Look at models."""


@app.command()
def show(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL|STEP",
            help="A model's directory or location (`hf:…`), a run, `champion`, RUN:STEP, or a step of the latest run.",
        ),
    ],
    *,
    tokens: Annotated[int, typer.Option(min=1, metavar="N", help="Predict the time for so many tokens.")] = 1_000_000,
    context: Annotated[int, typer.Option(min=1, metavar="N", help="Tokens of a text.")] = 512,
    batch_tokens: Annotated[
        int, typer.Option(min=1, metavar="N", help="Tokens whose activations are kept at once.")
    ] = 512,
    home: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="The store's directory.  [default: LUTHIER_HOME, else ./.luthier]"),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show a model: parameters by block, memory, operations a token, and predicted times on this machine.

    Nothing but the configuration and the headers of the weights is read; measuring the machine takes a second.
    """
    from luthier import InputError, find_model
    from luthier_models.anatomy.machine import measure_speed
    from luthier_models.anatomy.overview import Question, lines, overview

    found = find_model(model, home=home)
    if found.kind != "model":
        raise InputError(
            f"{model} is an exported model, whose weights are quantized or laid out anew",
            "Name the step that was exported: `luthier models show latest:STEP`, or `champion:STEP`.",
        )
    shown = overview(found.path, Question(tokens, context, batch_tokens), measure_speed(), model)
    if as_json:
        typer.echo(json.dumps(shown, ensure_ascii=False, indent=2))
        return
    for line in lines(shown):
        typer.echo(line)
