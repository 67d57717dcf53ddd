"""`luthier feedback`: look at the log, review it, move it, forget from it. Light: imports when it is called."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from luthier.options import YesOption, asking, confirm

if TYPE_CHECKING:
    from luthier_feedback.database import Mode
    from luthier_feedback.log import FeedbackLog

SHOWN_OF_A_KIND = 10
"""Sources and models that `stats` names."""

app = typer.Typer(
    help="List, review, move and forget what people said of a model's answers.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

LogOption = Annotated[
    str | None,
    typer.Option("--log", metavar="PATH|URL", help="The log.  [default: LUTHIER_FEEDBACK, else feedback/feedback.db]"),
]
StateOption = Annotated[
    Literal["new", "accepted", "rejected", "edited"] | None,
    typer.Option("--state", help="Only rows of which a reviewer said so."),
]
SourceOption = Annotated[str | None, typer.Option("--source", metavar="NAME", help="Only rows of this application.")]
PersonOption = Annotated[str | None, typer.Option("--person", metavar="NAME", help="Only rows of this person.")]
ModelOption = Annotated[str | None, typer.Option("--model", metavar="HASH", help="Only rows about this model.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.callback()
def feedback() -> None:
    """List, review, move and forget what people said of a model's answers."""


@contextmanager
def _open(log: str | None, mode: Mode) -> Iterator[FeedbackLog]:
    from luthier_feedback.log import FeedbackLog

    with FeedbackLog(log, mode=mode) as opened:
        yield opened


def _print_json(data: Any) -> None:
    typer.echo(json.dumps(data, ensure_ascii=False, indent=2))


