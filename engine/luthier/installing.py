"""What installing or uninstalling a plugin changes in the running environment: shown first, then made, by pip.

pip resolves (`--dry-run --report`) and installs; where distributions come from is what pip is set to. pip
does not say which installed distributions a change leaves without what they require, nor whether what comes
is a plugin. Both are worked out here, from the metadata of what is installed and of what would come.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import sysconfig
import tempfile
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import Distribution
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from luthier.catalogue import FIRST_PARTY
from luthier.discovery import GROUP
from luthier.distributions import main_distributions, normalized, requirement_name
from luthier.environment_build import Sources, call
from luthier.errors import InputError
from luthier.scaffold import PREFIX
from luthier.suggest import did_you_mean

if TYPE_CHECKING:
    from packaging.requirements import Requirement

CORE = "luthier"
GROUPS = (GROUP, f"{GROUP}.commands")
"""Entry points by which a distribution is a plugin."""
Action = Literal["install", "upgrade", "downgrade", "reinstall", "remove"]
_PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input")


@dataclass(frozen=True)
class Change:
    """A distribution that comes, goes or changes its version.

    Attributes:
        name: normalized.
        before, after: the versions; empty where it is not installed.
        requested: whether the user named it, or something needs it.
    """

    name: str
    before: str
    after: str
    requested: bool = False

    @property
    def action(self) -> Action:
        """What is done."""
        if not self.after:
            return "remove"
        if not self.before:
            return "install"
        if self.before == self.after:
            return "reinstall"
        from packaging.version import Version

        return "upgrade" if Version(self.before) < Version(self.after) else "downgrade"


@dataclass(frozen=True, order=True)
class Break:
    """A requirement that holds now, or that comes along, and would not hold after the change.

    Attributes:
        distribution, version: which one requires it.
        requirement: as its metadata says it.
        found: the version that would be there; empty if none.
        needed: whether Luthier or a plugin is that distribution, or needs it.
    """

    distribution: str
    version: str
    requirement: str
    found: str
    needed: bool


@dataclass(frozen=True)
class Plan:
    """What pip would do, and what that breaks."""

    changes: tuple[Change, ...]
    breaks: tuple[Break, ...]


# --- what pip would do --------------------------------------------------------------------------------


def plan_install(requirements: Sequence[str], *, sources: Sources, upgrade: bool = False) -> Plan:
    """What installing `requirements` (names, versions, paths, URLs: what pip takes) would change.

    Raises:
        InputError: if pip is missing, may not change the environment, finds no versions that fit, or if what is
            named is no plugin.
    """
    require_pip()
    before = _installed()
    _refuse_plugin_names(requirements, before)
    report = _report(requirements, sources, upgrade)
    coming = {normalized(item["metadata"]["name"]): item for item in report["install"]}
    _refuse_others(requirements, coming, before, sources)
    after = {**before, **{name: _State.of_report(item["metadata"]) for name, item in coming.items()}}
    changes = tuple(
        Change(name, before[name].version if name in before else "", after[name].version, bool(item.get("requested")))
        for name, item in coming.items()
    )
    return Plan(tuple(sorted(changes, key=lambda each: (not each.requested, each.name))), _breaks(before, after))


def _refuse_plugin_names(requirements: Sequence[str], installed: Mapping[str, _State]) -> None:
    """Refuse the name of an installed plugin in place of its distribution's: on an index it may be anyone's."""
    for line in requirements:
        givers = [each for each, names in plugin_names().items() if line in names]
        if givers and normalized(line) not in installed:
            raise InputError(
                f"{line} is a plugin of {givers[0]}, which is installed",
                f"To upgrade it: luthier plugins install --upgrade {givers[0]}",
            )


def _refuse_others(
    requirements: Sequence[str],
    coming: Mapping[str, Mapping[str, Any]],
    installed: Mapping[str, _State],
    sources: Sources,
) -> None:
    """Refuse what is no plugin, before anything of it is installed."""
    named = {name: item for name, item in coming.items() if item.get("requested") and name != CORE}
    there = [name for name in map(requirement_name, requirements) if name in installed and name not in coming]
    others = [name for name in there if not installed[name].is_plugin and name != CORE]
    others += sorted(named.keys() - _plugins_among(named, requirements, sources))
    if not others:
        return
    known = {*FIRST_PARTY, *(name for name, state in installed.items() if state.is_plugin)}
    guesses = [f"{PREFIX}{name}" for name in others if f"{PREFIX}{name}" in known]
    guess = f"did you mean {guesses[0]!r}?" if guesses else did_you_mean(others[0], known)
    remedy = guess or f"Plugins are often called {PREFIX}NAME."
    pip = f"To install it all the same: pip install {' '.join(others)}"
    groups = " or ".join(f"`{group}`" for group in GROUPS)
    verb = "are no plugins" if len(others) > 1 else "is no plugin"
    raise InputError(f"{', '.join(others)} {verb}: no entry point in the group {groups}", f"{remedy} {pip}")


def _plugins_among(named: Mapping[str, Mapping[str, Any]], requirements: Sequence[str], sources: Sources) -> set[str]:
    """Which of the distributions that would come are plugins: pip's report has no entry points, their wheels do."""
    if not named:
        return set()
    with tempfile.TemporaryDirectory(prefix="luthier-") as scratch:
        pins = _pins(Path(scratch), {name: item["metadata"]["version"] for name, item in named.items()})
        options = ["--quiet", "--no-deps", "--wheel-dir", scratch, "--constraint", str(pins), *sources.options]
        wanted = [line for line in requirements if requirement_name(line) not in main_distributions().keys() - named]
        _pip(["wheel", *options, "--", *wanted], f"{' '.join(wanted)} cannot be fetched")
        return {normalized(wheel.name.partition("-")[0]) for wheel in Path(scratch).glob("*.whl") if _is_plugin(wheel)}


