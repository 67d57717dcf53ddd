"""Fetch the catalogues of Debian packages that the recipes beside this file read, into `catalogues/`.

    python examples/purposes/catalogues.py

apt fetches and verifies them, with its own keys, from the mirrors and of the release that it is set to; nothing of
the system's is changed, and no root is needed. Without apt, put `Packages.xz`, `Translation-en.bz2` and
`Translation-fr.bz2` of a Debian mirror's `dists/RELEASE/main/binary-amd64/` and `i18n/` into `catalogues/`.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
LANGUAGES = ("en", "fr")


def fetch(directory: Path) -> None:
    """Have apt fetch what it is set to, in the languages, into a directory."""
    if not shutil.which("apt-get"):
        sys.exit(f"there is no apt-get here; {(__doc__ or '').split('. ')[-1].strip()}")
    (directory / "partial").mkdir(parents=True, exist_ok=True)
    settings = {
        "Dir::State::lists": directory,
        "Dir::Cache": directory / "partial",
        "Acquire::Languages": ",".join(LANGUAGES),
        "APT::Sandbox::User": "",
        "Debug::NoLocking": "1",
    }
    options = [part for name, value in settings.items() for part in ("-o", f"{name}={value}")]
    subprocess.run(["apt-get", "update", *options], check=True)
    if not any(directory.glob("*Translation-*")):
        sys.exit(f"apt fetched no translations into {directory}; its configuration may leave them out")


if __name__ == "__main__":
    fetch(HERE / "catalogues")
