"""What a round came to: the decision, its numbers and its reasons, as they are kept beside the run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from luthier import Run
from luthier_feedback.improvement.comparing import Comparison
from luthier_report.pages import write

VERSION = 1
NAMES = {False: "improve", True: "improve-dry-run"}
"""Of the files in a run's directory, by whether it was a dry run: what that decided was not done."""

Verdict = Literal["promoted", "refused", "unchanged"]


@dataclass(frozen=True)
class Against:
    """The champion that a challenger was compared with: the number of its entry, its run, its model's hash."""

    number: int = 0
    run: str = ""
    model: str = ""


@dataclass(frozen=True)
class Outcome:
    """A round.

    Attributes:
        recipe: the recipe's name, and so the champion's.
        verdict: the challenger was `promoted` or `refused`; `unchanged` where there was nothing to decide.
        dry_run: it was decided and nothing done.
        reasons: why, in the order of importance.
        champion: that there was.
        number: of the champion's entry in the history after it.
        run, model: the challenger's run and its model's hash.
        question: what was asked: `metric`, `confidence`, `tolerance`.
        rows: of feedback: `usable`, and of those `new` ones that the champion's run did not use, and `undecided` ones
            that no round decided on; None where nobody can tell.
        comparisons: the metrics of both.
        not_compared: gated metrics that are not, with the reason: the gates alone judge them.
        gates: what the gates decided: `step`, `verdict`, `reason`.
        time: when, in UTC.
        page: the page that shows it; empty where none was written.
    """

    recipe: str
    verdict: Verdict
    dry_run: bool
    reasons: list[str]
    champion: Against
    question: dict[str, Any]
    rows: dict[str, int | None]
    time: str
    number: int = 0
    run: str = ""
    model: str = ""
    comparisons: list[Comparison] = field(default_factory=list)
    not_compared: dict[str, str] = field(default_factory=dict)
    gates: list[dict[str, str]] = field(default_factory=list)
    page: str = ""

    def to_json(self) -> dict[str, Any]:
        """As `--json` prints it."""
        return {"version": VERSION, **asdict(self)}


def write_json(run: Run, outcome: Outcome) -> Path:
    """Write improve.json, of a dry run improve-dry-run.json, into a run's directory.

    Raises:
        InputError: if it cannot be written.
    """
    return write(
        run.path / f"{NAMES[outcome.dry_run]}.json", json.dumps(outcome.to_json(), ensure_ascii=False, indent=1) + "\n"
    )


def read_json(run: Run) -> Mapping[str, Any] | None:
    """What was decided about a run, and done; None where nothing was, or another version wrote it."""
    try:
        record = json.loads((run.path / f"{NAMES[False]}.json").read_text(encoding="utf-8"))
        return record if record["version"] == VERSION else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
