"""What the steps of a run noted: metrics, tables, figures, samples, quarantined records.

The artifacts may be gone from the store: then there are no notes, and the report says so.
"""

from __future__ import annotations

import base64
import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from luthier import LuthierError, Report, Run
from luthier.runs import StepResult
from luthier_report._values import clip, displayable, value_text

SUBJECTS = ("candidate", "base", "reference", "champion")
TABLE_ROWS = 40
CELL_CHARACTERS = 400
QUARANTINED_SHOWN = 8
LONG_LINE = 1 << 20


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
    path = notes.path / "outcome.json" if notes else None
    if path is None or not path.exists():
        return {}
    samples: dict[str, list[dict[str, str]]] = json.loads(path.read_text(encoding="utf-8")).get("samples", {})
    return samples


def records_of(notes: Report | None) -> dict[str, dict[str, Any]]:
    """The metrics as recorded, with the numbers of the single examples, by name."""
    return {record["name"]: record for record in notes.metric_records()} if notes else {}


def frame_of(notes: Report | None, name: str) -> pl.DataFrame | None:
    """One table, or None where there is none of that name."""
    return pl.read_parquet(notes.tables()[name]) if notes and name in notes.tables() else None


def tables_of(notes: Report | None, *, but: tuple[str, ...] = ()) -> list[TableView]:
    """All tables, except those in `but`, which are shown elsewhere in another way."""
    return [_view(name, path) for name, path in notes.tables().items() if name not in but] if notes else []


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
    """The records that were set aside. Read line by line: a record may be a line of many megabytes."""
    path = notes.path / "quarantine.jsonl" if notes else None
    if path is None or not path.exists():
        return Quarantined()
    reasons: Counter[str] = Counter()
    shown: list[dict[str, str]] = []
    with path.open(encoding="utf-8") as file:
        for line in file:
            entry = _quarantine_entry(line)
            reasons[entry["reason"]] += 1
            if len(shown) < QUARANTINED_SHOWN:
                shown.append(entry)
    return Quarantined(reasons.total(), sorted(reasons.items(), key=lambda item: (-item[1], item[0])), shown)


def _quarantine_entry(line: str) -> dict[str, str]:
    if len(line) < LONG_LINE:
        entry = json.loads(line)
    else:
        # In a JSON text a quote inside a string is escaped, so this is where the record begins.
        head, _, record = line.partition(', "record": ')
        entry = {**json.loads(head + "}"), "record": record[1:CELL_CHARACTERS]}
    texts = {name: displayable(str(entry.get(name) or "")) for name in ("where", "reason")}
    return {**texts, "record": displayable(clip(str(entry.get("record") or ""), CELL_CHARACTERS))}
