"""What is wrong with a plugin's hook implementations: all of it, with the closest match."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pluggy

from luthier import hookspecs
from luthier.components import STAGES, describe
from luthier.suggest import closest, did_you_mean


def hook_problems(plugin: object, manager: pluggy.PluginManager) -> list[str]:
    """Everything that is wrong with a plugin's hook implementations.

    pluggy itself stops at the first unknown hook or parameter, never passes a parameter that has a
    default, and skips what is not marked; so each is looked for here.
    """
    specs = {
        name: [parameter.name for parameter in inspect.signature(spec).parameters.values()]
        for name, spec in vars(hookspecs).items()
        if hasattr(spec, f"{hookspecs.PROJECT}_spec")
    }
    problems: list[str] = []
    marked = False
    for name in dir(plugin):
        options = manager.parse_hookimpl_opts(plugin, name)
        if options is None:
            problems += _unmarked_problems(plugin, name, specs)
            continue
        marked = True
        hook = options.get("specname") or name
        if hook in specs:
            problems += _signature_problems(getattr(plugin, name), hook, specs[hook], options)
        elif not options.get("optionalhook"):
            problems.append(f"there is no hook {hook!r}; {did_you_mean(hook, specs) or 'see the hook reference'}")
    if not marked and not problems:
        problems.append("it has no hooks: no function is marked with @luthier.hookimpl")
    return problems


def _unmarked_problems(plugin: object, name: str, specs: Iterable[str]) -> list[str]:
    """A hook without its mark would be skipped in silence; a function of another name is none of our business."""
    function = inspect.getattr_static(plugin, name, None)
    own = inspect.isfunction(function) and function.__module__ == getattr(plugin, "__name__", type(plugin).__module__)
    if not own or not name.startswith("luthier_"):
        return []
    hook = closest(name, specs)
    return [f"{name!r} is not marked as a hook; put @luthier.hookimpl above `def {hook}`"] if hook else []


def _signature_problems(function: Any, hook: str, offered: Sequence[str], options: Mapping[str, Any]) -> list[str]:
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
    registers = any(stage.hook == hook for stage in STAGES)
    if not registers and (inspect.isgeneratorfunction(function) or inspect.iscoroutinefunction(function)):
        problems.append(f"{where} is a generator or a coroutine, whose body would never run; make it a plain function")
    return problems
