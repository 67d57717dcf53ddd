"""Find plugins, load them one by one, quarantine the broken, block, list.

Plugins are entry points in the group `luthier` and local one-file modules. Each gets a pluggy manager
of its own, so nothing that one of them does reaches another: one that cannot be imported, has a
misspelt hook or returns a wrong component loses only its own and is listed as broken.
"""

from __future__ import annotations

import contextlib
import inspect
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pluggy

from luthier import hookspecs
from luthier.components import DEFAULT_RUNTIMES, STAGES, Component, Stage, describe, read_component
from luthier.discovery import Candidate, Origin, installed_candidates, local_candidates, names_in
from luthier.errors import InputError, LuthierError, PluginError
from luthier.hookcheck import hook_problems
from luthier.suggest import closest, did_you_mean

__all__ = [
    "FIRST_PARTY",
    "Broken",
    "PluginInfo",
    "Registry",
    "UnknownComponent",
    "load_plugins",
]

FIRST_PARTY: Mapping[str, tuple[str, ...]] = {
    "luthier-text": (
        "source:jsonl",
        "source:text-files",
        "source:docstrings",
        "clean:unicode",
        "clean:whitespace",
        "clean:length",
        "clean:normalise",
        "clean:exact-duplicates",
        "clean:near-duplicates",
        "format:summarization",
        "format:language-modelling",
    ),
    "luthier-bias": ("bias:toxicity", "bias:representation"),
    "luthier-models": ("architecture:pretrained", "runtime:transformers"),
    "luthier-tune": ("tune:lora",),
    "luthier-onnx": ("export:genai", "runtime:onnxruntime-genai"),
    "luthier-validate": ("validate:perplexity", "validate:rouge", "validate:parity"),
}
"""Our own plugins by distribution: so that a recipe which needs one names the command that installs it."""


class UnknownComponent(InputError):
    """No installed and working plugin gives the component that was named."""


@dataclass(frozen=True)
class Broken:
    """Something that was left out while loading, and why.

    Attributes:
        name: the plugin's name, or `STAGE:NAME` for a component that two plugins give.
        distribution, version: where it came from; a local file's distribution is its path.
        error: what is wrong, in one line.
        traceback: the whole of it; empty where there was no exception.
        remedy: what to do.
    """

    name: str
    distribution: str
    version: str
    error: str
    traceback: str
    remedy: str


@dataclass(frozen=True)
class PluginInfo:
    """A plugin that was loaded.

    Attributes:
        name: the entry point's name, or the stem of the local file.
        path: the module's file; None for one without (a namespace, a zip).
        module: the name under which it is imported.
    """

    name: str
    distribution: str
    version: str
    origin: Origin
    path: Path | None
    module: str


@dataclass(frozen=True)
class _Loaded:
    info: PluginInfo
    manager: pluggy.PluginManager
    components: tuple[Component, ...]