@app.command("list")
def list_(
    *,
    state: StateOption = None,
    source: SourceOption = None,
    person: PersonOption = None,
    model: ModelOption = None,
    limit: Annotated[int, typer.Option(min=1, metavar="N", help="So many rows at most.")] = 20,
    log: LogOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the newest rows, the newest first."""
    from luthier_feedback.showing import table

    with _open(log, "read") as opened:
        rows = list(opened.rows(state=state, source=source, person=person, model=model, newest=limit))
    if as_json:
        _print_json([row.model_dump(mode="json") for row in rows])
        return
    # A pipe or a file gets everything.
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else sys.maxsize
    for line in table(rows, width):
        typer.echo(line)


@app.command()
def stats(*, log: LogOption = None, as_json: JsonOption = False) -> None:
    """Count the rows by vote, state, source and model."""
    from luthier_feedback.showing import shortened

    with _open(log, "read") as opened:
        counts, place = opened.counts(), opened.place
    if as_json:
        _print_json({"log": place, **counts})
        return
    typer.echo(place)
    for name in ("total", "vote", "state", "source", "model"):
        for value, count in list(counts[name].items())[:SHOWN_OF_A_KIND]:
            typer.echo(f"{name:8}{shortened(value, 40):42}{count:,}")
        if len(counts[name]) > SHOWN_OF_A_KIND:
            typer.echo(f"{name:8}and {len(counts[name]) - SHOWN_OF_A_KIND} more")


@app.command()
def review(
    row: Annotated[str | None, typer.Argument(metavar="[ID]", help="One row; without it all that are chosen.")] = None,
    *,
    accept: Annotated[bool, typer.Option("--accept", help="Accept it, or all that are chosen, unseen.")] = False,
    reject: Annotated[bool, typer.Option("--reject", help="Reject it, or all that are chosen, unseen.")] = False,
    edit: Annotated[
        str | None, typer.Option("--edit", metavar="TEXT", help="Accept it with this correction; needs ID.")
    ] = None,
    state: Annotated[
        Literal["new", "accepted", "rejected", "edited"],
        typer.Option("--state", help="Only rows of which a reviewer said so."),
    ] = "new",
    source: SourceOption = None,
    person: PersonOption = None,
    model: ModelOption = None,
    log: LogOption = None,
) -> None:
    """Review rows: one by one in the terminal, or at once with --accept or --reject."""
    from luthier import InputError
    from luthier_feedback.reviewing import review as ask_reviewer

    if accept + reject + (edit is not None) > 1:
        raise InputError("--accept, --reject and --edit exclude each other", "Give one of them.")
    if edit is not None and row is None:
        raise InputError("--edit is for one row", "Give its ID: luthier feedback list")
    with _open(log, "write") as opened:
        chosen = [opened.get(row)] if row else opened.rows(state=state, source=source, person=person, model=model)
        if edit is not None:
            opened.review(str(row), "edited", correction=edit)
            typer.echo("edited: 1")
        elif accept or reject:
            verdict: Literal["accepted", "rejected"] = "accepted" if accept else "rejected"
            reviewed = [opened.review(each.id, verdict) for each in list(chosen)]
            typer.echo(f"{verdict}: {len(reviewed):,}")
        else:
            with asking("Without a terminal, review without seeing the rows: --accept or --reject"):
                said = ask_reviewer(opened, chosen, lambda question: str(typer.prompt(question)))
            typer.echo(", ".join(f"{name}: {count}" for name, count in said.items()) or "nothing to review")


@app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="JSON Lines, plain or .gz: rows, or what is posted.")],
    *,
    quarantine: Annotated[
        Path | None,
        typer.Option("--quarantine", metavar="FILE", help="Gets the bad lines.  [default: FILE.bad.jsonl]"),
    ] = None,
    log: LogOption = None,
) -> None:
    """Put the rows of a file into the log. Exit code 1 if there were bad lines; the good ones are kept all the same."""
    from luthier_feedback.transfer import BadLine, import_rows

    aside = quarantine or Path(f"{file}.bad.jsonl")
    bad = 0
    with _open(log, "create") as opened:
        for outcome in import_rows(opened, file):
            if isinstance(outcome, BadLine):
                bad += 1
                with aside.open("w" if bad == 1 else "a", encoding="utf-8") as kept:
                    kept.write(outcome.to_line())
                typer.echo(f"{outcome.where}: {outcome.reason}", err=True)
            else:
                typer.echo(f"added {outcome.added:,}, changed {outcome.changed:,}, known {outcome.known:,}")
    if bad:
        typer.echo(f"{bad:,} bad lines are in {aside}", err=True)
        raise typer.Exit(1)


@app.command()
def export(
    file: Annotated[Path | None, typer.Argument(metavar="[FILE]", help="Where to; stdout without it.")] = None,
    *,
    state: StateOption = None,
    source: SourceOption = None,
    person: PersonOption = None,
    model: ModelOption = None,
    log: LogOption = None,
) -> None:
    """Write the rows as JSON Lines, in the order of the log; importing them gives the same rows."""
    from luthier_feedback.transfer import export_rows, write_whole

    with _open(log, "read") as opened:
        lines = export_rows(opened.rows(state=state, source=source, person=person, model=model))
        if file is None:
            for line in lines:
                typer.echo(line, nl=False)
            return
        count = write_whole(file, lines)
    typer.echo(f"exported {count:,} rows to {file}")


@app.command()
def purge(
    *,
    person: Annotated[str | None, typer.Option("--person", metavar="NAME", help="Remove this person's rows.")] = None,
    expired: Annotated[bool, typer.Option("--expired", help="Remove the rows that are past their retention.")] = False,
    homes: Annotated[
        list[Path],
        typer.Option(
            "--home",
            metavar="DIR",
            help="A store whose runs may have seen them. May be given several times.  "
            "[default: LUTHIER_HOME, else ./.luthier]",
        ),
    ] = [],  # noqa: B006 - typer copies it
    yes: YesOption = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be removed.")] = False,
    log: LogOption = None,
    as_json: JsonOption = False,
) -> None:
    """Remove rows from the log for good, and name the runs and models that saw them.

    The files of the database are written anew, so that no byte of the rows is left in them. Exports, backups, and the
    datasets and models of the runs that are named are yours to remove.
    """
    from luthier import InputError
    from luthier_feedback.seen import runs_that_saw

    if person is None and not expired:
        raise InputError("nothing says what to remove", "Give --person NAME or --expired.")
    with _open(log, "write") as opened:
        ids = opened.ids(person=person, expired=expired)
        seen = [each for home in (homes or (None,)) for each in runs_that_saw(ids, home)] if ids else []
        if not dry_run:
            if ids and not yes:
                confirm(f"Remove {len(ids):,} rows from {opened.place}?")
            ids = opened.purge(person=person, expired=expired)
    if as_json:
        _print_json({"dry_run": dry_run, "rows": ids, "runs": [each.to_json() for each in seen]})
        return
    typer.echo(f"{'would remove' if dry_run else 'removed'} {len(ids):,} rows")
    for each in seen:
        if each.trained is None:
            what = "used feedback, but its record is no longer in the store: nobody can tell which rows"
        else:
            what = f"{each.trained:,} of them to train on, {each.held_out:,} held out"
        typer.echo(f"run {each.run} ({each.recipe}): {what}")
        for step, artifact in each.models:
            typer.echo(f"  model {artifact[:12]} of {step}")
    if ids and not seen:
        typer.echo("no run saw them, of those in " + (", ".join(map(str, homes)) or "LUTHIER_HOME, else ./.luthier"))
    if seen:
        typer.echo(
            "Their datasets and models are still in the store: remove runs/RUN, let earlier champions go "
            "(`luthier registry forget`), then `luthier store gc`."
        )
