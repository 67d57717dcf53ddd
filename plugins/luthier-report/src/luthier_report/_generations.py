"""The same held-out prompts, completed by each model, side by side."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import polars as pl

from luthier import Run, StepResult
from luthier_report._comparison import GENERATIONS, SUBJECT_TITLES, split_of
from luthier_report._notes import SUBJECTS, frame_of, notes_of
from luthier_report._values import clip, displayable, number

EACH = 3
PROMPT_CHARACTERS = 900
OUTPUT_CHARACTERS = 700
_NOT_SCORES = ("id", "group", "prompt", "reference", "output")


@dataclass(frozen=True)
class Output:
    """One model's completion, and its score."""

    subject: str
    title: str
    text: str
    score: str


@dataclass(frozen=True)
class Example:
    """A prompt with the text that was expected and what each model wrote."""

    kind: str
    prompt: str
    expected: str
    outputs: list[Output]


@dataclass(frozen=True)
class Generations:
    """The chosen examples of one validator."""

    step: str
    split: str
    score: str
    total: int
    examples: list[Example]


def generations(run: Run) -> list[Generations]:
    """Of each validator that kept a table of generations, some where the candidate did best, middling, worst."""
    found = (_of_step(run, step) for step in run.steps if step.stage == "validate")
    return [one for one in found if one]


def _of_step(run: Run, step: StepResult) -> Generations | None:
    frames = {subject: frame_of(notes_of(run, step, subject), GENERATIONS) for subject in SUBJECTS}
    tables = {
        subject: {row["id"]: row for row in frame.iter_rows(named=True)}
        for subject, frame in frames.items()
        if frame is not None and {"id", "prompt", "output"} <= set(frame.columns)
    }
    candidate = frames["candidate"]
    if candidate is None or not tables.get("candidate"):
        return None
    score = _score_column(candidate)
    chosen = choose(_margins(tables, score))
    examples = [_example(kind, row_id, tables, score) for row_id, kind in chosen]
    return Generations(step.id, split_of(step), score, len(tables["candidate"]), examples)


def _score_column(frame: pl.DataFrame) -> str:
    scores = [name for name, dtype in frame.schema.items() if dtype.is_numeric() and name not in _NOT_SCORES]
    return next((name for name in scores if name == "rougeL"), scores[0] if scores else "")


def _margins(tables: dict[str, dict[str, dict[str, Any]]], score: str) -> dict[str, float]:
    """How much better the candidate did than the base on each prompt, or how well where there is no base."""
    base = tables.get("base", {})
    margins = {}
    for row_id, row in tables["candidate"].items():
        mine, theirs = row.get(score) or 0.0, base.get(row_id, {}).get(score) or 0.0
        margins[row_id] = float(mine - theirs)
    return margins


def choose(margins: dict[str, float], each: int = EACH) -> list[tuple[str, str]]:
    """Ids with the largest, the middle and the smallest margins, `each` of them; ties go by id.

    Fewer where there are fewer: no id comes twice.
    """
    ranked = sorted(margins, key=lambda row_id: (-margins[row_id], row_id))
    if len(ranked) <= 3 * each:
        return [(row_id, "") for row_id in ranked]
    middle = (len(ranked) - each) // 2
    return [
        *((row_id, "best") for row_id in ranked[:each]),
        *((row_id, "middling") for row_id in ranked[middle : middle + each]),
        *((row_id, "worst") for row_id in ranked[-each:]),
    ]


def _example(kind: str, row_id: str, tables: dict[str, dict[str, dict[str, Any]]], score: str) -> Example:
    row = tables["candidate"][row_id]
    outputs = [
        Output(
            subject,
            SUBJECT_TITLES[subject],
            _text(rows[row_id]["output"], OUTPUT_CHARACTERS),
            _score(rows[row_id], score),
        )
        for subject, rows in tables.items()
        if row_id in rows
    ]
    return Example(
        kind, _text(row["prompt"], PROMPT_CHARACTERS), _text(row.get("reference"), OUTPUT_CHARACTERS), outputs
    )


def _text(value: Any, limit: int) -> str:
    return clip(displayable(str(value or "")), limit)


def _score(row: dict[str, Any], score: str) -> str:
    value = row.get(score)
    return number(float(value)) if isinstance(value, (int, float)) else ""
