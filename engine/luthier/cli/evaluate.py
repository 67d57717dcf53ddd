"""`luthier evaluate`: measure the champion again."""

from __future__ import annotations

from typing import Annotated

import typer

from luthier.cli._dispatch import Command
from luthier.cli._options import (
    ForceOption,
    JsonOption,
    OverridesOption,
    RecipeArgument,
    RecipeHomeOption,
)
from luthier.cli._output import print_json
from luthier.errors import GateRefused
from luthier.options import DeviceOption, PluginOption

EXAMPLES = """
Examples:

\b
  luthier evaluate recipe.yaml
  luthier evaluate recipe.yaml --only frozen --force frozen
  luthier evaluate recipe.yaml --set feedback.held_out_since=2026-01-31

Exit codes: 0 no metric is surely worse than it was; 1 your input; 4 one is.
"""


def add_to(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command(cls=Command, epilog=EXAMPLES)(evaluate)


def evaluate(
    recipe: RecipeArgument,
    *,
    only: Annotated[
        list[str],
        typer.Option("--only", metavar="STEP", help="Measure by this validator alone. May be given several times."),
    ] = [],  # noqa: B006 - typer copies it
    confidence: Annotated[
        float, typer.Option(min=0.5, max=0.9999, metavar="SHARE", help="Of the intervals, both sides together.")
    ] = 0.95,
    overrides: OverridesOption = [],  # noqa: B006
    force: ForceOption = [],  # noqa: B006
    device: DeviceOption = "auto",
    plugins: PluginOption = [],  # noqa: B006
    home: RecipeHomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure the champion again, and hold it against what it measured when it was promoted.

    The recipe's validators measure it on the recipe's data as they are now; no model is made. Exit code 4 says that a
    metric is worse than it was, beyond what chance may make; the champion stays what it is.
    """
    from luthier.cli.run import print_gates
    from luthier.evaluation import evaluate as measure
    from luthier.substitution import parse_override

    values = dict(map(parse_override, overrides))
    run = measure(
        recipe,
        only=only,
        confidence=confidence,
        overrides=values,
        force=force,
        device=device,
        plugins=plugins,
        home=home,
        display=False,
    )
    if as_json:
        print_json(run.public())
    else:
        typer.secho(run.id, bold=True)
        print_gates(run)
        if run.report_path.exists():
            typer.echo(f"report: {run.report_path}")
    worse = [gate for gate in run.gates if not gate.passed]
    if worse:
        raise GateRefused(
            f"the champion {run.data.recipe!r} is worse than when it was promoted: "
            + ", ".join(f"{gate.step}.{gate.metric}" for gate in worse),
            f"It stays champion. Refine it, or go back: luthier registry rollback {run.data.recipe}",
        )
