"""Plain output: JSON, aligned tables, numbers for people. Needs no library, so listings start fast."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Sequence
from typing import Any

import typer

GAP = "  "
NARROWEST_LAST = 24


def print_json(data: Any) -> None:
    """Print one JSON document."""
    typer.echo(json.dumps(data, ensure_ascii=False, indent=2))


def print_table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print aligned columns; in a terminal the last one is cut so that each row stays on one line.

    A pipe or a file gets everything.
    """
    widths = [max(len(row[index]) for row in (headers, *rows)) for index in range(len(headers))]
    room = shutil.get_terminal_size().columns - sum(width + len(GAP) for width in widths[:-1])
    limit = max(room, NARROWEST_LAST) if sys.stdout.isatty() else None
    typer.secho(_line(headers, widths, limit), bold=True)
    for row in rows:
        typer.echo(_line(row, widths, limit))


def _line(cells: Sequence[str], widths: Sequence[int], limit: int | None) -> str:
    last = cells[-1] if limit is None or len(cells[-1]) <= limit else cells[-1][: limit - 1] + "…"
    return GAP.join([*(cell.ljust(width) for cell, width in zip(cells[:-1], widths, strict=False)), last]).rstrip()


def warn(message: str, remedy: str = "") -> None:
    """Say on stderr what the user should know but need not stop for."""
    typer.secho("warning: ", err=True, fg="yellow", bold=True, nl=False)
    typer.echo(message, err=True)
    if remedy:
        typer.echo(f"  {remedy}", err=True)


def format_bytes(size: float) -> str:
    """`12 B`, `3.4 MB`: in powers of 1000."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" or size >= 100 else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"
