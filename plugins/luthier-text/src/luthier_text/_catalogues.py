"""The catalogues of packages that apt keeps: which there are. Planning asks too, so no heavy library is imported."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from luthier.errors import InputError

APT_LISTS = "/var/lib/apt/lists"
NAME = re.compile(r"(?:.*_)?(?:Packages|Translation-(?P<language>[A-Za-z_@]+))(?P<suffix>\.[a-z0-9]+)?")
SUFFIXES = ("", ".gz", ".xz", ".bz2", ".lzma", ".lz4", ".zst")
KEEP = "Have apt fetch them: apt-get update -o Acquire::Languages={}. Set it in /etc/apt/apt.conf.d to keep them."


@dataclass(frozen=True)
class Catalogue:
    """A file of package descriptions.

    Attributes:
        path: where it lies.
        language: of its descriptions; empty for the index of packages, whose own are English.
    """

    path: Path
    language: str

    @property
    def holds(self) -> str:
        """The language of the descriptions."""
        return self.language or "en"


def catalogues(directory: Path, languages: Sequence[str]) -> list[Catalogue]:
    """The catalogues of some languages, by name.

    Raises:
        InputError: if the directory has none at all, or none for one of the languages; says how to have apt fetch it.
    """
    found = _all(directory)
    if not found:
        raise InputError(
            f"{directory} has no catalogue of packages (*_Packages, *_i18n_Translation-*)",
            "Run `apt-get update`, or name the directory of the catalogues with `path`.",
        )
    for language in languages:
        if not any(catalogue.holds == language for catalogue in found):
            there = sorted({catalogue.holds for catalogue in found})
            raise InputError(
                f"{directory} has no catalogue in the language {language!r}; there is {', '.join(there)}",
                KEEP.format(",".join(languages)),
            )
    return [catalogue for catalogue in found if catalogue.holds in languages]


def _all(directory: Path) -> list[Catalogue]:
    if not directory.is_dir():
        return []
    found = []
    for path in sorted(directory.iterdir()):
        # apt writes an underscore within a part of the name as %5f.
        name = NAME.fullmatch(unquote(path.name))
        if name and (name["suffix"] or "") in SUFFIXES and path.is_file():
            found.append(Catalogue(path, name["language"] or ""))
    return found


def patterns(path: str, languages: Sequence[str]) -> tuple[str, ...]:
    """The files whose content decides what is read, as patterns; asked while planning.

    Raises:
        InputError: as `catalogues`, so before any work.
    """
    if Path(path).is_absolute():  # The engine makes paths so; others are URIs, which are not fetched to plan.
        catalogues(Path(path), languages)
    translations = {f"*Translation-{language.partition('_')[0]}*" for language in languages}
    return ("*Packages*", *sorted(translations))
