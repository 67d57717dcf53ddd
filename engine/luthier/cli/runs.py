"""`luthier runs`: look at past runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from luthier.cli._dispatch import Command, command_group
from luthier.cli._options import HomeOption, JsonOption, RunArgument, store_here
from luthier.cli._output import print_json, print_table
from luthier.errors import InputError

if TYPE_CHECKING:
    from luthier.runs import Run, StepResult

app = command_group("List, show and compare runs.")

DIFF_EXAMPLES = """
Examples:

\b
  luthier runs diff latest 20260101-120000
  luthier runs diff 20260101 20260102 --json
"""


@app.command("list", cls=Command)
def list_(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """List the runs, newest first."""
    from luthier.display import format_seconds
    from luthier.runs import list_runs

    store = store_here(home)
    runs = list(list_runs(store))
    if as_json:
        print_json([_overview(run) for run in runs])
        return
    if not runs:
        typer.echo(f"no runs in {store.root}; start one: luthier run RECIPE", err=True)
        return
    rows = [
        (run.id, run.data.recipe, run.state, run.data.started, format_seconds(run.data.seconds), _gates_in_brief(run))
        for run in runs
    ]
    print_table(["RUN", "RECIPE", "STATE", "STARTED", "TIME", "GATES"], rows)


@app.command(cls=Command)
def show(run: RunArgument, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Show a run: its steps with their times and metrics, its gates."""
    from luthier.cli.run import print_gates
    from luthier.display import describe_counts, format_metrics, format_seconds

    found = _find(run, home)
    if as_json:
        print_json(found.public())
        return
    data = found.data
    recipe = data.recipe_file or data.recipe
    typer.secho(found.id, bold=True)
    typer.echo(f"{found.state}, {format_seconds(data.seconds)}, began {data.started}, recipe {recipe}")
    if data.error:
        typer.echo(f"error: {data.error}")
    typer.echo()
    rows = [
        (
            step.id,
            f"{step.stage}:{step.component}",
            "cached" if step.cached else step.state,
            format_seconds(step.seconds) if step.seconds else "",
            step.artifact[:12],
            "  ".join(filter(None, [describe_counts(step.counts), format_metrics(step.metrics, limit=100)])),
        )
        for step in found.steps
    ]
    print_table(["STEP", "COMPONENT", "STATE", "TIME", "ARTIFACT", "RESULT"], rows)
    if found.gates:
        typer.echo()
        print_gates(found)
    if found.report_path.exists():
        typer.echo(f"\nreport: {found.report_path}")


@app.command(cls=Command, epilog=DIFF_EXAMPLES)
def diff(
    before: Annotated[str, typer.Argument(metavar="A", help="A run: its id, a unique beginning of it, or `latest`.")],
    after: Annotated[str, typer.Argument(metavar="B", help="The run to compare it with.")],
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare two runs: what of each step's making changed, and what that did to the metrics."""
    first, second = _find(before, home), _find(after, home)
    difference = compare(first, second)
    if as_json:
        print_json(difference)
        return
    if not difference["steps"] and not difference["metrics"]:
        typer.echo("the same steps, done the same way, with the same results")
    if difference["steps"]:
        print_table(["STEP", "CHANGE"], [(step["id"], step["change"]) for step in difference["steps"]])
    if difference["steps"] and difference["metrics"]:
        typer.echo()
    if difference["metrics"]:
        print_table(["STEP", "METRIC", "A", "B", "CHANGE"], [_metric_row(each) for each in difference["metrics"]])


@app.command(cls=Command)
def report(run: RunArgument, home: HomeOption = None) -> None:
    """Print the path of a run's report."""
    found = _find(run, home)
    if not found.report_path.exists():
        remedy = (
            "Reports are written by a plugin: pip install luthier-report, then run the recipe again."
            if found.state in ("done", "refused")
            else f"The run is {found.state}; a report is written when it ends."
        )
        raise InputError(f"the run {found.id} has no report", remedy)
    typer.echo(found.report_path)


def _find(name: str, home: Any) -> Run:
    from luthier.runs import find_run

    return find_run(store_here(home), name)


def _overview(run: Run) -> dict[str, Any]:
    data = run.data
    overview = {
        "id": run.id,
        "recipe": data.recipe,
        "state": run.state,
        "started": data.started,
        "seconds": data.seconds,
    }
    return overview | {"gates": {"passed": sum(gate.passed for gate in run.gates), "of": len(run.gates)}}


def _gates_in_brief(run: Run) -> str:
    return f"{sum(gate.passed for gate in run.gates)} of {len(run.gates)} passed" if run.gates else ""


# --- comparison ---------------------------------------------------------------------------------------


def compare(before: Run, after: Run) -> dict[str, Any]:
    """What differs between two runs: of the steps' ingredients and results, and of the metrics.

    Returns:
        `{"before", "after", "steps": [{"id", "change"}], "metrics": [{"step", "metric", "before", "after"}]}`;
        a metric that one side lacks is None there.
    """
    old = {step.id: step for step in before.steps}
    new = {step.id: step for step in after.steps}
    ids = list(dict.fromkeys([*old, *new]))
    changes = [{"id": name, "change": change} for name in ids if (change := _change(old.get(name), new.get(name)))]
    metrics = [
        {"step": name, "metric": metric, "before": was, "after": now}
        for name in ids
        for metric, was, now in _paired(_metrics(old.get(name)), _metrics(new.get(name)))
        if was != now
    ]
    return {"before": before.id, "after": after.id, "steps": changes, "metrics": metrics}


def _change(before: StepResult | None, after: StepResult | None) -> str:
    """What changed in how a step was made, in words; empty if nothing did."""
    if before is None or after is None:
        return "only in B" if before is None else "only in A"
    from luthier.explain import explain

    then = {node.id: node.ingredients for node in before.nodes if node.ingredients}
    now = {node.id: node.ingredients for node in after.nodes if node.ingredients}
    reasons = [explain(then[name], now[name]) for name in then if name in now and then[name] != now[name]]
    if before.state != after.state:
        reasons.append(f"{before.state} → {after.state}")
    if not reasons and before.artifact != after.artifact:
        reasons.append("another result from the same ingredients")
    return "; ".join(dict.fromkeys(reasons))


def _metrics(step: StepResult | None) -> Mapping[str, float]:
    return step.metrics if step else {}


def _paired(
    before: Mapping[str, float], after: Mapping[str, float]
) -> Iterable[tuple[str, float | None, float | None]]:
    return ((name, before.get(name), after.get(name)) for name in dict.fromkeys([*before, *after]))


def _metric_row(difference: Mapping[str, Any]) -> tuple[str, ...]:
    was, now = difference["before"], difference["after"]
    change = f"{now - was:+.4g}" if was is not None and now is not None else ""
    from luthier.display import format_number

    values = ("" if value is None else format_number(value) for value in (was, now))
    return (difference["step"], difference["metric"], *values, change)
