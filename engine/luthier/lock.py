"""`luthier.lock`: the code and the versions that a recipe's results come from, to hold another machine to.

It says what the plan uses: the core and the plugins with their code, the versions that are in the steps' keys,
the environments of their own, Python, the platform. The recipe is no part of it: the two lie side by side.
"""

from __future__ import annotations

import importlib.metadata
import json
import platform
import shlex
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

from luthier import distributions, environments, provenance
from luthier.components import Component
from luthier.errors import InputError
from luthier.plans import Plan

LOCK_VERSION = 2
FILE_NAME = "luthier.lock"
ABSENT = "nothing"
WRITE = "luthier lock RECIPE"
STRICT = {"extra": "forbid"}
"""pydantic's configuration: a key that the format does not have is an error."""


@dataclass(frozen=True)
class Code:
    """A distribution's or a local file's version, and the hash of its code; a file has no version.

    Of the core, the hash is empty where the lock was written before it was noted.
    """

    __pydantic_config__: ClassVar[Mapping[str, str]] = STRICT

    version: str
    code: str


@dataclass(frozen=True)
class Lock:
    """What a lock file holds.

    Attributes:
        luthier: the core.
        python: Python's version.
        platform: processor architecture and operating system.
        plugins: the distributions and local files that the recipe uses, by name.
        requirements: the versions that are in the steps' keys, of the main environment.
        environments: for each plugin with an environment of its own, the versions of all that is in it.
    """

    __pydantic_config__: ClassVar[Mapping[str, str]] = STRICT

    luthier: Code
    python: str
    platform: str
    plugins: Mapping[str, Code] = field(default_factory=dict)
    requirements: Mapping[str, str] = field(default_factory=dict)
    environments: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    def to_json(self) -> str:
        """The file's text: sorted, so that a commit shows what changed."""
        return json.dumps({"version": LOCK_VERSION, **asdict(self)}, indent=2, sort_keys=True) + "\n"


@dataclass(frozen=True)
class Difference:
    """One thing that is not as the lock says, and what mends it."""

    what: str
    locked: str
    here: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.what}: the lock says {self.locked}, here is {self.here}; {self.remedy}"


def lock_of(plan: Plan) -> Lock:
    """What the lock of a plan says, here and now.

    Raises:
        InputError: if an environment that the plan needs is not built.
    """
    plugins: dict[str, Code] = {}
    requirements: dict[str, str] = {}
    for component, in_main in _components(plan):
        plugins[_plugin_name(component)] = Code(component.version, provenance.code_of(component))
        for name, version in provenance.versions_of(component).items() if in_main else ():
            number, _, code = version.partition(" ")
            if code:
                plugins.setdefault(name, Code(number, code))
            else:
                requirements[name] = number
    return Lock(
        Code(importlib.metadata.version(provenance.CORE), provenance.distribution_code(provenance.CORE)),
        platform.python_version(),
        provenance.this_platform(),
        plugins,
        requirements,
        environment_versions(plan),
    )


def environment_versions(plan: Plan) -> dict[str, dict[str, str]]:
    """The distributions of each environment of its own that the plan uses, by plugin."""
    return {
        name: {each: found.version for each, found in sorted(environments.require(name).distributions().items())}
        for name in {node.environment for node in plan.nodes if node.environment}
    }


