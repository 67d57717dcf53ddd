"""`luthier watch`. Light: what it needs is imported when it is called."""

from __future__ import annotations

from typing import Annotated

import typer

from luthier.options import DeviceOption, PluginOption, command_app
from luthier_feedback.improvement.commands import (
    ConfidenceOption,
    HomeOption,
    MetricOption,
    RecipeArgument,
    ToleranceOption,
    read_tolerances,
)

EXAMPLES = """
Examples:

\b
  luthier watch recipe.yaml --every 1d --min-feedback 200
  luthier watch recipe.yaml --every 1d --min-feedback 200 --evaluate-every 6h
  luthier watch recipe.yaml --once --min-feedback 200     # from cron

It ends with Ctrl-C or SIGTERM, between or within rounds; what was finished is kept. Exit codes of --once: 0 done, 1 the
round or the evaluation failed, 3 by a bug, 4 the champion is worse than when it was promoted (--evaluate-every).
"""

app = command_app()


@app.callback(epilog=EXAMPLES)
def watch(
    recipe: RecipeArgument,
    *,
    every: Annotated[
        str, typer.Option(metavar="TIME", help="From the beginning of a round to that of the next: 30m, 12h, 1d.")
    ] = "1d",
    min_feedback: Annotated[
        int,
        typer.Option(
            min=1,
            metavar="N",
            help="Do nothing with less feedback that no round decided on yet: each vote and each correction counts, "
            "and a comparison of two answers once.",
        ),
    ] = 1,
    evaluate_every: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="Measure the champion again, on the frozen test set and on the held-back feedback since it became "
            "champion, and tell whether it is worse than it was then.  [default: never]",
        ),
    ] = None,
    once: Annotated[
        bool, typer.Option("--once", help="End after one round, and one evaluation if --evaluate-every is given.")
    ] = False,
    metric: MetricOption = None,
    confidence: ConfidenceOption = 0.95,
    tolerance: ToleranceOption = [],  # noqa: B006 - typer copies it
    device: DeviceOption = "auto",
    plugins: PluginOption = [],  # noqa: B006
    home: HomeOption = None,
) -> None:
    """Do `luthier improve` on a schedule, as soon as there is enough new feedback.

    What becomes of each round is printed, and kept in watch.jsonl with the metrics of champion and challenger. A round
    that fails or is refused ends nothing: the next one comes. One watcher a recipe.
    """
    from luthier.errors import GateRefused
    from luthier_feedback.improvement.round import Wanted
    from luthier_feedback.improvement.watching import Schedule, read_interval
    from luthier_feedback.improvement.watching import watch as watch_recipe

    general, own = read_tolerances(tolerance)
    wanted = Wanted(
        recipe,
        metric=metric,
        confidence=confidence,
        tolerance=general,
        tolerances=own,
        home=home,
        plugins=plugins,
        device=device,
        display=False,
    )
    evaluations = None if evaluate_every is None else read_interval(evaluate_every, "--evaluate-every")
    schedule = Schedule(read_interval(every), min_feedback, once, evaluations)
    done = watch_recipe(wanted, schedule, typer.echo)
    failed = [record for record in done if record["state"] == "failed"]
    if failed:  # It was told in its line.
        raise typer.Exit(3 if any("traceback" in record for record in failed) else 1)
    if any(record["state"] == "worse" for record in done):
        raise GateRefused(
            "the champion is worse than when it was promoted", "It stays champion. See: luthier registry history"
        )
