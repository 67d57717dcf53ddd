"""Write what a run's directory gets: `report.html`, and the card in the model's directory."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from luthier import InputError, Run
from luthier.errors import is_full_disk
from luthier_report._card import model_card
from luthier_report._page import report_page


def render(directory: Path) -> list[Path]:
    """Render the run in `directory` (`runs/<id>` of a store).

    Returns:
        The files that were written: the report, and the model card of a run that is done.

    Raises:
        InputError: if it is no run, or the files cannot be written.
    """
    run = Run.at(directory)
    written = [_write(run.report_path, report_page(run))]
    if run.state == "done" and run.model_path.is_dir():
        written.append(_write(run.model_path / "README.md", model_card(run)))
    return written


def _write(path: Path, text: str) -> Path:
    # Into a new file that then takes the name: a file of that name may be a link into the store.
    temporary = ""
    try:
        with tempfile.NamedTemporaryFile(
            "w", encoding="utf-8", dir=path.parent, prefix=f".{path.name}.", delete=False
        ) as file:
            temporary = file.name
            file.write(text)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except OSError as error:
        if temporary:
            Path(temporary).unlink(missing_ok=True)
        remedy = "Free some space." if is_full_disk(error) else f"Mend the permissions of {path.parent}."
        raise InputError(f"{path} cannot be written: {error.strerror}", remedy) from error
    return path
