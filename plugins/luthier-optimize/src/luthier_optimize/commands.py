"""`luthier optimize`. Light: what it needs is imported when it is called."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Annotated, Literal

import typer

from luthier.options import DeviceOption, HomeOption, PluginOption, command_app

EXAMPLES = """
Examples:

\b
  luthier optimize latest:lora
  luthier optimize latest:lora --max-kl 0.02 --for decode
  luthier optimize latest:lora --max-size 110MB --for quality
  luthier optimize hf:org/name --data corpus.jsonl --for size
  luthier optimize ./model --data recipe.yaml/summarization --only int8 --only int4
  luthier optimize latest:lora --skip dynamo --skip layers --rounds 5

Interrupt it at any time: the same command goes on, and where all is known it answers at once.
Exit codes: 0 a model was chosen, 1 your input, 4 no model keeps to the limits
(the nearest is shown), or a gate of the recipe refuses the chosen one.
"""
UNITS = {"": 1.0, "KB": 1e3, "MB": 1e6, "GB": 1e9}

app = command_app()


@app.callback(epilog=EXAMPLES)
def optimize(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL|STEP",
            help="A model's directory, file or location, a run, `champion`, RUN:STEP, or a step of the latest run.",
        ),
    ],
    *,
    goal: Annotated[
        Literal["decode", "prefill", "size", "memory", "load", "quality"],
        typer.Option("--for", help="What the chosen model is best in, within the limits."),
    ] = "decode",
    max_kl: Annotated[
        float | None,
        typer.Option(
            min=1e-6,
            metavar="NATS",
            help="Mean KL divergence from the model in float32, a token.  [default: 0.02, without --max-size none]",
        ),
    ] = None,
    max_size: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Of all files of the model: 110MB, 1.5GB.")
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            metavar="TEXTS",
            help="Held-out text: a recipe, RECIPE/STEP, a .jsonl or .txt file, or a directory of them.  "
            "[default: the examples of the model's run]",
        ),
    ] = None,
    only: Annotated[
        list[str],
        typer.Option(metavar="NAME", help="Only routes through this component. May be given several times."),
    ] = [],  # noqa: B006 - typer copies it
    skip: Annotated[
        list[str], typer.Option(metavar="NAME", help="No routes through this component. May be given several times.")
    ] = [],  # noqa: B006
    examples: Annotated[
        int, typer.Option(min=1, metavar="N", help="Held-out examples that every model is measured on.")
    ] = 40,
    rounds: Annotated[int, typer.Option(min=1, metavar="N", help="How often the times of each model are taken.")] = 3,
    new_tokens: Annotated[
        int, typer.Option(min=2, metavar="N", help="Tokens of a completion whose time is taken.")
    ] = 64,
    threads: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Threads while times are taken.  [default: all cores]")
    ] = None,
    output: Annotated[
        Path, typer.Option(metavar="DIR", help="Gets recipe.yaml, optimize.json and optimize.html.")
    ] = Path("optimized"),
    device: DeviceOption = "auto",
    plugins: PluginOption = [],  # noqa: B006
    home: HomeOption = None,
    retry: Annotated[bool, typer.Option("--retry", help="Try routes again that failed before.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print optimize.json.")] = False,
) -> None:
    """Try every way to export, quantize and prune a model that the installed plugins give, and choose one.

    Each way is a recipe, whose steps are cached. Of what comes out, size, load, first token, decode, prefill, memory,
    divergence from the float32 model, perplexity and the recipe's own measures are taken on held-out text, never on
    what calibration reads. The chosen recipe is written, and runs as it is.
    """
    from luthier.errors import GateRefused
    from luthier_optimize.local import home_of, plugins_for
    from luthier_optimize.page import write_page
    from luthier_optimize.routes import Limits
    from luthier_optimize.search import RECIPE_FILE, Search, Wanted
    from luthier_optimize.terminal import Progress, print_outcome

    if max_kl is None and max_size is None:
        max_kl = 0.02
    wanted = Wanted(
        model,
        goal,
        Limits(max_kl, parse_size(max_size) if max_size else None),
        data,
        output,
        only=only,
        skip=skip,
        examples=examples,
        rounds=rounds,
        new_tokens=new_tokens,
        threads=threads,
        device=device,
        plugins=plugins,
        home=home,
        retry=retry,
    )
    with Progress() as progress:
        outcome = Search(wanted, progress.tell, progress.report).run()
    page = write_page(outcome, output)
    if as_json:
        typer.echo((output / "optimize.json").read_text(encoding="utf-8"), nl=False)
    else:
        recipe = output / RECIPE_FILE
        named = [part for path in plugins_for(recipe, plugins) for part in ("--plugin", str(path))]
        command = shlex.join(["luthier", "run", str(recipe), "--home", str(home_of(home)), *named])
        print_outcome(outcome, page, command)
    if outcome.refused:
        told = f"{outcome.chosen} keeps to the limits, but a gate of the recipe refuses it: {outcome.refused}"
        raise GateRefused(told, f"All that was measured is in {output}.")
    if not outcome.chosen:
        raise GateRefused(*refusal(outcome.missed))


def refusal(missed: str) -> tuple[str, str]:
    """What to tell where nothing was chosen: the message and the remedy."""
    if not missed:
        return "no route came to its end", "Their reasons are above; `luthier plugins list` shows what is installed."
    return (
        f"no route keeps to the limits; the nearest is {missed}",
        "Allow more (--max-kl, --max-size), or tune the model towards it first.",
    )


def parse_size(text: str) -> float:
    """A size in bytes: `110MB`, `1.5 GB`, in powers of 1000.

    Raises:
        InputError: if it is none.
    """
    from luthier import InputError

    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMG]?B?)\s*", text, re.IGNORECASE)
    unit = match[2].upper() if match else ""
    unit = unit if unit in UNITS else f"{unit}B" if unit in ("K", "M", "G") else ""
    if match is None or float(match[1]) <= 0:
        raise InputError(f"--max-size: {text!r} is no size", "Write a number and a unit: 110MB, 1.5GB.")
    return float(match[1]) * UNITS[unit]
