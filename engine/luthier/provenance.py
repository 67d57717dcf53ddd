"""What code a component is: the part of a step's key that changes when its plugin does."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import json
import platform
import sys
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from luthier.artifacts import hash_file, list_files
from luthier.components import Component
from luthier.environments import requirement_name, requirements_under_extra, requires

CORE = "luthier"


def code_of(component: Component) -> str:
    """The identity of a component's code.

    A wheel's is what its RECORD says of its files, an editable package's and a local file's are those of the files.
    """
    module = sys.modules[component.function.__module__.partition(".")[0]]
    return _distribution_code(component.distribution) or _files_code(Path(str(module.__file__)))


def versions_of(
    component: Component, there: Mapping[str, importlib.metadata.Distribution] | None = None
) -> dict[str, str]:
    """Versions of the distributions that the component's plugin requires directly.

    Of another Luthier plugin, the code counts. The core is not listed: a stage's contract version
    stands for it.

    Args:
        there: the distributions of the environment that the component runs in, by normalized name, if that
            is one of its own; what the plugin requires only there counts too.
    """
    found: dict[str, str] = {}
    for name in _requirements(component.distribution, own=there is not None):
        version = _version(name) if there is None else there[name].version if name in there else ""
        if version and name != CORE:
            found[name] = f"{version} {_distribution_code(name)}" if _is_plugin(name) else version
    return found


def this_platform() -> str:
    """The processor architecture and operating system, for steps whose result depends on them."""
    return f"{platform.machine()} {sys.platform}"


def environment() -> dict[str, Any]:
    """What a run's record says of where it ran: Python, platform, and every installed distribution."""
    distributions = {d.metadata["Name"]: d.version for d in importlib.metadata.distributions() if d.metadata["Name"]}
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "distributions": dict(sorted(distributions.items(), key=lambda item: item[0].lower())),
    }


@functools.cache
def _distribution(name: str) -> importlib.metadata.Distribution | None:
    try:
        return importlib.metadata.distribution(name)
    except (importlib.metadata.PackageNotFoundError, ValueError):
        return None


def _version(name: str) -> str:
    distribution = _distribution(name)
    return distribution.version if distribution else ""


@functools.cache
def _is_plugin(name: str) -> bool:
    distribution = _distribution(name)
    return bool(distribution and any(point.group == CORE for point in distribution.entry_points))


@functools.cache
def _requirements(name: str, *, own: bool) -> tuple[str, ...]:
    lines = [line for line in requires(name) if "extra ==" not in line]
    lines += requirements_under_extra(name) if own else []
    return tuple(sorted({requirement_name(line) for line in lines}))


def _distribution_code(name: str) -> str:
    distribution = _distribution(name)
    if distribution is None:
        return ""
    if not _is_editable(name):
        return _record_code(name)
    modules = {
        point.value.partition(":")[0].partition(".")[0] for point in distribution.entry_points if point.group == CORE
    }
    files = [Path(str(sys.modules[module].__file__)) for module in sorted(modules) if module in sys.modules]
    return hashlib.sha256("".join(_files_code(file) for file in files).encode()).hexdigest()


@functools.cache
def _record_code(name: str) -> str:
    distribution = _distribution(name)
    record = distribution.read_text("RECORD") if distribution else ""
    return hashlib.sha256("\n".join(_lines_of_code(record or "")).encode()).hexdigest()


def _lines_of_code(record: str) -> list[str]:
    """The lines of a RECORD that stand for the wheel's code.

    Bytecode, scripts and notes of where the wheel came from differ from one environment to the next.
    """
    paths = {line: PurePosixPath(line.partition(",")[0].replace("\\", "/")) for line in record.splitlines()}
    return sorted(
        line
        for line, path in paths.items()
        if path.parts and path.suffix != ".pyc" and path.parts[0] != ".." and not path.parts[0].endswith(".dist-info")
    )


@functools.cache
def _is_editable(name: str) -> bool:
    distribution = _distribution(name)
    text = distribution.read_text("direct_url.json") if distribution else ""
    return bool(text and json.loads(text).get("dir_info", {}).get("editable"))


def _files_code(module: Path) -> str:
    # Files may change while a notebook lives: each is hashed again when its size or time differs.
    if module.name != "__init__.py":
        return _hash_unchanged(module)
    digest = hashlib.sha256()
    for path in list_files(module.parent):
        if "__pycache__" not in path.parts:
            digest.update(f"{path.relative_to(module.parent).as_posix()}\0{_hash_unchanged(path)}\n".encode())
    return digest.hexdigest()


def _hash_unchanged(path: Path) -> str:
    stat = path.stat()
    return _hash_at(path, stat.st_mtime_ns, stat.st_size)


@functools.cache
def _hash_at(path: Path, _modified: int, _size: int) -> str:
    return hash_file(path)
