"""Environments of their own, for plugins whose requirements conflict with the main one: which are built and sound.

A plugin names what conflicts under the extra `environment` of its distribution, so that installing the
plugin leaves the main environment as it is, and its components are listed and planned from there. Its
steps run by the interpreter of an environment that holds the plugin's whole closure and sees nothing of
the main one. Whatever distribution both have in the same version is hard-linked from the main one
(`environment_build.py`). An environment keeps conflicting versions apart; it is no security boundary.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import json
import os
import platform
import re
import sys
import sysconfig
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import Distribution
from pathlib import Path
from typing import Any

from luthier.errors import InputError
from luthier.locations import cache_directory

EXTRA = "environment"
"""The extra under which a distribution names what must not be installed into the main environment."""

ENVIRONMENT_VERSION = 1
MANIFEST = "environment.json"
RECORD = "RECORD"

_KNOWN: dict[str, Environment] = {}
"""Of this process: comparing an environment with what it was built from reads every RECORD of both."""


@dataclass(frozen=True)
class Manifest:
    """What `environment.json` says; it is written last, so an environment that has one is whole.

    Attributes:
        plugin: the distribution that the environment is for.
        requirements: what was resolved: the plugin (with its extra) and luthier.
        declared: the plugin's own lines of requirements, to notice when they change.
        interpreter: of Python, what compiled modules depend on, and where it is.
        parent: the main environment's prefix.
        linked: distributions that are the main environment's files: name to version and hash of the RECORD.
        installed: those that are the environment's own.
        own_bytes: what the installed ones take on the disk.
        created: when, in ISO 8601.
    """

    plugin: str
    requirements: list[str]
    declared: list[str]
    interpreter: dict[str, str]
    parent: str
    linked: dict[str, list[str]] = field(default_factory=dict)
    installed: dict[str, list[str]] = field(default_factory=dict)
    own_bytes: int = 0
    created: str = ""
    version: int = ENVIRONMENT_VERSION

    def to_json(self) -> str:
        """As the file holds it."""
        return json.dumps(asdict(self), indent=1)


@dataclass(frozen=True)
class Environment:
    """An environment on disk; `manifest` is None for one whose building did not end."""

    path: Path
    manifest: Manifest | None

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.path / ("Scripts/python.exe" if os.name == "nt" else "bin/python")

    @property
    def site(self) -> Path:
        """Where its pure Python distributions lie."""
        return site_of(self.path, "purelib")

    def distributions(self) -> dict[str, Distribution]:
        """What is in it, by normalized name."""
        return distributions_in({str(site_of(self.path, scheme)) for scheme in ("purelib", "platlib")})


def site_of(prefix: Path, scheme: str) -> Path:
    """The directory of `purelib` or `platlib` in a virtual environment of this interpreter's version."""
    return Path(sysconfig.get_path(scheme, scheme="venv", vars={"base": str(prefix), "platbase": str(prefix)}))


def root() -> Path:
    """Where environments lie: in the user's cache, since several projects may use one."""
    return cache_directory() / "environments"


def normalized(name: str) -> str:
    """A distribution's name as PyPA's specification compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def distributions_in(paths: Iterable[str] | None = None) -> dict[str, Distribution]:
    """The distributions on `paths` (of the running interpreter where None), by normalized name; first wins."""
    found: dict[str, Distribution] = {}
    everywhere = importlib.metadata.distributions
    for distribution in everywhere() if paths is None else everywhere(path=list(paths)):
        name = distribution.metadata["Name"]
        if name:
            found.setdefault(normalized(name), distribution)
    return found


def record_hash(distribution: Distribution) -> str:
    """The hash of what the distribution's RECORD says; empty where there is none."""
    text = distribution.read_text(RECORD)
    return hashlib.sha256(text.encode()).hexdigest()[:16] if text else ""


def requirements_under_extra(distribution: str) -> list[str]:
    """The requirements that a plugin names for an environment of its own; empty for a plugin without one."""
    return [line for line in requires(distribution) if _is_conflicting(line)]


@functools.cache
def declares(distribution: str) -> bool:
    """Whether the plugin's steps run in an environment of its own."""
    return bool(requirements_under_extra(distribution))


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


def requirement_name(line: str) -> str:
    """The normalized name of the distribution that a line of requirements names."""
    return normalized(re.split(r"[\s;<>=!~\[(@]", line.strip(), maxsplit=1)[0])


