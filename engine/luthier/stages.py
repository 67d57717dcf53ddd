"""The table of stages: the core's, and those that plugins add through `luthier_stages`.

Plugins load in two phases, so that no order among them matters: the stages of all of them are known
before any is asked for components.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pluggy

from luthier import hookspecs
from luthier.components import RESERVED_KEYS
from luthier.core_stages import NAMED_INPUTS, STAGES, Stage
from luthier.errors import PluginError
from luthier.hookcheck import CORE_SPECIFICATIONS, implementations, is_specification, signature_problems

KINDS = ("dataset", "model", "onnx", "report")
INPUTS = ("frame", "data", "model", "onnx", *NAMED_INPUTS, "subject", "reference", "ctx")

_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_HOOK = re.compile(r"luthier_[a-z0-9_]+")


@dataclass(frozen=True)
class PluginStage:
    """A stage that a plugin adds.

    Attributes:
        specification: the function that specifies its hook.
        distribution, version: where it came from; a local file's distribution is its path.
        plugin: the name of the plugin.
    """

    stage: Stage
    specification: Callable[..., Any]
    distribution: str
    version: str
    plugin: str

    @property
    def giver(self) -> str:
        """Who adds it, for messages."""
        return f"{self.distribution} {self.version}".strip() + f" (plugin {self.plugin!r})"


@dataclass(frozen=True)
class StageTable:
    """Every stage that components may be given for.

    Attributes:
        stages: the core's in their order, then the plugins' by name.
        added: those that plugins add.
        specifications: the specifications of the plugins' hooks, of stages that clash too: whoever
            implements such a hook has done nothing wrong.
        clashes: what is wrong with stages that several plugins add, by `stage NAME` or `hook NAME`.
    """

    stages: tuple[Stage, ...] = STAGES
    added: tuple[PluginStage, ...] = ()
    specifications: Mapping[str, Callable[..., Any]] = field(default_factory=dict)
    clashes: Mapping[str, Sequence[PluginStage]] = field(default_factory=dict)

    def add_hooks(self, manager: pluggy.PluginManager) -> None:
        """Make the core's hooks and the plugins' known to a manager."""
        manager.add_hookspecs(hookspecs)
        if self.specifications:
            manager.add_hookspecs(type("Added", (), {name: staticmethod(f) for name, f in self.specifications.items()}))


def make_table(found: Iterable[PluginStage]) -> StageTable:
    """The table of the core's stages and of those found; of stages that clash none is taken."""
    found = sorted(found, key=lambda each: (each.stage.name, each.plugin))
    sharing: dict[str, list[PluginStage]] = {}
    for each in found:
        sharing.setdefault(f"stage {each.stage.name}", []).append(each)
        sharing.setdefault(f"hook {each.stage.hook}", []).append(each)
    clashes = {what: several for what, several in sharing.items() if len(several) > 1}
    hooks_told = {each.stage.hook for what, several in clashes.items() if what.startswith("stage ") for each in several}
    left_out = [each for several in clashes.values() for each in several]
    added = tuple(each for each in found if each not in left_out)
    return StageTable(
        (*STAGES, *(each.stage for each in added)),
        added,
        {each.stage.hook: each.specification for each in found},
        {what: several for what, several in clashes.items() if what.removeprefix("hook ") not in hooks_told},
    )


def describe_clash(what: str, several: Sequence[PluginStage]) -> str:
    """A clash in one line, naming everyone who has part in it."""
    stages = (f"{each.giver} for the stage {each.stage.name!r} ({each.stage.hook})" for each in several)
    return f"the {what} is given by {' and by '.join(stages)}"


def read_stages(plugin: object, *, distribution: str, version: str, name: str) -> list[PluginStage]:
    """The stages that a plugin adds, each with the specification of its hook.

    Raises:
        PluginError: with everything that is wrong with them.
    """
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    added: list[PluginStage] = []
    problems: list[str] = []
    for hook, attribute, options in implementations(plugin, manager):
        if hook != "luthier_stages":
            continue
        function = getattr(plugin, attribute)
        wrong = signature_problems(function, hook, (), options, registers=True)
        if wrong:
            raise PluginError("; ".join(wrong))
        for stage in _stages(function()):
            specification = getattr(plugin, stage.hook, None)
            problems += [f"its stage {stage.name!r} {wrong}" for wrong in _stage_problems(stage, specification)]
            problems += [
                f"its stage {stage.name!r} ({stage.hook}) shares its name or hook with its stage {other.stage.name!r}"
                for other in added
                if stage.name == other.stage.name or stage.hook == other.stage.hook
            ]
            added.append(PluginStage(stage, specification, distribution, version, name))  # type: ignore[arg-type]
    if problems:
        raise PluginError("; ".join(problems), "See: the page about plugins, a stage of your own.")
    return added