def read_lock(path: Path, *, write: str = WRITE) -> Lock:
    """Read a lock file; one of an older format is migrated.

    Args:
        path: the file.
        write: the command that writes it, for the errors.

    Raises:
        InputError: if there is none, it is no lock, or a newer Luthier wrote it.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"there is no lock {path}", f"Write it: {write}") from None
    except OSError as error:
        raise _unreadable(path, error.strerror or str(error), write) from None
    except (ValueError, RecursionError) as error:
        raise _unreadable(path, str(error), write) from None
    version = record.pop("version", None) if isinstance(record, dict) else None
    if type(version) is not int or version < 1:
        raise _unreadable(path, "it is no lock: it does not say the version of its format", write)
    if version > LOCK_VERSION:
        raise InputError(f"{path} was written by a newer Luthier (format {version})", "pip install --upgrade luthier")
    return _validated(path, _migrated(record, version), write)


def _migrated(record: dict[str, Any], version: int) -> dict[str, Any]:
    """The record as the format of today has it."""
    # Format 1 noted the core's version alone.
    return record | {"luthier": {"version": record.get("luthier"), "code": ""}} if version == 1 else record


def _validated(path: Path, record: dict[str, Any], write: str) -> Lock:
    from pydantic import TypeAdapter, ValidationError

    try:
        return TypeAdapter(Lock).validate_python(record)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise _unreadable(path, f"it is no lock: {where}: {first['msg']}", write) from None


def check_lock(plan: Plan, path: Path) -> None:
    """Hold a plan to a lock.

    Raises:
        InputError: naming every difference, each with the command that mends it.
    """
    beside = plan.recipe.directory / FILE_NAME
    write = WRITE if path.absolute() == beside.absolute() else f"{WRITE} --output {shlex.quote(str(path))}"
    found = differences(read_lock(path, write=write), lock_of(plan), editable=_editable(plan))
    if found:
        lines = "\n".join(f"  {difference}" for difference in found)
        raise InputError(
            f"what is here differs from {path}:\n{lines}",
            f"Nothing was run. To take what is here as right, write the lock again: {write}",
        )


def differences(locked: Lock, here: Lock, *, editable: Iterable[str] = ()) -> list[Difference]:
    """What differs of all that is used here; what only the lock names is not used, and no difference.

    Args:
        locked: what the file says.
        here: what the plan says.
        editable: the distributions whose code is a source tree, or a file, and does not come from an index.
    """
    trees = frozenset(editable)
    return [
        *_of_core(locked.luthier, here.luthier, trees),
        *_of_interpreter(locked, here),
        *(
            difference
            for name, code in sorted(here.plugins.items())
            for difference in _of_code(name, locked.plugins.get(name), code, trees)
        ),
        *_of_versions("", locked.requirements, here.requirements),
        *(
            difference
            for name, versions in sorted(here.environments.items())
            for difference in _of_versions(name, locked.environments.get(name, {}), versions)
        ),
    ]


def _of_core(locked: Code, here: Code, editable: frozenset[str]) -> Iterator[Difference]:
    was = locked if locked.code else replace(locked, code=here.code)
    yield from _of_code(provenance.CORE, was, here, editable)


def _of_interpreter(locked: Lock, here: Lock) -> Iterator[Difference]:
    remedies = {
        "python": f"uv venv --python {locked.python}, and install into that",
        "platform": f"run it on {locked.platform}",
    }
    for name, remedy in remedies.items():
        was, now = getattr(locked, name), getattr(here, name)
        if was != now:
            yield Difference(name, was, now, remedy)


def _of_code(name: str, was: Code | None, now: Code, editable: frozenset[str]) -> Iterator[Difference]:
    if was is None:
        yield Difference(name, ABSENT, now.version or "a file", "write the lock again, if the recipe is to use it")
    elif was.version != now.version:
        yield Difference(name, was.version or "a file", now.version or "a file", f"pip install {name}=={was.version}")
    elif was.code != now.code:
        again = f"pip install --force-reinstall --no-deps {name}=={now.version}"
        remedy = "git log -p shows what changed; check out the code of then" if name in editable else again
        yield Difference(f"the code of {name}", _short(was.code), _short(now.code), remedy)


def _of_versions(environment: str, locked: Mapping[str, str], here: Mapping[str, str]) -> Iterator[Difference]:
    """Of the main environment, where `environment` is empty, or of a plugin's own."""
    for name, now in sorted(here.items()):
        was = locked.get(name, "")
        if was == now:
            continue
        what = f"{name} in the environment of {environment}" if environment else name
        remedy = f"pip install {name}=={was}" if was else "write the lock again, if it is to be used"
        if environment:
            remedy = f"luthier env build {environment} --rebuild"
        yield Difference(what, was or ABSENT, now, remedy)


def _components(plan: Plan) -> Iterator[tuple[Component, bool]]:
    """Every component that the plan uses, and whether it runs in the main environment."""
    for node in plan.nodes:
        in_main = not node.environment
        yield from ((step.component, in_main) for step in node.parts)
        yield from ((plan.registry.runtime(runtime.name), in_main) for runtime in node.runtimes.values())
        if node.parts and node.step.executor:
            yield plan.registry.find("executor", node.step.executor.name), in_main


def _plugin_name(component: Component) -> str:
    """A distribution's name; of a local file its stem and suffix, since it may lie anywhere."""
    packaged = distributions.is_distribution(component.distribution)
    return component.distribution if packaged else Path(component.distribution).name


def _editable(plan: Plan) -> set[str]:
    names = {_plugin_name(component): component.distribution for component, _ in _components(plan)}
    return {
        name
        for name, giver in names.items()
        if not distributions.is_distribution(giver) or provenance.is_editable(giver)
    } | ({provenance.CORE} if provenance.is_editable(provenance.CORE) else set())


def _short(code: str) -> str:
    return code[:12] or ABSENT


def _unreadable(path: Path, why: str, write: str) -> InputError:
    return InputError(f"{path} cannot be read: {why}", f"Write it again: {write}")
