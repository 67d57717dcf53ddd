"""Environments of their own, for plugins whose requirements conflict with the main one: which are built and sound.

A plugin names what conflicts under the extra `environment` of its distribution, so that installing the
plugin leaves the main environment as it is, and its components are listed and planned from there. Its
steps run by the interpreter of an environment that holds the plugin's whole closure and sees nothing of
the main one. Whatever distribution both have in the same version is hard-linked from the main one
(`environment_build.py`). An environment keeps conflicting versions apart; it is no security boundary.
"""

from __future__ import annotations

import functools
import json
import os
import platform
import sys
import sysconfig
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from importlib.metadata import Distribution
from pathlib import Path
from typing import Any

from luthier.distributions import (
    distributions_in,
    main_distributions,
    normalized,
    record_hash,
    requirements_under,
    requires,
)
from luthier.errors import InputError
from luthier.locations import cache_directory

EXTRA = "environment"
"""The extra under which a distribution names what must not be installed into the main environment."""

ENVIRONMENT_VERSION = 1
MANIFEST = "environment.json"

_KNOWN: dict[str, Environment] = {}
"""Of this process: comparing an environment with what it was built from reads every RECORD of it."""


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
    def plugin(self) -> str:
        """The distribution that it is for; of an unfinished one, what its directory's name says."""
        return self.manifest.plugin if self.manifest else self.path.name.rpartition("-")[0] or self.path.name

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.path / ("Scripts/python.exe" if os.name == "nt" else "bin/python")

    @property
    def sites(self) -> set[Path]:
        """Where its distributions lie: one directory, or two on some platforms."""
        interpreter = self.manifest.interpreter if self.manifest else {}
        version = interpreter.get("version", platform.python_version())
        return {site_of(self.path, scheme, version) for scheme in ("purelib", "platlib")}

    def distributions(self) -> dict[str, Distribution]:
        """What is in it, by normalized name."""
        return distributions_in(str(site) for site in sorted(self.sites))


def site_of(prefix: Path, scheme: str, version: str = platform.python_version()) -> Path:
    """The directory of `purelib` or `platlib` in a virtual environment of a Python of that version."""
    variables = {"base": str(prefix), "platbase": str(prefix), "py_version_short": ".".join(version.split(".")[:2])}
    return Path(sysconfig.get_path(scheme, scheme="venv", vars=variables))


def root() -> Path:
    """Where environments lie: in the user's cache, since several projects may use one."""
    return cache_directory() / "environments"


def requirements_under_extra(distribution: str) -> list[str]:
    """The requirements that a plugin names for an environment of its own; empty for a plugin without one."""
    return requirements_under(EXTRA, distribution)


@functools.cache
def declares(distribution: str) -> bool:
    """Whether the plugin's steps run in an environment of its own."""
    return bool(requirements_under_extra(distribution))


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
    """None if it is not there, of another version of luthier or damaged: the environment is built anew then."""
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    kinds = {each.name: str(each.type) for each in fields(Manifest)}
    if not isinstance(stored, dict) or stored.keys() != kinds.keys() or stored["version"] != ENVIRONMENT_VERSION:
        return None
    return Manifest(**stored) if all(_IS[kind](stored[name]) for name, kind in kinds.items()) else None


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(each, str) for each in value)


_IS: dict[str, Callable[[Any], bool]] = {
    "str": lambda value: isinstance(value, str),
    "int": lambda value: type(value) is int and 0 <= value < 2**63,
    "list[str]": _are_texts,
    "dict[str, str]": lambda value: isinstance(value, dict) and _are_texts(list(value.values())),
    "dict[str, list[str]]": lambda value: (
        isinstance(value, dict) and all(_are_texts(each) and len(each) == 2 for each in value.values())
    ),
}
"""Whether a value read from JSON is what a field of the manifest holds. pydantic's import would cost the
control plane more than all else that `luthier plugins list` does."""


def current(distribution: str) -> Environment | None:
    """The sound environment of a plugin for this interpreter and main environment; None if there is none.

    Of several, the newest. A sound one is taken for sound as long as this process lives.
    """
    return assess(distribution)[0]


def assess(distribution: str) -> tuple[Environment | None, list[str] | None]:
    """The sound environment of a plugin, as `current`; without one, why the newest is out of date.

    Both are None where none was built.
    """
    known = _KNOWN.get(distribution)
    if known and (known.path / MANIFEST).exists():
        return known, None
    reasons: list[str] | None = None
    for each in sorted(
        _of(distribution), key=lambda each: each.manifest.created if each.manifest else "", reverse=True
    ):
        found = staleness(each)
        if not found:
            _KNOWN[distribution] = each
            return each, None
        reasons = reasons or found
    return None, reasons


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
    sound, reasons = assess(distribution)
    if sound:
        return sound
    what = f"is out of date: {'; '.join(reasons)}" if reasons else "is not built"
    raise InputError(
        f"{distribution} runs in an environment of its own, which {what}", f"luthier env build {distribution}"
    )


def staleness(environment: Environment) -> list[str]:
    """Why an environment must be built again, a line each; empty if it need not."""
    manifest = environment.manifest
    if manifest is None:
        return [f"its building did not end, or its {MANIFEST} is damaged"]
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
        elif record and record_hash(there) == record:
            continue
        elif there.version != version:
            reasons.append(f"{name} was {version} in the main environment and is {there.version}")
        elif record_hash(there) != record:
            reasons.append(f"{name} {version} was installed anew in the main environment")
    return reasons
