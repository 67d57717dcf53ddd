"""What of an environment of its own is no longer as it was built: its files, held against their RECORDs."""

from __future__ import annotations

import hashlib
import importlib.machinery
import os
from collections.abc import Iterable, Iterator
from importlib.metadata import Distribution, PackagePath
from pathlib import Path

from luthier.distributions import lies_outside, main_distributions, record_hash
from luthier.environments import Environment, of_this_main


def damage(environment: Environment) -> list[str]:
    """What is not as it was built, a line each; empty for an environment whose building did not end.

    Told are distributions that went, came or changed, files that went or were edited, and what can be
    imported although no RECORD names it. A RECORD speaks for files only while it is the one that was
    built with. What Python caches (`__pycache__`) is not looked at.
    """
    manifest = environment.manifest
    if manifest is None:
        return []
    there, main = environment.distributions(), main_distributions() if of_this_main(environment) else {}
    built = {**manifest.linked, **manifest.installed}
    wrong = [f"{there[name].name} {there[name].version} was added" for name in there.keys() - built.keys()]
    named: set[str] = set()
    for name, (version, record) in built.items():
        difference = _difference(there.get(name), version, record)
        if difference:
            wrong.append(f"{name} {version} {difference}")
            continue
        shared = name in manifest.linked
        files = [file for file in there[name].files or () if not (shared and lies_outside(file))]
        root = os.path.realpath(str(there[name].locate_file("")))
        named.update(os.path.normpath(os.path.join(root, file)) for file in files)
        # A link's other end, while the main environment has the same distribution.
        other = main.get(name) if shared and name in main and record_hash(main[name]) == record else None
        wrong += _altered_files(files, there[name], other)
    for site in {os.path.realpath(site) for site in environment.sites}:
        wrong += [f"{os.path.relpath(path, site)} is in no RECORD" for path in _unnamed(site, named)]
    return sorted(wrong)


def _difference(found: Distribution | None, version: str, record: str) -> str:
    """How a distribution differs from the one that was built with; empty if it does not."""
    if found is None:
        return "is gone"
    if found.version != version:
        return f"is {found.version} now"
    return "" if record_hash(found) == record else "has another RECORD than it was built with, or none"


def _altered_files(files: Iterable[PackagePath], of: Distribution, other: Distribution | None) -> Iterator[str]:
    for file in files:
        how = _altered(of, file)
        if how and other and _altered(other, file):
            mend = f"pip install --force-reinstall --no-deps {of.name}=={of.version}"
            yield f"{file} ({of.name}) {how}, in the main environment too; mend that first: {mend}"
        elif how:
            yield f"{file} ({of.name}) {how}"


def _altered(distribution: Distribution, file: PackagePath) -> str:
    """What became of a file: nothing (empty) if its bytes have the hash that the RECORD names."""
    if file.hash is None:
        return ""
    path = Path(str(distribution.locate_file(file)))
    if not path.is_file():
        return "is gone"
    return "" if _digest(path, file.hash.mode) == file.hash.value else "was edited"


def _unnamed(site: str, named: Iterable[str]) -> Iterator[str]:
    """What can be imported from `site` and is not `named`; of a directory without named files, itself alone."""
    owned = {site}
    known = set(named)
    for path in known:
        folder = os.path.dirname(path)
        while folder not in owned:
            owned.add(folder)
            folder = os.path.dirname(folder)
    for folder, below, names in os.walk(site):
        foreign = [name for name in below if name != "__pycache__" and os.path.join(folder, name) not in owned]
        below[:] = [name for name in below if name != "__pycache__" and name not in foreign]
        yield from (path for name in foreign if _has_modules(path := os.path.join(folder, name)))
        modules = [name for name in names if name.endswith(_SUFFIXES) or (folder == site and name.endswith(".pth"))]
        yield from (path for name in modules if (path := os.path.join(folder, name)) not in known)


_SUFFIXES = tuple(importlib.machinery.all_suffixes())


def _has_modules(directory: str) -> bool:
    walked = os.walk(os.path.realpath(directory))
    return any(name.endswith(_SUFFIXES) for folder, _, names in walked for name in names if "__pycache__" not in folder)


def _digest(path: Path, algorithm: str) -> str:
    import base64

    with path.open("rb") as file:
        digest = hashlib.file_digest(file, algorithm).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
