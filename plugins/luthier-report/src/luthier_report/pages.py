"""What other plugins' pages share with the report: templates, style, numbers, axes, and the writing of the file.

A template begins with `{% include 'luthier_report/head.html' %}`, which lets a page load and run nothing, and goes on
with its title; it takes the style in with `{% include 'luthier_report/report.css' %}`.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import jinja2

from luthier import InputError
from luthier.errors import is_full_disk
from luthier_report import _values
from luthier_report._axes import Axes, end, path, ticks
from luthier_report._values import number

__all__ = ["Axes", "end", "number", "path", "template_environment", "ticks", "write"]

FILTERS = (
    "number",
    "signed",
    "size",
    "duration",
    "moment",
    "value_text",
    "metric_title",
    "displayable",
    "cell",
    "setting",
)


def template_environment(package: str) -> jinja2.Environment:
    """The templates of a package, and under `luthier_report/` the report's.

    HTML is escaped; a name that does not exist is an error.

    Args:
        package: the import name of the package whose directory `templates` is read.
    """
    report = jinja2.PackageLoader("luthier_report")
    loaded = jinja2.Environment(
        loader=jinja2.ChoiceLoader([jinja2.PackageLoader(package), jinja2.PrefixLoader({"luthier_report": report})]),
        autoescape=jinja2.select_autoescape(["html"]),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    loaded.filters |= {name: getattr(_values, name) for name in FILTERS}
    return loaded


def write(path: Path, text: str) -> Path:
    """Write a page, whole or not at all.

    Raises:
        InputError: if it cannot be written.
    """
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
