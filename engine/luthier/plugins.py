"""Find plugins, load them one by one, quarantine the broken, block, list.

Plugins are entry points in the group `luthier` and local one-file modules. Each gets a pluggy manager
of its own, so nothing that one of them does reaches another: one that cannot be imported, has a
misspelt hook or returns a wrong component loses only its own and is listed as broken. They load in two
phases: the stages that plugins add (`luthier.stages`), then the components.
"""

from __future__ import annotations

import contextlib
import importlib.util
import inspect
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pluggy

from luthier import hookspecs
from luthier.catalogue import FIRST_PARTY, Broken, PluginInfo, Registry, UnknownComponent, UnknownStage
from luthier.components import Component, describe
from luthier.core_stages import Stage
from luthier.discovery import Candidate, installed_candidates, local_candidates, names_in
from luthier.errors import LuthierError, PluginError
from luthier.hookcheck import hook_problems
from luthier.registering import read_component
from luthier.stages import PluginStage, StageTable, describe_clash, make_table, read_stages, stray_specifications
from luthier.suggest import did_you_mean

__all__ = [
    "FIRST_PARTY",
    "Broken",
    "PluginInfo",
    "Registry",
    "UnknownComponent",
    "UnknownStage",
    "load_plugins",
]

Result = TypeVar("Result")


@dataclass(frozen=True)
class _Imported:
    candidate: Candidate
    plugin: object
    stages: tuple[PluginStage, ...]


@dataclass(frozen=True)
class _Loaded:
    info: PluginInfo
    manager: pluggy.PluginManager
    components: tuple[Component, ...]


def load_plugins(*, local: Sequence[Path] = (), environ: Mapping[str, str] | None = None) -> Registry:
    """Load every plugin that is installed, and the local files, without those that the environment blocks.

    A broken plugin never raises; it is in the registry's `broken`. What plugins print while they load
    goes to stderr, so that a listing's output stays clean.

    Args:
        local: one-file plugins, by path.
        environ: where LUTHIER_PLUGINS and LUTHIER_DISABLE are read, lists of plugins or of distributions;
            `os.environ` if None.
    """
    environ = os.environ if environ is None else environ
    candidates = _named_apart(installed_candidates(), local_candidates(local))
    wanted = names_in(environ["LUTHIER_PLUGINS"]) if "LUTHIER_PLUGINS" in environ else None
    disabled = names_in(environ.get("LUTHIER_DISABLE", ""))
    imported: list[_Imported] = []
    loaded: list[_Loaded] = []
    broken: list[Broken] = []
    blocked: list[tuple[Candidate, str]] = []
    chosen: list[Candidate] = []
    for candidate in sorted(candidates, key=lambda each: (each.name, each.distribution)):
        names = {candidate.name, candidate.distribution}
        if names & disabled:
            blocked.append((candidate, "LUTHIER_DISABLE"))
        elif wanted is not None and not names & wanted:
            blocked.append((candidate, "LUTHIER_PLUGINS"))
        else:
            chosen.append(candidate)
    with _interrupts() as interrupted:
        for candidate in chosen:
            _sort_in(_guarded(candidate, _import_or_raise, interrupted), imported, broken)
        table = make_table(stage for found in imported for stage in found.stages)
        left_out = sorted({each.name for each in broken} | {each.name for each, _ in blocked})
        for found in imported:
            register = partial(_register_or_raise, plugin=found, table=table, left_out=left_out)
            _sort_in(_guarded(found.candidate, register, interrupted), loaded, broken)
    known = [name for candidate in candidates for name in (candidate.name, candidate.distribution)]
    broken += _missing(wanted or frozenset(), known)
    broken += [_stage_clash(what, several) for what, several in sorted(table.clashes.items())]
    components, clashes = _without_clashes([each for plugin in loaded for each in plugin.components], table.stages)
    return Registry(
        components=tuple(components),
        broken=(*broken, *clashes.values()),
        plugins=tuple(plugin.info for plugin in loaded),
        blocked=tuple(candidate.name for candidate, _ in blocked),
        stages=table.stages,
        added_stages=table.added,
        _managers=tuple((plugin.info.name, plugin.manager) for plugin in loaded),
        _clashes={key: clash.error for key, clash in clashes.items()},
        _blocked_by={name: by for candidate, by in blocked for name in (candidate.name, candidate.distribution)},
    )


