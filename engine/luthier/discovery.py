"""Find plugins without importing them: entry points in the group `luthier`, and one-file local plugins."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.machinery import SourceFileLoader
from importlib.metadata import Distribution, EntryPoint, distributions
from pathlib import Path
from types import CodeType
from typing import Literal

from luthier.errors import InputError

GROUP = "luthier"
Origin = Literal["entry point", "local file"]


@dataclass(frozen=True)
class Candidate:
    """A plugin that was found and not yet imported: its entry points, or its file.

    `problem` says why it cannot be imported at all.
    """

    name: str
    distribution: str
    version: str
    entry_points: tuple[EntryPoint, ...] = ()
    file: Path | None = None

    problem: str = ""

    @property
    def origin(self) -> Origin:
        """Where it was found."""
        return "local file" if self.file else "entry point"

    def import_plugin(self) -> object:
        """Import it: a module, or the object that the entry point names."""
        return import_file(self.file) if self.file else self.entry_points[0].load()

    @property
    def module(self) -> str:
        """The module that its entry point names; empty for a local file."""
        return self.entry_points[0].module if self.entry_points else ""

    def source(self) -> tuple[Path | None, bool]:
        """The directory that it was installed from, None if it was no directory; and whether it is editable."""
        import json
        from urllib.parse import urlsplit
        from urllib.request import url2pathname

        distribution = self._distribution
        try:
            text = distribution.read_text("direct_url.json") if distribution else None
            record = json.loads(text or "{}")
            if "dir_info" not in record:
                return None, False
            return Path(url2pathname(urlsplit(record["url"]).path)), bool(record["dir_info"].get("editable"))
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            return None, False  # pip's note of it is damaged

    def lacks(self) -> list[str]:
        """The distributions that it requires, by name, and that are not installed."""
        from importlib.metadata import PackageNotFoundError, distribution

        from packaging.requirements import InvalidRequirement, Requirement

        missing = []
        for line in (self._distribution.requires or ()) if self._distribution else ():
            try:
                requirement = Requirement(line)
                if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                    distribution(requirement.name)
            except InvalidRequirement:
                continue
            except PackageNotFoundError:
                missing.append(requirement.name)
        return missing

    @property
    def _distribution(self) -> Distribution | None:
        return self.entry_points[0].dist if self.entry_points else None


def plugin_files(directory: Path, named: Sequence[Path] = ()) -> list[Path]:
    """The one-file plugins of a directory, and those that the user named.

    A directory's are `plugins.d/*.py`, by name, without those that begin with `_`.

    Raises:
        InputError: if a named one is no file.
    """
    for path in named:
        if not path.is_file():
            raise InputError(f"there is no plugin file {path}", "--plugin names one Python file.")
    beside = sorted(path for path in (directory / "plugins.d").glob("*.py") if not path.name.startswith("_"))
    return [*beside, *(path.absolute() for path in named)]


def names_in(text: str) -> frozenset[str]:
    """The names of a comma list."""
    return frozenset(filter(None, map(str.strip, text.split(","))))


def installed_candidates() -> list[Candidate]:
    """The entry points of the installed distributions, one candidate a name.

    Two distributions that use one name make one candidate with a `problem`; so does a distribution
    whose entry points cannot be read.
    """
    by_name: dict[str, list[EntryPoint]] = {}
    unreadable: list[Candidate] = []
    seen: set[str] = set()
    for distribution in distributions():
        try:
            found = distribution.entry_points.select(group=GROUP)
        except Exception as error:
            # One distribution's damaged file must not take every other plugin along.
            name = str(distribution.name)
            unreadable.append(Candidate(name, name, "", problem=f"its entry points cannot be read: {error}"))
            continue
        if not found or distribution.name in seen:
            continue  # the first one on the path is the one that is imported
        seen.add(distribution.name)
        for entry_point in found:
            by_name.setdefault(entry_point.name, []).append(entry_point)
    return [*(_candidate(name, found) for name, found in by_name.items()), *unreadable]


def _candidate(name: str, found: Sequence[EntryPoint]) -> Candidate:
    givers = sorted({(each.dist.name, each.dist.version) for each in found if each.dist})
    distribution = " and ".join(str(giver) for giver, _ in givers)
    version = " and ".join(str(version) for _, version in givers)
    problem = f"the entry point {name!r} is given more than once, by {distribution}" if len(found) > 1 else ""
    return Candidate(name, distribution, version, tuple(found), problem=problem)


def local_candidates(paths: Iterable[Path]) -> list[Candidate]:
    """The one-file plugins at `paths`; the same file twice counts once, two files of one name are a problem."""
    by_name: dict[str, list[Path]] = {}
    for file in dict.fromkeys(path.resolve() for path in paths):
        by_name.setdefault(file.stem, []).append(file)
    return [_local_candidate(name, files) for name, files in by_name.items()]


def _local_candidate(name: str, files: Sequence[Path]) -> Candidate:
    givers = " and ".join(map(str, files))
    problem = f"two local files are plugins of the name {name!r}: {givers}" if len(files) > 1 else ""
    return Candidate(name, givers, "", file=files[0], problem=problem)


class _SourceLoader(SourceFileLoader):
    """Compiles the file's bytes each time.

    Bytecode caches are matched by the time in seconds and the size, so an edit within the same second
    could run the old code; and a recipe's folder is no place for caches.
    """

    def get_code(self, fullname: str) -> CodeType:
        """The module's code, compiled now."""
        return self.source_to_code(self.get_data(self.path), self.path)


def import_file(file: Path) -> object:
    """Import a one-file plugin from its path, under a name of its own; `sys.path` stays as it is."""
    import hashlib

    digest = hashlib.sha256(os.fsencode(file)).hexdigest()[:12]
    name = f"luthier_local_{digest}_{''.join(c if c.isalnum() else '_' for c in file.stem)}"
    loader = _SourceLoader(name, str(file))
    spec = importlib.util.spec_from_file_location(name, file, loader=loader)
    if spec is None:
        raise ImportError(f"{file} cannot be imported")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pydantic look their module up here
    try:
        loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
