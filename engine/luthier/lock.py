"""`luthier.lock`: the code and the versions that a recipe's results come from, to hold another machine to.

It says what the plan uses: the plugins with their code, the versions that are in the steps' keys, the
environments of their own, Python, the platform. The recipe is no part of it: the two lie side by side.
"""

from __future__ import annotations

import importlib.metadata
import json
import platform
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from luthier import environments, provenance
from luthier.components import Component
from luthier.errors import InputError
from luthier.planner import Plan

LOCK_VERSION = 1
FILE_NAME = "luthier.lock"
ABSENT = "nothing"


@dataclass(frozen=True)
class Lock:
    """What a lock file holds.

    Attributes:
        luthier: the core's version.
        python: Python's version.
        platform: processor architecture and operating system.
        plugins: for each distribution or local file that the recipe uses, its version and the hash of its code.
        requirements: the versions that are in the steps' keys, of the main environment.
        environments: for each plugin with an environment of its own, the versions of all that is in it.
    """

    luthier: str
    python: str
    platform: str
    plugins: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
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
    plugins: dict[str, dict[str, str]] = {}
    requirements: dict[str, str] = {}
    for component, in_main in _components(plan):
        plugins[_plugin_name(component)] = {
            "version": component.version,
            "code": provenance.code_of(component),
        }
        for name, version in provenance.versions_of(component).items() if in_main else ():
            number, _, code = version.partition(" ")
            if code:
                plugins.setdefault(name, {"version": number, "code": code})
            else:
                requirements[name] = number
    return Lock(
        importlib.metadata.version(provenance.CORE),
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


def read_lock(path: Path) -> Lock:
    """Read a lock file.

    Raises:
        InputError: if there is none, it is no lock, or a newer Luthier wrote it.
    """
    try:
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        version = int(record.pop("version"))
    except FileNotFoundError:
        raise InputError(f"there is no lock {path}", "Write it: luthier lock RECIPE") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise _unreadable(path, str(error)) from None
    if version > LOCK_VERSION:
        raise InputError(f"{path} was written by a newer Luthier (format {version})", "pip install --upgrade luthier")
    try:
        lock = Lock(**record)
        {**lock.plugins, **lock.requirements, **lock.environments}  # noqa: B018 - all three are mappings
    except TypeError:
        raise _unreadable(path, "it is no lock") from None
    return lock


def check_lock(plan: Plan, path: Path) -> None:
    """Hold a plan to a lock.

    Raises:
        InputError: naming every difference, each with the command that mends it.
    """
    found = differences(read_lock(path), lock_of(plan), editable=_editable(plan))
    if found:
        lines = "\n".join(f"  {difference}" for difference in found)
        raise InputError(
            f"what is here differs from {path}:\n{lines}",
            "Nothing was run. To take what is here as right, write the lock again: luthier lock RECIPE",
        )


def differences(locked: Lock, here: Lock, *, editable: Iterable[str] = ()) -> list[Difference]:
    """What differs of all that is used here; what only the lock names is not used, and no difference.

    Args:
        locked: what the file says.
        here: what the plan says.
        editable: the plugins whose code is a source tree, or a file, and does not come from an index.
    """
    return [
        *_of_interpreter(locked, here),
        *_of_plugins(locked, here, frozenset(editable)),
        *_of_versions("", locked.requirements, here.requirements),
        *(
            difference
            for name, versions in sorted(here.environments.items())
            for difference in _of_versions(name, locked.environments.get(name, {}), versions)
        ),
    ]


def _of_interpreter(locked: Lock, here: Lock) -> Iterator[Difference]:
    remedies = {
        "luthier": f"pip install luthier=={locked.luthier}",
        "python": f"uv venv --python {locked.python}, and install into that",
        "platform": f"run it on {locked.platform}",
    }
    for name, remedy in remedies.items():
        was, now = getattr(locked, name), getattr(here, name)
        if was != now:
            yield Difference(name, was, now, remedy)


def _of_plugins(locked: Lock, here: Lock, editable: frozenset[str]) -> Iterator[Difference]:
    for name, now in sorted(here.plugins.items()):
        was = locked.plugins.get(name)
        if was is None:
            yield Difference(
                name, ABSENT, now["version"] or "a file", "luthier lock RECIPE, if the recipe is to use it"
            )
        elif was.get("version", "") != now["version"]:
            yield Difference(name, was.get("version", ""), now["version"], f"pip install {name}=={was.get('version')}")
        elif was.get("code") != now["code"]:
            again = f"pip install --force-reinstall --no-deps {name}=={now['version']}"
            remedy = "git log -p shows what changed; check out the code of then" if name in editable else again
            yield Difference(f"the code of {name}", _short(was.get("code", "")), _short(now["code"]), remedy)


def _of_versions(environment: str, locked: Mapping[str, str], here: Mapping[str, str]) -> Iterator[Difference]:
    """Of the main environment, where `environment` is empty, or of a plugin's own."""
    for name, now in sorted(here.items()):
        was = locked.get(name, "")
        if was == now:
            continue
        what = f"{name} in the environment of {environment}" if environment else name
        remedy = f"pip install {name}=={was}" if was else "luthier lock RECIPE, if it is to be used"
        if environment:
            remedy = f"luthier env build {environment} --rebuild"
        yield Difference(what, was or ABSENT, now, remedy)


def _components(plan: Plan) -> Iterator[tuple[Component, bool]]:
    """Every component that the plan uses, and whether it runs in the main environment."""
    for node in plan.nodes:
        in_main = not node.environment
        yield from ((step.component, in_main) for step in node.parts)
        yield from ((plan.registry.runtime(runtime.name), in_main) for runtime in node.runtimes.values())


def _plugin_name(component: Component) -> str:
    """A distribution's name; of a local file its stem and suffix, since it may lie anywhere."""
    packaged = environments.is_distribution(component.distribution)
    return component.distribution if packaged else Path(component.distribution).name


def _editable(plan: Plan) -> set[str]:
    names = {_plugin_name(component): component.distribution for component, _ in _components(plan)}
    return {
        name
        for name, giver in names.items()
        if not environments.is_distribution(giver) or provenance.is_editable(giver)
    }


def _short(code: str) -> str:
    return code[:12] or ABSENT


def _unreadable(path: Path, why: str) -> InputError:
    return InputError(f"{path} cannot be read: {why}", "Write it again: luthier lock RECIPE")
