"""`luthier store`: look after the content-addressed store."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from luthier.cli._dispatch import Command, command_group
from luthier.cli._options import JsonOption, store_here
from luthier.cli._output import format_bytes, print_json, print_table
from luthier.errors import InputError
from luthier.options import HomeOption

if TYPE_CHECKING:
    from luthier.store import Store

app = command_group("Verify, clean up and look into the store of results.")

SHORTEST_PREFIX = 4

GC_EXAMPLES = """
Examples:

\b
  luthier store gc --dry-run
  luthier store gc --keep-runs 3
"""


@app.command(cls=Command)
def verify(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Read every artifact again and compare it with its hash.

    A damaged one goes to quarantine, and the step that gave it runs again next time. Exit code 1 if
    there was one.
    """
    store = store_here(home)
    hashes = list(store.objects())
    damaged = [name for name in hashes if not store.verify(name)]
    if as_json:
        print_json({"verified": len(hashes), "damaged": damaged})
    else:
        for name in damaged:
            typer.echo(f"damaged, moved to quarantine: {name}")
        typer.echo(f"{len(hashes) - len(damaged)} of {len(hashes)} artifacts are sound")
    if damaged:
        raise typer.Exit(1)


@app.command(cls=Command, epilog=GC_EXAMPLES)
def gc(
    keep_runs: Annotated[
        int | None,
        typer.Option(
            min=0,
            metavar="N",
            help="Keep the newest N runs, and the newest N evaluations of champions.  [default: all]",
        ),
    ] = None,
    grace: Annotated[
        float, typer.Option(min=0, metavar="S", help="Remove nothing younger than so many seconds.")
    ] = 3600,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be removed.")] = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Remove what no run refers to: steps, artifacts, leftovers of killed runs."""
    from luthier.garbage import collect

    collected = collect(store_here(home), keep_runs=keep_runs, grace_seconds=grace, dry_run=dry_run)
    if as_json:
        print_json({"dry_run": dry_run, **asdict(collected)})
        return
    parts = [
        f"{count:,} {what}"
        for what, count in (
            ("runs", collected.runs),
            ("steps", collected.steps),
            ("artifacts", collected.objects),
            ("work directories", collected.work),
            ("leftovers", collected.leftovers),
        )
        if count
    ]
    verb = "would remove" if dry_run else "removed"
    typer.echo(f"{verb} {', '.join(parts) or 'nothing'}; {format_bytes(collected.bytes)}")


@app.command(cls=Command)
def du(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Show how much room each part of the store takes."""
    store = store_here(home)
    usage = store.usage()
    total = sum(size for _, size in usage.values())
    if as_json:
        parts = {name: {"entries": count, "bytes": size} for name, (count, size) in usage.items()}
        print_json({"path": str(store.root), "parts": parts, "bytes": total})
        return
    rows = [(name, f"{count:,}", format_bytes(size)) for name, (count, size) in usage.items()]
    print_table(["PART", "ENTRIES", "SIZE"], [*rows, ("total", "", format_bytes(total))])
    typer.echo(store.root)


@app.command(cls=Command)
def show(
    hash: Annotated[str, typer.Argument(metavar="HASH", help="An artifact's hash, or a unique beginning of it.")],
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show an artifact: its kind, its files, the steps that gave it."""
    store = store_here(home)
    record = _artifact(store, _complete(store, hash))
    if as_json:
        print_json(record)
        return
    size = sum(file["size"] for file in record["files"])
    typer.secho(record["hash"], bold=True)
    typer.echo(f"{record['kind']}, form {record['form']}, {len(record['files'])} files, {format_bytes(size)}")
    typer.echo(record["path"])
    for step in record["steps"]:
        typer.echo(f"given by {step['stage']}:{step['component']}, {step['finished']}, key {step['key'][:12]}")
    typer.echo()
    print_table(
        ["FILE", "SIZE", "SHA-256"], [(f["path"], format_bytes(f["size"]), f["sha256"]) for f in record["files"]]
    )


def _complete(store: Store, prefix: str) -> str:
    """The hash of the one artifact that begins with `prefix`."""
    matching = [name for name in store.objects() if name.startswith(prefix)]
    if len(matching) == 1 and len(prefix) >= SHORTEST_PREFIX:
        return matching[0]
    if len(matching) > 1 or (matching and len(prefix) < SHORTEST_PREFIX):
        raise InputError(f"{prefix!r} is the beginning of several hashes", "Give more of it.")
    raise InputError(f"there is no artifact {prefix!r} in {store.root}", "See: luthier runs show latest")


def _artifact(store: Store, hash: str) -> dict[str, Any]:
    manifest = store.manifest(hash)
    artifact = store.get(hash)
    if manifest is None or artifact is None:
        raise InputError(f"the artifact {hash} is damaged and went to quarantine", "Run the recipe again.")
    steps = [
        {"key": step.key, "stage": step.stage, "component": step.component, "finished": step.finished}
        for step in store.steps()
        if hash in (step.output, step.report)
    ]
    files = [asdict(file) for file in manifest.files]
    return {
        "hash": hash,
        "kind": manifest.kind,
        "form": manifest.form,
        "path": str(artifact.path),
        "files": files,
        "steps": steps,
    }
