"""`luthier runs`: look at past runs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from luthier.cli._dispatch import Command, command_group
from luthier.cli._options import JsonOption, RunArgument, store_here
from luthier.cli._output import print_json, print_table
from luthier.errors import InputError
from luthier.options import HomeOption

if TYPE_CHECKING:
    from luthier.runs import Run

app = command_group("List, show and compare runs.")

DIFF_EXAMPLES = """
Examples:

\b
  luthier runs diff latest 20260101-120000
  luthier runs diff champion latest
  luthier runs diff 20260101 20260102 --json
"""


@app.command("list", cls=Command)
def list_(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """List the runs, newest first."""
    from luthier.formatting import format_seconds
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
    """Show a run: its steps with their times and metrics, what was searched, its gates."""
    from luthier.cli.run import print_gates
    from luthier.formatting import describe_counts, format_metrics, format_seconds

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
    for step in found.steps:
        if step.search and step.search.trials:
            typer.echo(f"\n{step.id} was searched by {step.search.metric} ({step.search.better} is better)")
            columns, candidates = step.search.table()
            print_table([column.upper() for column in columns], candidates)
            for failure in step.search.failures():
                typer.echo(f"failed: {failure}")
    if found.gates:
        typer.echo()
        print_gates(found)
    if found.report_path.exists():
        typer.echo(f"\nreport: {found.report_path}")


@app.command(cls=Command, epilog=DIFF_EXAMPLES)
def diff(
    before: Annotated[
        str, typer.Argument(metavar="A", help="A run: its id, a unique beginning of it, `latest`, or `champion`.")
    ],
    after: Annotated[str, typer.Argument(metavar="B", help="The run to compare it with.")],
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare two runs: which recipe line, data, plugin or library changed, and what that did.

    What it did is told of the documents of each data step, and of the metrics.
    """
    from luthier.rundiff import compare

    difference = compare(_find(before, home), _find(after, home))
    if as_json:
        print_json(difference)
    else:
        _tell_difference(difference)


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
    judged = [gate for gate in run.gates if not gate.skipped]
    return overview | {
        "gates": {
            "passed": sum(gate.passed for gate in judged),
            "of": len(judged),
            "skipped": len(run.gates) - len(judged),
        }
    }


def _gates_in_brief(run: Run) -> str:
    judged = [gate for gate in run.gates if not gate.skipped]
    skipped = len(run.gates) - len(judged)
    told = f"{sum(gate.passed for gate in judged)} of {len(judged)} passed" if run.gates else ""
    return told + (f", {skipped} skipped" if skipped else "")


# --- comparison ---------------------------------------------------------------------------------------

KINDS = {"input": "input data", "library": "library version", "search": "values searched:"}
COUNTS = {"documents_in": "in"}
COMMON = ("seed", "platform")


def _tell_difference(difference: Mapping[str, Any]) -> None:
    if difference["recipes"]:
        names = difference["recipes"]
        typer.echo(f"different recipes, {names['before']} and {names['after']}: steps are compared by their ids\n")
    if difference["states"]:
        typer.echo(f"A is {difference['states']['before']}, B is {difference['states']['after']}\n")
    if not any(difference[part] for part in ("states", "changes", "counts", "metrics", "gates")):
        typer.echo("the same steps, done the same way, with the same results")
    for title, changes in _by_step(difference["changes"]).items():
        typer.secho(title, bold=True)
        for change in changes:
            _tell_change(change)
    if difference["counts"]:
        typer.echo()
        print_table(["STEP", "DOCUMENTS", "A", "B", "CHANGE"], [_count_row(each) for each in difference["counts"]])
    if difference["metrics"]:
        typer.echo()
        intervals = {(each["step"], each["metric"]): each for each in difference["intervals"]}
        rows = [_metric_row(each, intervals.get((each["step"], each["metric"]))) for each in difference["metrics"]]
        print_table(["STEP", "METRIC", "A", "B", "CHANGE", "ITS 95% INTERVAL"], rows)
    for gate in difference["gates"]:
        typer.secho("✓ " if gate["after"] else "✗ ", fg="green" if gate["after"] else "red", nl=False)
        was, now = ("passed" if gate[side] else "refused" for side in ("before", "after"))
        typer.echo(f"{gate['step']}: {was} → {now}; {gate['reason']}")
    if difference["environment"]:
        typer.echo("\nin the environment, and in no step's key:")
        rows = [
            (each["name"], each["before"] or "absent", each["after"] or "absent") for each in difference["environment"]
        ]
        print_table(["WHAT", "A", "B"], rows)


def _by_step(changes: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """The changes by step; what is the same change of many steps is told once, for all of them."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for change in changes:
        common = change["kind"] in COMMON
        told = found.setdefault("every step that depends on it" if common else change["step"], [])
        if not common or all(change["name"] != other["name"] for other in told):
            told.append(change)
    return found


def _tell_change(change: Mapping[str, Any]) -> None:
    was, now = (_value(change, side) for side in ("before", "after"))
    if change["kind"] == "step":
        typer.echo(f"  only in {'B' if change['before'] is None else 'A'}: {change['after'] or change['before']}")
    else:
        kind = KINDS.get(change["kind"], change["kind"])
        name = "" if change["name"] == change["kind"] else f" {change['name']}"
        typer.echo(f"  {kind}:{name} {was} → {now}")
    for side, run in (("before", "A"), ("after", "B")):
        for line in change.get("lines", {}).get(side, []):
            typer.echo(f"    {run}  {line}")


def _value(change: Mapping[str, Any], side: str) -> str:
    """One side of a change for people: hashes are cut, datasets have their size."""
    from luthier.explain import PREFIX, is_content, shorten

    value = change[side]
    if value is None:
        return "absent"
    if change["kind"] == "input":
        return _describe_input(value)
    if change["kind"] == "code":
        return f"{value['version']} ({value['code'][:PREFIX]})".strip()
    if change["kind"] in ("data", "result") or is_content(value):
        return shorten(value)
    if change["kind"] == "library":
        number, _, code = str(value).partition(" ")
        return f"{number} ({code[:PREFIX]})" if code else number
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _describe_input(value: Mapping[str, Any]) -> str:
    from luthier.explain import PREFIX

    size = f"{value['rows']} rows, {value['columns']} columns, " if "rows" in value else ""
    giver = f" of {value['from']}" if value["from"] else ""
    return f"{size}{value['hash'][:PREFIX]}{giver}"


def _count_row(difference: Mapping[str, Any]) -> tuple[str, ...]:
    was, now = difference["before"], difference["after"]
    change = f"{now - was:+,}" if was is not None and now is not None else ""
    values = ("" if value is None else f"{value:,}" for value in (was, now))
    return (difference["step"], COUNTS.get(difference["name"], difference["name"]), *values, change)


def _metric_row(difference: Mapping[str, Any], interval: Mapping[str, Any] | None) -> tuple[str, ...]:
    from luthier.formatting import format_number

    was, now = difference["before"], difference["after"]
    change = f"{now - was:+.4g}" if was is not None and now is not None else ""
    values = ("" if value is None else format_number(value) for value in (was, now))
    between = f"{interval['low']:+.4g} to {interval['high']:+.4g}" if interval else ""
    return (difference["step"], difference["metric"], *values, change, between)