def _stages(returned: object) -> list[Stage]:
    if isinstance(returned, Iterable) and not isinstance(returned, str | bytes | Mapping):
        stages = list(returned)
        if all(isinstance(stage, Stage) for stage in stages):
            return stages
    raise PluginError(f"luthier_stages returned {returned!r}", 'Return a list: `return [luthier.Stage("augment", …)]`.')


def _stage_problems(stage: Stage, specification: Any) -> list[str]:
    problems = [*_name_problems(stage), *_input_problems(stage)]
    if stage.gives not in KINDS:
        problems.append(f"gives {stage.gives!r}; a stage gives {', '.join(KINDS[:-1])} or {KINDS[-1]}")
    if not stage.title:
        problems.append("has no title, which says what it is")
    if hasattr(specification, f"{hookspecs.PROJECT}_impl"):
        # One name in one module stands for what was defined last.
        rename = f"rename it and mark it `@luthier.hookimpl(specname={stage.hook!r})`"
        return [*problems, f"has no specification: its implementation, {stage.hook}, takes the name away; {rename}"]
    if not is_specification(specification):
        problems.append(f"has no specification: write `@luthier.hookspec` above `def {stage.hook}()` in its module")
        return problems
    if not inspect.getdoc(specification):
        problems.append(f"has a hook without a docstring: {stage.hook} is documented by it")
    if inspect.signature(specification).parameters:
        problems.append(f"has a hook with parameters: {stage.hook} takes none")
    options = getattr(specification, f"{hookspecs.PROJECT}_spec")
    if options.get("firstresult") or options.get("historic"):
        problems.append(f"has a hook with options: {stage.hook} is marked with a plain @luthier.hookspec")
    return problems


def _name_problems(stage: Stage) -> list[str]:
    problems = []
    core_names = {known.name: known.hook for known in STAGES if known.name}
    if stage.name in core_names:
        problems.append(f"has the name of the core's stage {stage.name!r} ({core_names[stage.name]})")
    elif not _NAME.fullmatch(stage.name) or stage.name in RESERVED_KEYS:
        problems.append("has a name that recipes cannot use: small letters, digits and single hyphens, none reserved")
    if stage.hook in CORE_SPECIFICATIONS:
        problems.append(f"has the hook {stage.hook!r}, which is the core's")
    elif not _HOOK.fullmatch(stage.hook):
        problems.append(f"has the hook {stage.hook!r}; a hook's name is `luthier_` and a plural noun")
    return problems


def _input_problems(stage: Stage) -> list[str]:
    problems = [
        f"offers {name!r}, which is no input; there are {', '.join(INPUTS)}"
        for name in stage.inputs
        if name not in INPUTS
    ]
    beside = set(stage.needs) | set(stage.optional)
    if "frame" in stage.inputs and (stage.gives != "dataset" or beside - {"frame", "ctx"}):
        problems.append("offers `frame` where it cannot: one shard makes one shard, with nothing besides but `ctx`")
    if "subject" in stage.inputs and stage.gives != "report":
        problems.append("offers `subject`, but gives no report")
    if "reference" in stage.inputs and "subject" not in stage.needs:
        problems.append("offers `reference` without the need of a `subject`")
    return problems


def stray_specifications(plugin: object, hooks: Iterable[str]) -> list[str]:
    """What is wrong with specifications of none of a plugin's stages: a stage names another hook, or is missing."""
    module = getattr(plugin, "__name__", type(plugin).__module__)
    return [
        f"it specifies the hook {name!r}, which is of none of its stages; luthier_stages gives them"
        for name, function in inspect.getmembers(plugin, is_specification)
        if name not in hooks and function.__module__ == module
    ]
