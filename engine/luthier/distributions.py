"""Installed distributions: found by their normalized names, what they require, and the RECORD of their files."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import Distribution
from pathlib import PurePosixPath

RECORD = "RECORD"


_METADATA = {".dist-info": "METADATA", ".egg-info": "PKG-INFO"}


def normalized(name: str) -> str:
    """A distribution's name as PyPA's specification compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def distributions_in(paths: Iterable[str] | None = None) -> dict[str, Distribution]:
    """The distributions on `paths` (of the running interpreter where None), by normalized name; first wins.

    Names are read off the directories of metadata: to parse every METADATA takes longer than all else that a
    command of the control plane does.
    """
    found: dict[str, Distribution] = {}
    for path in sys.path if paths is None else paths:
        for name, place in _metadata_places(path):
            found.setdefault(normalized(name), Distribution.at(place))
    return found


def _metadata_places(path: str) -> Iterator[tuple[str, str]]:
    """The directories of metadata on one entry of `sys.path`, with the names of their distributions.

    One without the file that names it is left out: its distribution was removed, or never installed whole.
    """
    try:
        names = sorted(os.listdir(path or os.curdir))
    except OSError:  # not there, or a zip file, which pip does not install into
        return
    for name in names:
        stem, suffix = os.path.splitext(name)
        if suffix in _METADATA and os.path.isfile(os.path.join(path, name, _METADATA[suffix])):
            yield stem.partition("-")[0], os.path.join(path, name)


def record_hash(distribution: Distribution) -> str:
    """The hash of what the distribution's RECORD says; empty where there is none that can be read."""
    try:
        text = distribution.read_text(RECORD)
    except UnicodeDecodeError:
        return ""
    return hashlib.sha256(text.encode()).hexdigest()[:16] if text else ""


def is_distribution(name: str) -> bool:
    """Whether a plugin came as a distribution, and not as a local file."""
    try:
        importlib.metadata.distribution(name)
    except (importlib.metadata.PackageNotFoundError, ValueError):
        return False
    return True


def requires(distribution: str) -> list[str]:
    """A distribution's requirements, those of its extras among them; none for a local file."""
    try:
        return importlib.metadata.distribution(distribution).requires or []
    except (importlib.metadata.PackageNotFoundError, ValueError):
        return []


def requirements_under(extra: str, distribution: str) -> list[str]:
    """The requirements that a distribution has under one of its extras."""
    marker = re.compile(rf"extra\s*==\s*['\"]{re.escape(extra)}['\"]")
    return [line for line in requires(distribution) if marker.search(line)]


def requirement_name(line: str) -> str:
    """The normalized name of the distribution that a line of requirements names."""
    return normalized(re.split(r"[\s;<>=!~\[(@]", line.strip(), maxsplit=1)[0])


def main_distributions() -> Mapping[str, Distribution]:
    """The distributions of the environment that runs this."""
    return distributions_in()


def lies_outside(file: PurePosixPath) -> bool:
    """Whether a RECORD's entry is beside the site directory: a command, whose first line names an interpreter."""
    return ".." in file.parts or file.is_absolute()