def _is_conflicting(line: str) -> bool:
    return re.search(rf"extra\s*==\s*['\"]{EXTRA}['\"]", line) is not None


def interpreter() -> dict[str, str]:
    """What an environment depends on of this interpreter."""
    return {
        "implementation": platform.python_implementation(),
        "version": platform.python_version(),
        "base": os.path.realpath(sys.base_prefix),
        "platform": sysconfig.get_platform(),
    }


def environments() -> list[Environment]:
    """Every environment in the cache, by name, unfinished ones too."""
    places = sorted(path for path in root().glob("*") if path.is_dir())
    return [Environment(path, _read(path / MANIFEST)) for path in places]


def _read(path: Path) -> Manifest | None:
    try:
        stored: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return None
    if stored.get("version") != ENVIRONMENT_VERSION:
        return None  # of another version of luthier: it is built anew
    return Manifest(**stored)


def current(distribution: str) -> Environment | None:
    """The sound environment of a plugin for this interpreter and main environment; None if there is none.

    Of several, the newest. A sound one is taken for sound as long as this process lives.
    """
    known = _KNOWN.get(distribution)
    if known and (known.path / MANIFEST).exists():
        return known
    sound = [each for each in _of(distribution) if not staleness(each)]
    found = max(sound, key=lambda each: each.manifest.created if each.manifest else "", default=None)
    if found:
        _KNOWN[distribution] = found
    return found


def _of(distribution: str) -> list[Environment]:
    name = normalized(distribution)
    return [each for each in environments() if each.manifest and each.manifest.plugin == name and of_this_main(each)]


def of_this_main(environment: Environment) -> bool:
    """Whether it was built from the environment that runs this."""
    return environment.manifest is not None and environment.manifest.parent == sys.prefix


def require(distribution: str) -> Environment:
    """The plugin's environment.

    Raises:
        InputError: if it is not built, or something that it was built from has changed.
    """
    sound = current(distribution)
    if sound:
        return sound
    reasons = [staleness(each) for each in _of(distribution)]
    what = f"is out of date: {'; '.join(reasons[-1])}" if reasons else "is not built"
    raise InputError(
        f"{distribution} runs in an environment of its own, which {what}", f"luthier env build {distribution}"
    )


def staleness(environment: Environment) -> list[str]:
    """Why an environment must be built again, a line each; empty if it need not."""
    manifest = environment.manifest
    if manifest is None:
        return ["its building did not end"]
    if not of_this_main(environment):
        # What became of another main environment is not known here, but for its end.
        return [] if Path(manifest.parent).exists() else [f"its main environment, {manifest.parent}, is gone"]
    reasons = [
        f"{name} was {manifest.interpreter.get(name)!r} and is {value!r}"
        for name, value in interpreter().items()
        if manifest.interpreter.get(name) != value
    ]
    if not environment.python.exists():
        reasons.append(f"its interpreter {environment.python} is gone")
    if sorted(requires(manifest.plugin)) != sorted(manifest.declared):
        reasons.append(f"the requirements of {manifest.plugin} changed")
    main = main_distributions()
    for name, (version, record) in manifest.linked.items():
        there = main.get(name)
        if there is None:
            reasons.append(f"{name} {version} is gone from the main environment")
        elif there.version != version:
            reasons.append(f"{name} was {version} in the main environment and is {there.version}")
        elif record_hash(there) != record:
            reasons.append(f"{name} {version} was installed anew in the main environment")
    return reasons


def main_distributions() -> Mapping[str, Distribution]:
    """The distributions of the environment that runs this."""
    return distributions_in()


def damaged_files(environment: Environment) -> list[str]:
    """The files whose bytes are not those that their distribution's RECORD names: edited, or gone."""
    wrong = []
    for distribution in environment.distributions().values():
        for file in distribution.files or ():
            if file.hash is None or ".." in file.parts:
                continue
            path = Path(str(file.locate()))
            if not path.is_file():
                wrong.append(f"{file} ({distribution.name}) is gone")
            elif _digest(path, file.hash.mode) != file.hash.value:
                wrong.append(f"{file} ({distribution.name}) was edited")
    return sorted(wrong)


def _digest(path: Path, algorithm: str) -> str:
    import base64

    with path.open("rb") as file:
        digest = hashlib.file_digest(file, algorithm).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
