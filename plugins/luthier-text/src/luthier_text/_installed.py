"""The installed distributions and their Python files, as their RECORDs list them. Imports nothing heavy."""

from __future__ import annotations

import difflib
import re
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path, PurePosixPath
from typing import Literal

from luthier.errors import InputError

VENDORED = frozenset({"_vendor", "vendor", "_vendored", "vendored", "third_party", "site-packages"})
TESTS = frozenset({"test", "tests", "testing"})


@dataclass(frozen=True)
class SourceFile:
    """A Python file of a distribution.

    Attributes:
        relative: its path below the installation directory, as RECORD has it.
        path: where it lies.
    """

    relative: PurePosixPath
    path: Path

    @property
    def module(self) -> str:
        """The dotted name of the module."""
        parts = self.relative.with_suffix("").parts
        return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def normalised(name: str) -> str:
    """A distribution's name as the packaging standards compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def distributions(packages: Literal["installed"] | list[str]) -> dict[str, metadata.Distribution]:
    """The distributions by normalised name, sorted.

    Raises:
        InputError: for a name that is not installed.
    """
    # Of two of one name the first on the path is the one that would be imported.
    found: dict[str, metadata.Distribution] = {}
    for distribution in metadata.distributions():
        name = distribution.metadata["Name"]
        if name:
            found.setdefault(normalised(name), distribution)
    if packages == "installed":
        return dict(sorted(found.items()))
    for package in packages:
        if normalised(package) not in found:
            close = difflib.get_close_matches(normalised(package), found, 1)
            hint = f"Did you mean {close[0]}? " if close else ""
            raise InputError(f"the package {package!r} is not installed", f"{hint}Install it: pip install {package}")
    return {name: found[name] for name in sorted({normalised(package) for package in packages})}


def fingerprint(packages: Literal["installed"] | list[str]) -> str:
    """Names and versions of what would be read: changes when the docstrings may."""
    versions = [f"{name}=={found.version}" for name, found in distributions(packages).items()]
    return "\n".join([f"python {sys.version_info.major}.{sys.version_info.minor}", *versions])


def source_files(distribution: metadata.Distribution, *, private: bool, tests: bool) -> list[SourceFile]:
    """The `.py` files that the RECORD lists and that are wanted, sorted by path."""
    wanted = []
    for entry in distribution.files or ():
        relative = PurePosixPath(entry.as_posix())
        if _is_module(relative) and _is_wanted(relative, private=private, tests=tests):
            wanted.append(SourceFile(relative, Path(str(distribution.locate_file(entry)))))
    return sorted(wanted, key=lambda file: file.relative)


def _is_module(relative: PurePosixPath) -> bool:
    # Scripts and data files lie outside of the packages, or have names that no import could use.
    return (
        relative.suffix == ".py"
        and ".." not in relative.parts
        and all(part.isidentifier() for part in relative.with_suffix("").parts)
    )


def _is_wanted(relative: PurePosixPath, *, private: bool, tests: bool) -> bool:
    directories, stem = relative.parts[:-1], relative.stem
    if VENDORED.intersection(directories):
        return False
    if not tests and (TESTS.intersection(directories) or stem.startswith("test_") or stem == "conftest"):
        return False
    names = (*directories, stem)
    return private or not any(name.startswith("_") and not name.startswith("__") for name in names)
