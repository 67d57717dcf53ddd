"""What is wrong with a plugin's hook implementations: all of it, with the closest match."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import pluggy

from luthier import hookspecs
from luthier.components import describe
from luthier.core_stages import STAGES
from luthier.suggest import closest, did_you_mean

Specification = Callable[..., Any]
PREFIX = f"{hookspecs.PROJECT}_"


def is_specification(function: object) -> bool:
    """Whether it is a function that is marked with `luthier.hookspec`."""
    return inspect.isroutine(function) and hasattr(function, f"{hookspecs.PROJECT}_spec")


CORE_SPECIFICATIONS: Mapping[str, Specification] = {
    name: function for name, function in vars(hookspecs).items() if is_specification(function)
}
"""The core's hooks by name."""


def implementations(plugin: object, manager: pluggy.PluginManager) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Of each hook that a plugin implements: the hook's name, the implementation's, and its options."""
    for name in dir(plugin):
        options = manager.parse_hookimpl_opts(plugin, name)
        if options is not None:
            yield options.get("specname") or name, name, options


def hook_problems(
    plugin: object,
    manager: pluggy.PluginManager,
    added: Mapping[str, Specification] | None = None,
    *,
    not_loaded: Sequence[str] = (),
) -> list[str]:
    """Everything that is wrong with a plugin's hook implementations.

    pluggy itself stops at the first unknown hook or parameter, never passes a parameter that has a
    default, and skips what is not marked; so each is looked for here.

    Args:
        added: the hooks of the stages that plugins add, by name.
        not_loaded: the plugins that were left out: an unknown hook may be of a stage of theirs.
    """
    specifications = {**CORE_SPECIFICATIONS, **(added or {})}
    registering = {stage.hook for stage in STAGES} | {"luthier_stages"} | set(added or {})
    found = list(implementations(plugin, manager))
    problems = _unmarked_problems(plugin, {name for _, name, _ in found}, specifications)
    for hook, name, options in found:
        if hook in specifications:
            function, offered = getattr(plugin, name), list(inspect.signature(specifications[hook]).parameters)
            problems += signature_problems(function, hook, offered, options, registers=hook in registering)
        elif not options.get("optionalhook"):
            problems.append(_unknown_hook(hook, specifications, not_loaded))
    if not found and not problems:
        problems.append("it has no hooks: no function is marked with @luthier.hookimpl")
    return problems


def _unknown_hook(hook: str, known: Iterable[str], not_loaded: Sequence[str]) -> str:
    left_out = f" (not loaded: {', '.join(not_loaded)})" if not_loaded else ""
    other = f"if it is the hook of a stage that another plugin adds, that plugin is not there{left_out}"
    # The beginning that all hooks have, and the ending `-ers` of most, would make any two of them alike.
    names = {name.removeprefix(PREFIX): name for name in known}
    guess = closest(hook.removeprefix(PREFIX), names, cutoff=0.75)
    return f"there is no hook {hook!r}; {f'did you mean {names[guess]!r}?' if guess else other}"


def _unmarked_problems(plugin: object, marked: Iterable[str], specifications: Iterable[str]) -> list[str]:
    """A hook without its mark would be skipped in silence; a function of another name is none of our business."""
    problems = []
    module = getattr(plugin, "__name__", type(plugin).__module__)
    for name in dir(plugin):
        function = inspect.getattr_static(plugin, name, None)
        own = inspect.isfunction(function) and function.__module__ == module
        if not own or not name.startswith("luthier_") or name in marked or is_specification(function):
            continue
        hook = closest(name, specifications)
        if hook:
            problems.append(f"{name!r} is not marked as a hook; put @luthier.hookimpl above `def {hook}`")
    return problems


def signature_problems(
    function: Any, hook: str, offered: Sequence[str], options: Mapping[str, Any], *, registers: bool
) -> list[str]:
    """What is wrong with the parameters of an implementation; `registers` is for hooks that return something."""
    where = describe(function)
    if options.get("wrapper") or options.get("hookwrapper"):
        return [f"{where} is a hook wrapper; each plugin is called by itself, so there is nothing to wrap"]
    problems = []
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.KEYWORD_ONLY):
            problems.append(f"{where} takes {str(parameter)!r}, which hooks are never given")
        elif parameter.name not in offered:
            offer = did_you_mean(parameter.name, offered) or f"it may ask for {', '.join(offered) or 'nothing'}"
            problems.append(f"{where} asks for {parameter.name!r}, which {hook} does not offer; {offer}")
        elif parameter.default is not parameter.empty:
            problems.append(
                f"{where} gives {parameter.name!r} a default, so pluggy would never pass it; remove the default"
            )
    if not registers and (inspect.isgeneratorfunction(function) or inspect.iscoroutinefunction(function)):
        problems.append(f"{where} is a generator or a coroutine, whose body would never run; make it a plain function")
    return problems