@dataclass(frozen=True)
class Registry:
    """The components of the plugins that loaded, and what was left out.

    Attributes:
        components: sorted by stage, in the order of `STAGES`, then name.
        broken: plugins that could not be loaded, and component names that two plugins give.
        plugins: those that were loaded, sorted by name.
        blocked: names that LUTHIER_PLUGINS or LUTHIER_DISABLE kept from loading.
    """

    components: tuple[Component, ...] = ()
    broken: tuple[Broken, ...] = ()
    plugins: tuple[PluginInfo, ...] = ()
    blocked: tuple[str, ...] = ()
    _managers: tuple[tuple[str, pluggy.PluginManager], ...] = field(default=(), repr=False)
    _clashes: Mapping[tuple[str, str], str] = field(default_factory=dict, repr=False)
    _blocked_distributions: frozenset[str] = field(default=frozenset(), repr=False)

    def find(self, stage: str, name: str) -> Component:
        """The component of a stage; `runtime` names the stage of runtimes.

        Raises:
            UnknownComponent: with the closest match, the command that installs it, or what broke it.
        """
        stage = "" if stage == "runtime" else stage
        for component in self.components:
            if component.stage.name == stage and component.name == name:
                return component
        if (stage, name) in self._clashes:
            raise UnknownComponent(
                self._clashes[stage, name], "Uninstall one of them, or block it with LUTHIER_DISABLE."
            )
        raise self._unknown(stage, name)

    def runtime(self, name: str) -> Component:
        """The runtime of that name.

        Raises:
            UnknownComponent: as `find`.
        """
        return self.find("", name)

    def default_runtime(self, kind: str, form: str) -> Component:
        """What loads a model where nothing else is said: its kind's default, or the one that takes its form.

        Raises:
            UnknownComponent: if none does, or several besides the default.
        """
        default = DEFAULT_RUNTIMES[kind]
        able = [each for each in self.of_stage("runtime") if kind in each.inputs and each.accepts(kind, form)]
        found = next((each for each in able if each.name == default), None)
        if found:
            return found
        if len(able) == 1:
            return able[0]
        if able:
            names = ", ".join(each.name for each in able)
            raise UnknownComponent(f"several runtimes load {kind} of the form {form}", f"Name one of them: {names}.")
        self.runtime(default)  # says how to install it, if that is what is missing
        raise UnknownComponent(f"no installed runtime loads {kind} of the form {form!r}", "See: luthier plugins list")

    def named(self, name: str) -> list[Component]:
        """The components that `STAGE:NAME`, or `NAME` alone, names: none, one, or several."""
        return [component for component in self.components if name in (component.name, str(component))]

    def of_stage(self, stage: str) -> list[Component]:
        """The components of a stage, by name."""
        stage = "" if stage == "runtime" else stage
        return [component for component in self.components if component.stage.name == stage]

    def notify(self, hook: str, **arguments: Any) -> list[tuple[str, BaseException]]:
        """Call a lifecycle hook of each plugin by itself; gives the errors, with the plugins' names."""
        errors: list[tuple[str, BaseException]] = []
        for name, manager in self._managers:
            try:
                getattr(manager.hook, hook)(**arguments)
            except KeyboardInterrupt:
                raise
            except BaseException as error:
                errors.append((name, error))
        return errors

    def _unknown(self, stage: str, name: str) -> UnknownComponent:
        label = stage or "runtime"
        message = f"no {label} component is called {name!r}"
        distribution = next((d for d, names in FIRST_PARTY.items() if f"{label}:{name}" in names), "")
        for broken in self.broken:
            if distribution and broken.distribution == distribution:
                return UnknownComponent(
                    f"{message}: {distribution}, which gives it, is broken: {broken.error}", broken.remedy
                )
        if distribution in self._blocked_distributions:
            return UnknownComponent(
                f"{message}: {distribution}, which gives it, is blocked", "Look at LUTHIER_PLUGINS and LUTHIER_DISABLE."
            )
        if distribution and all(plugin.distribution != distribution for plugin in self.plugins):
            return UnknownComponent(
                f"{message}: {distribution}, which gives it, is not installed", f"pip install {distribution}"
            )
        names = [component.name for component in self.of_stage(stage)]
        match = closest(name, names)
        if match:
            return UnknownComponent(message, f"did you mean {match!r}?")
        others = [str(component) for component in self.named(name)]
        remedy = f"There is {', '.join(others)}. " if others else ""
        remedy += f"Installed for {label}: {', '.join(names) or 'none'}."
        left_out = sorted({broken.name for broken in self.broken})
        if left_out:
            remedy += f" Broken, so not loaded: {', '.join(left_out)} (see `luthier plugins list`)."
        return UnknownComponent(message, remedy)


