"""`luthier registry`: champions, the models that are in use, and their history."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from luthier.cli._dispatch import Command, command_group
from luthier.cli._options import JsonOption, RunArgument, store_here
from luthier.cli._output import print_json, print_table, warn
from luthier.errors import InputError
from luthier.options import HomeOption, PluginOption

if TYPE_CHECKING:
    from luthier.champion_history import HistoryEntry
    from luthier.champions import Champion
    from luthier.events import Event

app = command_group("Promote a run's model to champion, look at champions, go back to an earlier one.")

NameArgument = Annotated[
    str | None, typer.Argument(metavar="[NAME]", help="Whose.  [default: the only one that there is]")
]
ReasonOption = Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why, for the history.")]

PROMOTE_EXAMPLES = """
Examples:

\b
  luthier registry promote latest
  luthier registry promote latest --as production --reason "the team's choice"
  luthier registry promote 20260101-120000 --force --reason "the gate's test set was wrong"
  luthier generate champion "…"

A run whose gates speak against it is refused (exit code 4): a bound did not hold, was not judged since the run stopped
before it, or was judged against a champion that has been replaced since.
"""
ROLLBACK_EXAMPLES = """
Examples:

\b
  luthier registry rollback --reason "users complain"
  luthier registry rollback docstring-summaries --to 3
  luthier registry rollback docstring-summaries --to 20260101-120000-docstring-summaries
"""
FORGET_EXAMPLES = """
Examples:

\b
  luthier registry forget docstring-summaries --keep 2
  luthier registry forget misspelt-name --all
  luthier store gc
"""


@app.command("list", cls=Command)
def list_(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """List the champions. The exit code is 1 where one is damaged; the others are listed all the same."""
    from luthier.champions import champions_in

    store = store_here(home)
    damaged: list[tuple[str, InputError]] = []
    found = champions_in(store, lambda name, error: damaged.append((name, error)))
    if as_json:
        errors = [{"name": name, "error": error.message, "remedy": error.remedy} for name, error in damaged]
        print_json([*(champion.public() for champion in found), *errors])
    elif found:
        rows = [
            (each.name, str(each.number), each.entry.run, each.entry.step, each.hash[:12], each.entry.time)
            for each in found
        ]
        print_table(["CHAMPION", "NUMBER", "RUN", "STEP", "MODEL", "SINCE"], rows)
    elif not damaged:
        typer.echo(f"no champions in {store.root}; promote one: luthier registry promote latest", err=True)
    for _, problem in () if as_json else damaged:
        warn(problem.message, problem.remedy)
    if damaged:
        raise typer.Exit(InputError.exit_code)


@app.command(cls=Command)
def show(name: NameArgument = None, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Show a champion: the run it is of, its gates, where its files are; every byte of them is compared."""
    from luthier.champions import champion_in

    champion = champion_in(store_here(home), name)
    model = champion.model(verify=True)
    if as_json:
        print_json({**champion.public(), "path": str(model.path)})
        return
    _tell_champion(champion)
    entry = champion.entry
    typer.echo(
        f"model {champion.hash[:12]}, {model.kind}, form {model.form}, of the step {entry.step}; every byte sound"
    )
    typer.echo(model.path)
    for gate in entry.gates:
        typer.echo(f"  {gate['step']}: {gate['reason']}")
    if not entry.gates:
        typer.echo("  no gate was asked of it")


