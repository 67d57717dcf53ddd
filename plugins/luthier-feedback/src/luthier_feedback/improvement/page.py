"""A round as one HTML page, beside the report of its run."""

from __future__ import annotations

from pathlib import Path

from luthier import Run
from luthier_feedback.improvement.figure import COLOURS, figure
from luthier_feedback.improvement.outcome import NAMES, Outcome
from luthier_feedback.improvement.rounds import Rounds
from luthier_feedback.improvement.terminal import MARKS, headline
from luthier_report.pages import template_environment, write


def page_path(run: Run, *, dry_run: bool) -> Path:
    """Where the page of a decision about a run is."""
    return run.path / f"{NAMES[dry_run]}.html"


def write_page(run: Run, outcome: Outcome, rounds: Rounds) -> Path:
    """Write the page into the run's directory.

    Args:
        run: the challenger's.
        outcome: what was decided about it.
        rounds: what happened under the champion's name so far, this decision included unless it was a dry run.

    Raises:
        InputError: if it cannot be written.
    """
    template = template_environment("luthier_feedback").get_template("improve.html")
    report = run.report_path.name if run.report_path.exists() else ""
    return write(
        page_path(run, dry_run=outcome.dry_run),
        template.render(
            outcome=outcome,
            headline=headline(outcome),
            marks=MARKS,
            report=report,
            rounds=rounds,
            figures={metric: drawn for metric in rounds.metrics if (drawn := figure(rounds, metric))},
            colours=COLOURS,
        ),
    )
