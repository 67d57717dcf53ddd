"""What code a component is: the part of a step's key that changes when its plugin does."""

from __future__ import annotations

import base64
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
from luthier.distributions import requirement_name, requirements_under, requires
from luthier.environments import requirements_under_extra

CORE = "luthier"


def code_of(component: Component) -> str:
    """The identity of a component's code.

    A wheel's is what its RECORD says of its files. An editable package's is what the RECORD of its wheel would
    say, so both are the same for the same files. A local file's is the hash of its bytes.
    """
    module = sys.modules[component.function.__module__.partition(".")[0]]
    return distribution_code(component.distribution) or _hash_unchanged(Path(str(module.__file__)))


def versions_of(
    component: Component, there: Mapping[str, importlib.metadata.Distribution] | None = None
) -> dict[str, str]:
    """Versions of the distributions that the component's plugin requires directly, or under the component's extra.

    Of another Luthier plugin, the code counts. The core is not listed: a stage's contract version
    stands for it.

    Args:
        there: the distributions of the environment that the component runs in, by normalized name, if that
            is one of its own; what the plugin requires only there counts too.
    """
    found: dict[str, str] = {}
    for name in _requirements(component.distribution, component.declared.extra, own=there is not None):
        version = _version(name) if there is None else there[name].version if name in there else ""
        if version and name != CORE:
            found[name] = f"{version} {distribution_code(name)}" if _is_plugin(name) else version
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
def _requirements(name: str, extra: str, *, own: bool) -> tuple[str, ...]:
    lines = [line for line in requires(name) if "extra ==" not in line]
    lines += requirements_under(extra, name) if extra else []
    lines += requirements_under_extra(name) if own else []
    return tuple(sorted({requirement_name(line) for line in lines}))


def distribution_code(name: str) -> str:
    """The identity of the core's or an installed plugin's code; empty for what is no distribution."""
    distribution = _distribution(name)
    if distribution is None:
        return ""
    if not is_editable(name):
        return _record_code(name)
    # The core has no entry point of its own group.
    modules = (
        {CORE}
        if name == CORE
        else {
            point.value.partition(":")[0].partition(".")[0]
            for point in distribution.entry_points
            if point.group == CORE
        }
    )
    files = [Path(str(sys.modules[module].__file__)) for module in sorted(modules) if module in sys.modules]
    return _hash_lines([line for file in files for line in _lines_as_in_record(file)])


@functools.cache
def _record_code(name: str) -> str:
    distribution = _distribution(name)
    record = distribution.read_text("RECORD") if distribution else ""
    return _hash_lines(_lines_of_code(record or ""))


def _hash_lines(lines: list[str]) -> str:
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()


def _lines_of_code(record: str) -> list[str]:
    """The lines of a RECORD that stand for the wheel's code.

    Bytecode, scripts and notes of where the wheel came from differ from one environment to the next.
    """
    paths = {line: PurePosixPath(line.partition(",")[0].replace("\\", "/")) for line in record.splitlines()}
    return [
        line
        for line, path in paths.items()
        if path.parts and path.suffix != ".pyc" and path.parts[0] != ".." and not path.parts[0].endswith(".dist-info")
    ]


@functools.cache
def is_editable(name: str) -> bool:
    """Whether a distribution is installed from its source tree, which may change."""
    distribution = _distribution(name)
    text = distribution.read_text("direct_url.json") if distribution else ""
    return bool(text and json.loads(text).get("dir_info", {}).get("editable"))


def _lines_as_in_record(module: Path) -> list[str]:
    """A line for each file of a module or package, as the RECORD of its wheel would have it."""
    packaged = module.name == "__init__.py"
    files = list_files(module.parent) if packaged else [module]
    root = module.parent.parent if packaged else module.parent
    return [_line_as_in_record(path, root) for path in files if "__pycache__" not in path.parts]


def _line_as_in_record(path: Path, root: Path) -> str:
    # Files may change while a notebook lives: each is hashed again when its size or time differs.
    digest = base64.urlsafe_b64encode(bytes.fromhex(_hash_unchanged(path))).rstrip(b"=").decode()
    return f"{path.relative_to(root).as_posix()},sha256={digest},{path.stat().st_size}"


def _hash_unchanged(path: Path) -> str:
    stat = path.stat()
    return _hash_at(path, stat.st_mtime_ns, stat.st_size)


@functools.cache
def _hash_at(path: Path, _modified: int, _size: int) -> str:
    return hash_file(path)