def _is_plugin(wheel: Path) -> bool:
    with zipfile.ZipFile(wheel) as archive:
        files = [name for name in archive.namelist() if name.endswith(".dist-info/entry_points.txt")]
        texts = [archive.read(name).decode("utf-8", errors="replace") for name in files if name.count("/") == 1]
    return any(f"[{group}]" in map(str.strip, text.splitlines()) for text in texts for group in GROUPS)


def plan_uninstall(names: Sequence[str]) -> Plan:
    """What uninstalling plugins, by distribution or by plugin name, would change; their requirements stay.

    Raises:
        InputError: if one is not installed, or no plugin.
    """
    require_pip()
    before = _installed()
    going = dict.fromkeys(_plugin_distribution(name) for name in names)
    after = {name: state for name, state in before.items() if name not in going}
    return Plan(tuple(Change(name, before[name].version, "", True) for name in going), _breaks(before, after))


def require_pip() -> None:
    """Refuse where pip cannot change the running environment.

    Raises:
        InputError: if pip is missing, or the environment belongs to the system's package manager.
    """
    if importlib.util.find_spec("pip") is None:
        raise InputError(
            f"{sys.executable} has no pip, which installs plugins",
            f"Install it: {sys.executable} -m ensurepip; an environment of uv's: uv pip install PLUGIN",
        )
    marker = Path(sysconfig.get_path("stdlib")) / "EXTERNALLY-MANAGED"
    allowed = os.environ.get("PIP_BREAK_SYSTEM_PACKAGES", "").lower() in ("1", "true", "yes", "on")
    if sys.prefix == sys.base_prefix and marker.exists() and not allowed:
        raise InputError(
            f"the environment of {sys.executable} is managed by the system's package manager",
            "Install Luthier into an environment of your own: python3 -m venv .venv && .venv/bin/pip install luthier",
        )


def _plugin_distribution(name: str) -> str:
    """The distribution that a plugin's name, or its own, names."""
    plugins = plugin_names()
    wanted = normalized(name)
    if wanted == CORE:
        raise InputError("luthier itself is no plugin", f"To uninstall it: {sys.executable} -m pip uninstall luthier")
    if wanted in plugins:
        return wanted
    givers = [distribution for distribution, names in plugins.items() if name in names]
    if givers:
        return givers[0]
    if wanted in main_distributions():
        raise InputError(f"{name} is no plugin of Luthier", f"Uninstall it with pip: pip uninstall {name}")
    known = [*plugins, *(each for names in plugins.values() for each in names)]
    remedy = did_you_mean(name, known) or "See: luthier plugins list. A local plugin is a file: delete it."
    raise InputError(f"no plugin {name!r} is installed", remedy)


def plugin_names() -> dict[str, list[str]]:
    """The names of the plugins, and of the commands, that each installed distribution gives."""
    found: dict[str, list[str]] = {}
    for name, distribution in main_distributions().items():
        try:
            entries = [entry.name for entry in distribution.entry_points if entry.group in GROUPS]
        except Exception:  # noqa: S112 - a distribution with damaged metadata is no plugin's fault
            continue
        if entries:
            found[name] = entries
    return found


def _report(requirements: Sequence[str], sources: Sources, upgrade: bool) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="luthier-") as scratch:
        path = Path(scratch) / "report.json"
        options = ["--dry-run", "--quiet", "--report", str(path), *_install_options(sources, upgrade)]
        _pip(["install", *options, "--", *requirements], f"{' '.join(requirements)} cannot be installed")
        report: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return report


def _install_options(sources: Sources, upgrade: bool) -> list[str]:
    return [*sources.options, *(["--upgrade"] if upgrade else [])]


# --- making the change --------------------------------------------------------------------------------


