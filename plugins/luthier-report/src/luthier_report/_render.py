"""Write what a run's directory gets: `report.html`, and the card in the model's directory."""

from __future__ import annotations

from pathlib import Path

from luthier import Run
from luthier_report._card import model_card
from luthier_report._page import report_page
from luthier_report.pages import write


def render(directory: Path) -> list[Path]:
    """Render the run in `directory` (`runs/<id>` of a store).

    Returns:
        The files that were written: the report, and the model card of a run that is done.

    Raises:
        InputError: if it is no run, or the files cannot be written.
    """
    run = Run.at(directory)
    written = [write(run.report_path, report_page(run))]
    if run.state == "done" and run.model_path.is_dir():
        written.append(write(run.model_path / "README.md", model_card(run)))
    return written