@app.command(cls=Command, epilog=PROMOTE_EXAMPLES)
def promote(
    run: RunArgument,
    *,
    name: Annotated[
        str | None, typer.Option("--as", metavar="NAME", help="Champion of what.  [default: the recipe's name]")
    ] = None,
    reason: ReasonOption = "",
    force: Annotated[
        bool, typer.Option("--force", help="Promote it although its gates speak against it; needs --reason.")
    ] = False,
    plugins: PluginOption = [],  # noqa: B006 - typer copies it
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make the newest model of a finished run the champion.

    The change is one atomic step: whoever asks gets the old champion or the new one. The history keeps both, and
    garbage collection leaves them alone until they are forgotten.
    """
    from luthier.champions import promote as promote_run
    from luthier.runs import find_run

    heard: list[Event] = []
    found = find_run(store_here(home), run)
    champion = promote_run(found, name=name, why=reason, force=force, plugins=plugins, listen=heard.append)
    _tell_change(champion, heard, as_json=as_json)


@app.command(cls=Command, epilog=ROLLBACK_EXAMPLES)
def rollback(
    name: NameArgument = None,
    *,
    to: Annotated[
        str | None,
        typer.Option(
            "--to", metavar="NUMBER|RUN", help="Which promotion, by its number or run.  [default: the last before]"
        ),
    ] = None,
    reason: ReasonOption = "",
    plugins: PluginOption = [],  # noqa: B006 - typer copies it
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make an earlier champion the champion again: the very bytes that were promoted, each compared."""
    from luthier.champions import rollback as roll_back

    heard: list[Event] = []
    store = store_here(home)
    champion = roll_back(name, to=to, why=reason, home=store.root, plugins=plugins, listen=heard.append)
    _tell_change(champion, heard, as_json=as_json)


@app.command(cls=Command)
def history(name: NameArgument = None, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Show everything that happened to the champion of a name, newest first."""
    from luthier.champion_history import released
    from luthier.champions import name_in
    from luthier.registry import Champions

    store = store_here(home)
    entries = Champions(store).history(name_in(store, name))
    gone = released(entries)
    if as_json:
        print_json([{**asdict(entry), "held": _is_held(entry, gone)} for entry in reversed(entries)])
        return
    rows = [
        (str(entry.number), entry.time, entry.who, _what(entry, gone), entry.artifact[:12], "; ".join(_reasons(entry)))
        for entry in reversed(entries)
    ]
    print_table(["NUMBER", "TIME", "WHO", "WHAT", "MODEL", "WHY"], rows)


@app.command(cls=Command, epilog=FORGET_EXAMPLES)
def forget(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Whose.")],
    *,
    keep: Annotated[
        int | None, typer.Option("--keep", min=0, metavar="N", help="Keep the newest N besides the champion.")
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Let all go, the champion too: the name has none then.")
    ] = False,
    reason: ReasonOption = "",
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Let earlier champions go, so that `luthier store gc` may remove their models. The history stays."""
    from luthier.champions import forget as let_go

    if (keep is None) != everything:
        raise InputError("say what is to go", "One of them: --keep N, or --all.")
    store = store_here(home)
    entry = let_go(store, name, keep=keep or 0, why=reason, withdraw=everything)
    if as_json:
        print_json({"name": name, "forgotten": entry.forgotten if entry else [], "withdrawn": everything})
        return
    numbers = ", ".join(map(str, entry.forgotten)) if entry else ""
    typer.echo(f"forgot {f'number {numbers}' if numbers else 'nothing'} of {name}; free the room: luthier store gc")
    if everything:
        typer.echo(f"{name} has no champion now")


def _tell_change(champion: Champion, heard: list[Event], *, as_json: bool) -> None:
    """Say who is champion now, and warn of the hooks that failed."""
    from luthier.events import PluginHookFailed, Promoted

    promoted = next((event for event in heard if isinstance(event, Promoted)), None)
    if as_json:
        replaced = promoted.replaced if promoted else ""
        print_json({**champion.public(), "changed": promoted is not None, "replaced": replaced})
    else:
        _tell_champion(champion)
        if promoted is None:
            typer.echo("it was the champion already: nothing was done")
        elif promoted.replaced:
            back = f"luthier registry rollback {champion.name}"
            typer.echo(f"it replaces that of the run {promoted.replaced}; back: {back}")
        for objection in champion.entry.overruled:
            typer.secho("✗ ", fg="red", nl=False)
            typer.echo(f"overruled: {objection}")
    for event in heard:
        if isinstance(event, PluginHookFailed):
            warn(f"the plugin {event.plugin} was told and failed: {event.error}")


def _tell_champion(champion: Champion) -> None:
    entry = champion.entry
    typer.secho(champion.name, bold=True)
    done = "restored" if entry.restores else "promoted"
    why = f": {entry.why}" if entry.why else ""
    typer.echo(f"number {entry.number}, the run {entry.run}, {done} {entry.time} by {entry.who}{why}")


def _what(entry: HistoryEntry, gone: set[int]) -> str:
    if entry.event == "promoted":
        return f"promoted {entry.run}" + (" (forgotten)" if entry.number in gone else "")
    if entry.event == "rolled back":
        return f"back to {entry.restores}, {entry.run}"
    if entry.event in ("refused", "evaluated"):
        return f"{entry.event} {entry.run}"
    return f"{entry.event} {', '.join(map(str, entry.forgotten))}".strip()


def _is_held(entry: HistoryEntry, gone: set[int]) -> bool:
    return bool(entry.promotion) and entry.promotion not in gone


def _reasons(entry: HistoryEntry) -> list[str]:
    return [*filter(None, [entry.why]), *(f"overruled {each}" for each in entry.overruled)]
