"""Luthier's report: what a run did and what was measured, as one HTML file, and the model's card.

The plugin has no components. It listens for the end of a run and renders in a process of its own, so
the control plane never loads the libraries that read the tables.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from luthier import hookimpl

if TYPE_CHECKING:
    from luthier import Run


@hookimpl
def luthier_run_finished(run: Run) -> None:
    """Write `report.html`, whatever the run's outcome, and the model card of a run that is done."""
    from luthier_report._launch import render_in_process

    render_in_process(run.path)