def _named_apart(installed: Sequence[Candidate], local: Sequence[Candidate]) -> list[Candidate]:
    """Both kinds of candidates; a local file of an installed plugin's name is the one that is left out."""
    names = {candidate.name: candidate.distribution for candidate in installed}
    clash = "its name {!r} is that of the installed plugin of {}"
    return [
        *installed,
        *(
            replace(each, problem=each.problem or clash.format(each.name, names[each.name]))
            if each.name in names
            else each
            for each in local
        ),
    ]


def _missing(wanted: Iterable[str], found: Sequence[str]) -> list[Broken]:
    return [
        Broken(
            name,
            "",
            "",
            "LUTHIER_PLUGINS names it, but no such plugin is installed",
            "",
            did_you_mean(name, found) or f"Installed: {', '.join(sorted(found)) or 'none'}.",
        )
        for name in sorted(wanted)
        if name not in found
    ]


def _sort_in(result: Result | Broken, good: list[Result], broken: list[Broken]) -> None:
    if isinstance(result, Broken):
        broken.append(result)
    else:
        good.append(result)


def _guarded(
    candidate: Candidate, work: Callable[[Candidate], Result], interrupted: Callable[[], bool]
) -> Result | Broken:
    """What `work` gives for a candidate; whatever goes wrong is told of the candidate alone."""
    if candidate.problem:
        rename = "Give the file another name."
        reinstall = f"Uninstall or reinstall {candidate.distribution}."
        return _broken(candidate, candidate.problem, rename if candidate.file else reinstall)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            return work(candidate)
    except BaseException as error:
        # SystemExit, and whatever else a module's top level raises, is the plugin's loss only.
        if isinstance(error, KeyboardInterrupt) and interrupted():
            raise
        import traceback

        details = "".join(traceback.format_exception(error))
        return _broken(candidate, one_line(error), _remedy(candidate, error), details)


def _broken(candidate: Candidate, error: str, remedy: str, traceback: str = "") -> Broken:
    facts = (candidate.name, candidate.distribution, candidate.version)
    return Broken(*facts, error, traceback, remedy, candidate.origin)


