"""What the steps of a run noted: metrics, tables, figures, samples, quarantined records.

The artifacts may be gone from the store: then there are no notes, and the report says so.
"""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from luthier import LuthierError, Report, Run, StepResult
from luthier_report._values import clip, displayable, value_text

SUBJECTS = ("candidate", "base", "reference", "champion")
TABLE_ROWS = 40
CELL_CHARACTERS = 400
QUARANTINED_SHOWN = 8


@dataclass(frozen=True)
class TableView:
    """A table as the page shows it: its first rows, as text."""

    name: str
    columns: list[str]
    numeric: list[bool]
    rows: list[list[str]]
    total: int


@dataclass(frozen=True)
class FigureView:
    """A figure, as a data URI: an image cannot run scripts or fetch anything.

    `adapts` tells one that has colours of its own for dark pages; any other is shown on white.
    """

    name: str
    uri: str
    adapts: bool


@dataclass(frozen=True)
class Quarantined:
    """The records that a step set aside: how many for each reason, and the first of them."""

    total: int = 0
    reasons: list[tuple[str, int]] = field(default_factory=list)
    shown: list[dict[str, str]] = field(default_factory=list)


def notes_of(run: Run, step: StepResult, subject: str = "candidate") -> Report | None:
    """A step's notes; None where it has none, or they are no longer in the store."""
    try:
        return run.report(step.id, subject)
    except LuthierError:
        # A damaged artifact in a store that cannot be written; the rest of the report is worth having.
        return None


def samples_of(notes: Report | None) -> dict[str, list[dict[str, str]]]:
    """Samples of dropped and changed rows, as the engine took them."""
    return notes.samples() if notes else {}


def records_of(notes: Report | None) -> dict[str, dict[str, Any]]:
    """The metrics as recorded, with the numbers of the single examples, by name."""
    return {record["name"]: record for record in notes.metric_records()} if notes else {}


def frame_of(notes: Report | None, name: str) -> pl.DataFrame | None:
    """One table, or None where there is none of that name."""
    return pl.read_parquet(notes.tables()[name]) if notes and name in notes.tables() else None


def tables_of(notes: Report | None, *, but: tuple[str, ...] = ()) -> list[TableView]:
    """All tables, except those in `but`, which are shown elsewhere in another way."""
    return [_view(name, path) for name, path in notes.tables().items() if name not in but] if notes else []


def search_table(step: StepResult) -> TableView | None:
    """The candidates that a step was searched among, best first; None where it was not searched."""
    if step.search is None or not step.search.trials:
        return None
    columns, rows = step.search.table()
    first = 1 + len(step.search.lists)  # after the mark and the values
    numeric = [first <= place for place in range(len(columns))]
    cells = [[clip(displayable(cell), CELL_CHARACTERS) for cell in row] for row in rows[:TABLE_ROWS]]
    shown = [displayable(column).replace("_", " ") for column in columns]
    return TableView("Candidates", shown, numeric, cells, len(rows))


def _view(name: str, path: Path) -> TableView:
    lazy = pl.scan_parquet(path)
    frame = lazy.head(TABLE_ROWS).collect()
    total = int(lazy.select(pl.len()).collect().item())
    rows = [[clip(value_text(value), CELL_CHARACTERS) for value in row] for row in frame.iter_rows()]
    columns = [displayable(column).replace("_", " ") for column in frame.columns]
    return TableView(_title(name), columns, [dtype.is_numeric() for dtype in frame.dtypes], rows, total)


def figures_of(notes: Report | None) -> list[FigureView]:
    """All figures."""
    return [_figure(name, path.read_bytes()) for name, path in notes.figures().items()] if notes else []


def _figure(name: str, svg: bytes) -> FigureView:
    return FigureView(_title(name), data_uri(svg), b"prefers-color-scheme" in svg)


def data_uri(svg: bytes) -> str:
    """An SVG file as the source of an image."""
    return f"data:image/svg+xml;base64,{base64.b64encode(svg).decode('ascii')}"


def _title(name: str) -> str:
    text = displayable(name).replace("-", " ").replace("_", " ")
    return text[:1].upper() + text[1:]


def quarantined_of(notes: Report | None) -> Quarantined:
    """The records that were set aside, of which there may be many, each of many megabytes: one at a time."""
    reasons: Counter[str] = Counter()
    shown: list[dict[str, str]] = []
    for record in notes.quarantined() if notes else ():
        entry = _quarantine_entry(record)
        reasons[entry["reason"]] += 1
        if len(shown) < QUARANTINED_SHOWN:
            shown.append(entry)
    return Quarantined(reasons.total(), sorted(reasons.items(), key=lambda item: (-item[1], item[0])), shown)


def _quarantine_entry(record: Mapping[str, str | None]) -> dict[str, str]:
    texts = {name: displayable(record.get(name) or "") for name in ("where", "reason")}
    return {**texts, "record": displayable(clip(record.get("record") or "", CELL_CHARACTERS))}