def install(requirements: Sequence[str], plan: Plan, *, sources: Sources, upgrade: bool = False) -> None:
    """Do what the plan says: pip is held to the versions that were shown.

    Raises:
        InputError: if pip fails; its own words are in the message.
    """
    with tempfile.TemporaryDirectory(prefix="luthier-") as scratch:
        pins = _pins(Path(scratch), {change.name: change.after for change in plan.changes})
        options = ["--quiet", "--constraint", str(pins), *_install_options(sources, upgrade)]
        _pip(["install", *options, "--", *requirements], f"{' '.join(requirements)} could not be installed")
    importlib.invalidate_caches()


def _pins(directory: Path, versions: Mapping[str, str]) -> Path:
    """A file of constraints, which holds pip to what it resolved."""
    path = directory / "constraints.txt"
    path.write_text("".join(f"{name}=={version}\n" for name, version in versions.items()), encoding="utf-8")
    return path


def uninstall(plan: Plan) -> None:
    """Remove what the plan names.

    Raises:
        InputError: if pip fails, or leaves one that lies outside of the environment.
    """
    names = [change.name for change in plan.changes]
    _pip(["uninstall", "--yes", "--quiet", *names], f"{' '.join(names)} could not be uninstalled")
    importlib.invalidate_caches()
    left = [name for name in names if name in main_distributions()]
    if left:
        where = main_distributions()[left[0]].locate_file("")
        raise InputError(
            f"pip left {', '.join(left)}, in {where}: it lies outside of {sys.prefix}",
            "Uninstall it with the Python that it was installed with; LUTHIER_DISABLE leaves a plugin out.",
        )


def _pip(arguments: Sequence[str], failure: str) -> None:
    remedy = "Check the names; where pip looks is what it is set to: see `pip config list`."
    call([*_PIP, *arguments], failure, remedy)


# --- what a change breaks -----------------------------------------------------------------------------


@dataclass(frozen=True)
class _State:
    """Of a distribution, what the requirements of others can ask about, and its own."""

    version: str
    requires: tuple[str, ...] = ()
    is_plugin: bool = field(default=False, compare=False)

    @classmethod
    def of_report(cls, metadata: Mapping[str, Any]) -> _State:
        return cls(metadata["version"], tuple(metadata.get("requires_dist") or ()))

    @classmethod
    def of_installed(cls, distribution: Distribution, *, is_plugin: bool) -> _State:
        return cls(distribution.version, tuple(distribution.requires or ()), is_plugin)


def _installed() -> dict[str, _State]:
    plugins = plugin_names()
    return {name: _State.of_installed(each, is_plugin=name in plugins) for name, each in main_distributions().items()}


def _breaks(before: Mapping[str, _State], after: Mapping[str, _State]) -> tuple[Break, ...]:
    """The requirements that the change breaks, those of Luthier and its plugins first."""
    broken_before = {(name, line) for name, line, _ in _unmet(before) if after.get(name) == before[name]}
    kept_plugins = [name for name, state in before.items() if name == CORE or state.is_plugin]
    needed = _closure([name for name in kept_plugins if name in after], after)
    broken = [
        Break(name, after[name].version, line, found, name in needed)
        for name, line, found in _unmet(after)
        if (name, line) not in broken_before
    ]
    return tuple(sorted(broken, key=lambda each: (not each.needed, each)))


def unmet() -> list[Break]:
    """The requirements of Luthier and of its plugins that do not hold as the environment is."""
    states = _installed()
    ours = [name for name, state in states.items() if name == CORE or state.is_plugin]
    return sorted(Break(name, states[name].version, line, found, True) for name, line, found in _unmet(states, ours))


def _unmet(states: Mapping[str, _State], of: Iterable[str] | None = None) -> Iterator[tuple[str, str, str]]:
    """Each requirement that does not hold, of these or of all: whose, which, and the version that is there."""
    for name in states if of is None else of:
        for requirement in _active(states[name]):
            there = states.get(normalized(requirement.name))
            if there is None:
                yield name, str(requirement), ""
            elif not requirement.specifier.contains(there.version, prereleases=True):
                yield name, str(requirement), there.version


def _active(state: _State) -> Iterator[Requirement]:
    """The requirements that hold here. Which extras somebody asked for is recorded nowhere, so none counts."""
    from packaging.requirements import InvalidRequirement, Requirement

    for line in state.requires:
        try:
            requirement = Requirement(line)
        except InvalidRequirement:
            continue  # of a distribution older than the standard; pip takes no notice of it either
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            yield requirement


def _closure(roots: Sequence[str], states: Mapping[str, _State]) -> set[str]:
    """The distributions that `roots` need, and themselves."""
    found: set[str] = set()
    waiting = list(roots)
    while waiting:
        name = waiting.pop()
        if name in found or name not in states:
            continue
        found.add(name)
        waiting += [normalized(requirement.name) for requirement in _active(states[name])]
    return found