@contextlib.contextmanager
def _interrupts() -> Iterator[Callable[[], bool]]:
    """Within the block, whether a signal interrupted it: a plugin may raise KeyboardInterrupt of its own accord.

    Only the main thread hears signals. A handler that a plugin sets stays.
    """
    came: list[int] = []
    ours: dict[signal.Signals, tuple[Any, Any]] = {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            before = signal.getsignal(number)
            if callable(before):
                ours[number] = (before, partial(_note, came, before))
                signal.signal(number, ours[number][1])
    try:
        yield lambda: bool(came)
    finally:
        for number, (before, handler) in ours.items():
            if signal.getsignal(number) is handler:
                signal.signal(number, before)


def _note(came: list[int], handler: Callable[[int, Any], Any], number: int, frame: Any) -> None:
    came.append(number)
    handler(number, frame)


def _import_or_raise(candidate: Candidate) -> _Imported:
    plugin = candidate.import_plugin()
    stages = read_stages(plugin, distribution=candidate.distribution, version=candidate.version, name=candidate.name)
    return _Imported(candidate, plugin, tuple(stages))


def _register_or_raise(
    candidate: Candidate, *, plugin: _Imported, table: StageTable, left_out: Sequence[str]
) -> _Loaded:
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    table.add_hooks(manager)
    problems = hook_problems(plugin.plugin, manager, table.specifications, not_loaded=left_out)
    problems += stray_specifications(plugin.plugin, {each.stage.hook for each in plugin.stages})
    if problems:
        raise PluginError("; ".join(problems))
    manager.register(plugin.plugin, name=candidate.name)
    components = _collect(candidate, manager, table.stages)
    return _Loaded(_info(candidate, plugin.plugin), manager, tuple(components))


def _info(candidate: Candidate, plugin: object) -> PluginInfo:
    module = plugin if inspect.ismodule(plugin) else sys.modules.get(type(plugin).__module__)
    file = getattr(module, "__file__", None)
    return PluginInfo(
        candidate.name,
        candidate.distribution,
        candidate.version,
        candidate.origin,
        Path(file) if file else None,
        getattr(module, "__name__", ""),
    )


def _collect(candidate: Candidate, manager: pluggy.PluginManager, stages: Iterable[Stage]) -> list[Component]:
    """The plugin's components, each checked; raises one PluginError with everything that is wrong."""
    components: list[Component] = []
    problems: list[str] = []
    for stage in stages:
        hook = getattr(manager.hook, stage.hook)
        results = hook()
        # pluggy leaves a None out, so a forgotten `return` would pass for a plugin without components.
        results += [None] * (len(hook.get_hookimpls()) - len(results))
        for returned in results:
            for function in _functions(returned, stage):
                try:
                    component = read_component(
                        function,
                        stage,
                        distribution=candidate.distribution,
                        version=candidate.version,
                        plugin=candidate.name,
                    )
                except PluginError as error:
                    problems.append(f"{error.message} ({error.remedy})" if error.remedy else error.message)
                    continue
                if any(str(component) == str(other) for other in components):
                    problems.append(f"{describe(function)} is a second {component}")
                components.append(component)
    if problems:
        raise PluginError("; ".join(problems))
    return components


def _functions(returned: object, stage: Stage) -> list[Any]:
    if not isinstance(returned, Iterable) or isinstance(returned, str | bytes | Mapping):
        raise PluginError(f"{stage.hook} returned {returned!r}", "Return a list of functions: `return [shout]`.")
    return list(returned)


def _without_clashes(
    components: Iterable[Component], stages: Sequence[Stage]
) -> tuple[list[Component], dict[tuple[str, str], Broken]]:
    """The components that only one plugin gives, sorted; and for each name that several give, who they are."""
    by_name: dict[tuple[str, str], list[Component]] = {}
    for component in components:
        by_name.setdefault((component.stage.label, component.name), []).append(component)
    order = {stage.label: position for position, stage in enumerate(stages)}
    single = [found[0] for found in by_name.values() if len(found) == 1]
    clashes = {key: _clash(found) for key, found in sorted(by_name.items()) if len(found) > 1}
    return sorted(single, key=lambda each: (order[each.stage.label], each.name)), clashes


def _clash(found: Sequence[Component]) -> Broken:
    givers = [f"{each.distribution} {each.version}".strip() + f" (plugin {each.plugin!r})" for each in found]
    return Broken(
        name=str(found[0]),
        distribution=" and ".join(each.distribution for each in found),
        version=" and ".join(each.version for each in found),
        error=f"{found[0]} is given by {' and by '.join(givers)}",
        traceback="",
        remedy="Uninstall one of them, or block it with LUTHIER_DISABLE.",
    )


def _stage_clash(what: str, several: Sequence[PluginStage]) -> Broken:
    return Broken(
        name=what,
        distribution=" and ".join(each.distribution for each in several),
        version=" and ".join(each.version for each in several),
        error=describe_clash(what, several),
        traceback="",
        remedy="Uninstall one of them, or block it with LUTHIER_DISABLE.",
    )


def one_line(error: BaseException) -> str:
    """An exception's type and the first line of its message; our own errors' message alone."""
    try:
        text = error.message if isinstance(error, LuthierError) else str(error)
    except Exception:
        text = "(its message cannot be shown)"
    first = next(iter(text.strip().splitlines()), "")
    return first if isinstance(error, LuthierError) else f"{type(error).__name__}: {first}".removesuffix(": ")


def _remedy(candidate: Candidate, error: BaseException) -> str:
    leave_out = f"leave it out: LUTHIER_DISABLE={candidate.name}"
    if isinstance(error, LuthierError) and error.remedy:
        return f"{error.remedy} Or {leave_out}"
    missing = error.name if isinstance(error, ModuleNotFoundError) else None
    return f"{(missing and _install(candidate, missing)) or _mend(candidate)}; or {leave_out}"


def _install(candidate: Candidate, module: str) -> str:
    """What installs a module that a plugin imports and that is missing; empty if no installing would help."""
    library, _, _ = module.partition(".")
    if module == candidate.module:
        return f"Its files are gone; install it again: pip install --force-reinstall --no-deps {candidate.distribution}"
    if _is_there(library):
        return ""  # a part that an installed library, or the plugin itself, does not have
    if candidate.file:
        return f"Install what it imports: pip install {library}; or mend {candidate.file}"
    if candidate.lacks():
        # pip installs what an installed distribution requires and lacks.
        return f"Install what it needs: pip install {candidate.distribution}"
    undeclared = f"{candidate.distribution} imports {library} without requiring it, which its author must declare"
    return f"{undeclared}; until then: pip install {library}"


def _is_there(library: str) -> bool:
    try:
        return importlib.util.find_spec(library) is not None
    except (ImportError, ValueError):
        return False


def _mend(candidate: Candidate) -> str:
    """What to do about a mistake in the code: its author mends it, anyone else looks for a newer version."""
    directory, editable = candidate.source()
    if directory and not editable:
        return f"Mend it in {directory}, and install it again: pip install {directory}"
    module = getattr(sys.modules.get(candidate.module), "__file__", None)
    place = candidate.file or (module or directory if editable else None)
    return f"Mend {place}" if place else f"Upgrade it: pip install --upgrade {candidate.distribution}"