def load_plugins(*, local: Sequence[Path] = (), environ: Mapping[str, str] | None = None) -> Registry:
    """Load every plugin that is installed, and the local files, without those that the environment blocks.

    A broken plugin never raises; it is in the registry's `broken`. What plugins print while they load
    goes to stderr, so that a listing's output stays clean.

    Args:
        local: one-file plugins, by path.
        environ: where LUTHIER_PLUGINS and LUTHIER_DISABLE are read; `os.environ` if None.
    """
    environ = os.environ if environ is None else environ
    candidates = _named_apart(installed_candidates(), local_candidates(local))
    wanted = names_in(environ["LUTHIER_PLUGINS"]) if "LUTHIER_PLUGINS" in environ else None
    disabled = names_in(environ.get("LUTHIER_DISABLE", ""))
    loaded: list[_Loaded] = []
    broken: list[Broken] = []
    blocked: list[Candidate] = []
    for candidate in sorted(candidates, key=lambda each: (each.name, each.distribution)):
        if candidate.name in disabled or (wanted is not None and candidate.name not in wanted):
            blocked.append(candidate)
            continue
        result = _load(candidate)
        if isinstance(result, Broken):
            broken.append(result)
        else:
            loaded.append(result)
    broken += _missing(wanted or frozenset(), [candidate.name for candidate in candidates])
    components, clashes = _without_clashes([each for plugin in loaded for each in plugin.components])
    return Registry(
        components=tuple(components),
        broken=(*broken, *clashes.values()),
        plugins=tuple(plugin.info for plugin in loaded),
        blocked=tuple(candidate.name for candidate in blocked),
        _managers=tuple((plugin.info.name, plugin.manager) for plugin in loaded),
        _clashes={key: clash.error for key, clash in clashes.items()},
        _blocked_distributions=frozenset(candidate.distribution for candidate in blocked),
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


def _load(candidate: Candidate) -> _Loaded | Broken:
    if candidate.problem:
        rename = "Give the file another name."
        reinstall = f"Uninstall or reinstall {candidate.distribution}."
        return _broken(candidate, candidate.problem, rename if candidate.file else reinstall)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            return _load_or_raise(candidate)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        # SystemExit, and whatever else a module's top level raises, is the plugin's loss only.
        import traceback

        details = "".join(traceback.format_exception(error))
        return _broken(candidate, one_line(error), _remedy(candidate, error), details)


def _broken(candidate: Candidate, error: str, remedy: str, traceback: str = "") -> Broken:
    return Broken(candidate.name, candidate.distribution, candidate.version, error, traceback, remedy)


def _load_or_raise(candidate: Candidate) -> _Loaded:
    plugin = candidate.import_plugin()
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    problems = hook_problems(plugin, manager)
    if problems:
        raise PluginError("; ".join(problems))
    manager.register(plugin, name=candidate.name)
    components = _collect(candidate, manager)
    module = plugin if inspect.ismodule(plugin) else sys.modules.get(type(plugin).__module__)
    file = getattr(module, "__file__", None)
    info = PluginInfo(
        candidate.name,
        candidate.distribution,
        candidate.version,
        candidate.origin,
        Path(file) if file else None,
        getattr(module, "__name__", ""),
    )
    return _Loaded(info, manager, tuple(components))


def _collect(candidate: Candidate, manager: pluggy.PluginManager) -> list[Component]:
    """The plugin's components, each checked; raises one PluginError with everything that is wrong."""
    components: list[Component] = []
    problems: list[str] = []
    for stage in STAGES:
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
    components: Iterable[Component],
) -> tuple[list[Component], dict[tuple[str, str], Broken]]:
    """The components that only one plugin gives, sorted; and for each name that several give, who they are."""
    by_name: dict[tuple[str, str], list[Component]] = {}
    for component in components:
        by_name.setdefault((component.stage.name, component.name), []).append(component)
    order = {stage.name: position for position, stage in enumerate(STAGES)}
    single = [found[0] for found in by_name.values() if len(found) == 1]
    clashes = {key: _clash(found) for key, found in sorted(by_name.items()) if len(found) > 1}
    return sorted(single, key=lambda each: (order[each.stage.name], each.name)), clashes


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
    if candidate.file:
        return f"Mend {candidate.file}, or {leave_out}"
    if isinstance(error, ModuleNotFoundError):
        # pip installs what an installed distribution requires and lacks.
        return f"Install what it needs: pip install {candidate.distribution}; or {leave_out}"
    return f"Upgrade it: pip install --upgrade {candidate.distribution}; or {leave_out}"
