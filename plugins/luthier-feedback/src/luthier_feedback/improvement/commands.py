"""`luthier improve`. Light: what it needs is imported when it is called."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from luthier.options import DeviceOption, PluginOption, command_app

if TYPE_CHECKING:
    from luthier_feedback.improvement.comparing import Tolerance

EXAMPLES = """
Examples:

\b
  luthier improve recipe.yaml
  luthier improve recipe.yaml --dry-run
  luthier improve recipe.yaml --metric rouge.rougeL --tolerance 2%
  luthier improve recipe.yaml --tolerance exact.exact_match=0.01

Exit codes: 0 promoted, or nothing was new; 1 your input; 4 refused, the champion stays.
"""

MetricOption = Annotated[
    str | None,
    typer.Option(
        metavar="STEP.METRIC",
        help="What must be better, a metric that a gate names.  [default: the first that is measured of the champion]",
    ),
]
ConfidenceOption = Annotated[
    float, typer.Option(min=0.5, max=0.9999, metavar="SHARE", help="Of the intervals, both sides together.")
]
ToleranceOption = Annotated[
    list[str],
    typer.Option(
        "--tolerance",
        metavar="[STEP.METRIC=]AMOUNT",
        help="How much worse a gated metric may be, at the worse end of its interval: 5% of the champion's value, or "
        "0.01 in its unit. May be given several times.  [default: 5%]",
    ),
]
HomeOption = Annotated[
    Path | None,
    typer.Option(
        "--home", metavar="DIR", help="The store's directory.  [default: LUTHIER_HOME, else .luthier beside the recipe]"
    ),
]
RecipeArgument = Annotated[
    Path, typer.Argument(metavar="RECIPE", help="The recipe; one of its steps is `source: feedback`.")
]


app = command_app()


@app.callback(epilog=EXAMPLES)
def improve(
    recipe: RecipeArgument,
    *,
    metric: MetricOption = None,
    confidence: ConfidenceOption = 0.95,
    tolerance: ToleranceOption = [],  # noqa: B006 - typer copies it
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Run and decide, and promote nothing.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until another improve of the recipe ends.")] = False,
    device: DeviceOption = "auto",
    plugins: PluginOption = [],  # noqa: B006
    home: HomeOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print improve.json.")] = False,
) -> None:
    """Run a recipe with the feedback that there is, and promote its model if it is better than the champion.

    Better: the paired bootstrap's interval of one metric, that of --metric, lies above the champion's. And no metric
    that a gate names may be worse by more than the tolerance, and every gate must pass. Without a champion the gates
    alone decide. The decision, its numbers and its reasons are in improve.html and improve.json in the run's
    directory, and in `luthier registry history`.
    """
    from luthier.errors import GateRefused
    from luthier_feedback.improvement.round import Wanted
    from luthier_feedback.improvement.round import improve as do_round
    from luthier_feedback.improvement.terminal import headline, lines

    general, own = read_tolerances(tolerance)
    wanted = Wanted(
        recipe,
        metric=metric,
        confidence=confidence,
        tolerance=general,
        tolerances=own,
        dry_run=dry_run,
        wait=wait,
        home=home,
        plugins=plugins,
        device=device,
        display=not as_json,
    )
    outcome = do_round(wanted, lambda line: typer.echo(line, err=True))
    if as_json:
        typer.echo(json.dumps(outcome.to_json(), ensure_ascii=False, indent=1))
    else:
        for line in lines(outcome):
            typer.echo(line)
    if outcome.verdict == "refused":
        raise GateRefused(headline(outcome), f"All that was measured is in {outcome.page}")


def read_tolerances(given: list[str]) -> tuple[Tolerance, dict[str, Tolerance]]:
    """The tolerance of all gated metrics, and those of single ones by name.

    Raises:
        InputError: if one cannot be read.
    """
    from luthier import InputError
    from luthier_feedback.improvement.comparing import TOLERANCE, Tolerance

    general, own = TOLERANCE, {}
    for text in given:
        name, equals, amount = text.rpartition("=")
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?|\.\d+)\s*(%?)\s*", amount)
        if match is None or (equals and not name.strip()):
            raise InputError(
                f"--tolerance: {text!r} does not say how much worse a metric may be",
                "Write a share of the champion's value, 5%; an amount in the metric's unit, 0.01; or either of one "
                "metric, STEP.METRIC=0.01. None is negative.",
            )
        found = Tolerance(float(match[1]) / (100 if match[2] else 1), relative=bool(match[2]))
        if equals:
            own[name.strip()] = found
        else:
            general = found
    return general, own
