"""groff, which renders manual pages: whether it is there, and which. Planning asks too."""

from __future__ import annotations

import shutil
import subprocess

from luthier.errors import InputError

FILTER = ["-k", "-t", "-mandoc", "-Tutf8", "-P-c", "-P-b", "-P-o", "-P-u"]
"""Any encoding in, tables laid out, both dialects of pages, plain UTF-8 out: no colour, no overstriking."""

ONE_LINE = ["-rLL=10000n", "-rHY=0", "-dAD=l"]
"""Paragraphs stay one line each, without hyphens and without stretched blanks."""


def groff() -> str:
    """The program.

    Raises:
        InputError: if it is not installed.
    """
    program = shutil.which("groff")
    if not program:
        raise InputError(
            "manual pages are rendered by groff, which is not installed",
            "Install it: `apt-get install groff-base`, `brew install groff`.",
        )
    return program


def version() -> str:
    """What it calls itself; other versions may lay out pages in another way."""
    said = subprocess.run([groff(), "--version"], capture_output=True, text=True, check=True).stdout
    return said.partition("\n")[0]
