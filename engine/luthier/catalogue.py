"""What the plugins that loaded give: components and stages by name, and what was left out and why."""

from __future__ import annotations

import contextlib
import copy
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pluggy

from luthier.components import Component
from luthier.core_stages import DEFAULT_RUNTIMES, STAGES, Stage
from luthier.discovery import Origin
from luthier.errors import InputError
from luthier.stages import PluginStage
from luthier.suggest import closest, did_you_mean

FIRST_PARTY: Mapping[str, tuple[str, ...]] = {
    "luthier-text": (
        "source:jsonl",
        "source:text-files",
        "source:docstrings",
        "source:debian-descriptions",
        "source:gettext",
        "source:manual-pages",
        "clean:unicode",
        "clean:whitespace",
        "clean:length",
        "clean:normalise",
        "clean:pii",
        "clean:secrets",
        "clean:exact-duplicates",
        "clean:near-duplicates",
        "clean:values",
        "clean:mix",
        "format:summarization",
        "format:language-modelling",
        "format:translation",
        "format:prompt-completion",
        "format:chat",
        "format:classification",
        "format:preference",
        "format:unpaired-preference",
    ),
    "luthier-bias": ("bias:toxicity", "bias:representation"),
    "luthier-models": (
        "architecture:pretrained",
        "architecture:fresh",
        "architecture:rnn-lm",
        "architecture:rnn-seq2seq",
        "tune:extend-vocabulary",
        "tune:classification-head",
        "runtime:transformers",
    ),
    "luthier-tune": (
        "tune:lora",
        "tune:full",
        "tune:layers",
        "tune:distill",
        "tune:ia3",
        "tune:soft-prompt",
        "executor:local",
    ),
    "luthier-preference": ("tune:dpo", "tune:kto"),
    "luthier-feedback": ("source:feedback",),
    "luthier-prune": ("prune:layers", "prune:width", "prune:vocabulary", "prune:weights"),
    "luthier-ray": ("executor:ray",),
    "luthier-onnx": ("export:genai", "export:dynamo", "runtime:onnxruntime", "runtime:onnxruntime-genai"),
    "luthier-optimum": ("export:optimum",),
    "luthier-gguf": ("export:gguf", "quantize:k-quants", "runtime:llama-cpp"),
    "luthier-quantize": (
        "quantize:int8",
        "quantize:int4",
        "quantize:gptq",
        "quantize:awq",
        "quantize:smooth",
        "quantize:mixed",
        "quantize:dynamic-int8",
        "quantize:static-int8",
        "quantize:float16",
    ),
    "luthier-validate": (
        "validate:perplexity",
        "validate:bits-per-byte",
        "validate:rouge",
        "validate:chrf",
        "validate:bleu",
        "validate:classification",
        "validate:parity",
    ),
}
"""Our own plugins by distribution: so that a recipe which needs one names the command that installs it."""


UNBLOCK: Mapping[str, str] = {
    "LUTHIER_DISABLE": "Take it out of LUTHIER_DISABLE.",
    "LUTHIER_PLUGINS": "Name it in LUTHIER_PLUGINS too.",
}
"""What lets a plugin load again, by the variable that blocks it."""


class UnknownComponent(InputError):
    """No installed and working plugin gives the component that was named."""


class UnknownStage(InputError):
    """Neither the core nor an installed and working plugin has the stage that was named."""


@dataclass(frozen=True)
class Broken:
    """Something that was left out while loading, and why.

    Attributes:
        name: the plugin's name, or `STAGE:NAME` for a component that two plugins give.
        distribution, version: where it came from; a local file's distribution is its path.
        error: what is wrong, in one line.
        traceback: the whole of it; empty where there was no exception.
        remedy: what to do.
        origin: where it was found; empty for what several plugins give.
    """

    name: str
    distribution: str
    version: str
    error: str
    traceback: str
    remedy: str
    origin: Origin | Literal[""] = ""


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
class Registry:
    """The components of the plugins that loaded, and what was left out.

    Attributes:
        components: sorted by stage, in the order of `stages`, then name.
        broken: plugins that could not be loaded, and components and stages that two plugins give.
        plugins: those that were loaded, sorted by name.
        blocked: names that LUTHIER_PLUGINS or LUTHIER_DISABLE kept from loading.
        stages: the core's, then those that plugins add, by name.
        added_stages: those that plugins add, with the specifications of their hooks.
    """

    components: tuple[Component, ...] = ()
    broken: tuple[Broken, ...] = ()
    plugins: tuple[PluginInfo, ...] = ()
    blocked: tuple[str, ...] = ()
    stages: tuple[Stage, ...] = STAGES
    added_stages: tuple[PluginStage, ...] = ()
    _managers: tuple[tuple[str, pluggy.PluginManager], ...] = field(default=(), repr=False)
    _clashes: Mapping[tuple[str, str], str] = field(default_factory=dict, repr=False)
    _blocked_by: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def sources(self) -> list[Path]:
        """The files and packages of the plugins' code; a package is all that lies beside its `__init__.py`."""
        paths = [plugin.path for plugin in self.plugins if plugin.path]
        return [path.parent if path.name == "__init__.py" else path for path in paths]

    @property
    def stage_names(self) -> list[str]:
        """The stages that a recipe's steps may have."""
        return [stage.name for stage in self.stages if stage.name]

    def stage(self, name: str) -> Stage:
        """The stage that a recipe calls `name`.

        Raises:
            UnknownStage: with the closest match, or the plugins that could not add it.
        """
        for stage in self.stages:
            if stage.name == name and name:
                return stage
        clash = next((broken for broken in self.broken if name and broken.name == f"stage {name}"), None)
        if clash:
            raise UnknownStage(clash.error, clash.remedy)
        remedy = did_you_mean(name, self.stage_names)
        if not remedy:
            remedy = f"the stages are {', '.join(self.stage_names)}"
            left_out = sorted({*(broken.name for broken in self.broken), *self.blocked})
            remedy += f"; plugins that were not loaded: {', '.join(left_out)}" if left_out else ""
        raise UnknownStage(f"a step's first key is its stage, and {name!r} is none", remedy)

    def find(self, stage: str, name: str) -> Component:
        """The component of a stage, which has its label: `runtime` is that of the runtimes.

        Raises:
            UnknownComponent: with the closest match, the command that installs it, or what broke it.
        """
        for component in self.components:
            if component.stage.label == stage and component.name == name:
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
        return self.find("runtime", name)

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

    def runtime_for(self, kind: str, form: str, name: str | None = None) -> Component:
        """What loads a model: the runtime of that name, else the default one.

        Raises:
            UnknownComponent: if there is none, or several may be meant.
            InputError: if the one of that name does not load such models.
        """
        if not name:
            return self.default_runtime(kind, form)
        runtime = self.runtime(name)
        if kind not in runtime.inputs or not runtime.accepts(kind, form):
            raise InputError(
                f"the runtime {runtime.name} does not load {kind} of the form {form}",
                "Leave out --runtime, or see: luthier plugins list",
            )
        return runtime

    def check_streams(self, runtime: Component) -> None:
        """Refuse a runtime that does not complete token by token.

        Raises:
            InputError: naming those that do.
        """
        if runtime.declared.streams:
            return
        able = ", ".join(each.name for each in self.of_stage("runtime") if each.declared.streams)
        raise InputError(
            f"the runtime {runtime.name} does not write token by token, so it can neither sample nor be served",
            f"These do: {able}." if able else "Install luthier-onnx, whose runtimes do, and export the model.",
        )

    def named(self, name: str) -> list[Component]:
        """The components that `STAGE:NAME`, or `NAME` alone, names: none, one, or several."""
        return [component for component in self.components if name in (component.name, str(component))]

    def of_stage(self, stage: str) -> list[Component]:
        """The components of a stage, which has its label, by name."""
        return [component for component in self.components if component.stage.label == stage]

    def notify(self, hook: str, **arguments: Any) -> list[tuple[str, BaseException]]:
        """Call a lifecycle hook of each plugin by itself; gives the errors, with the plugins' names.

        Each plugin has copies of its own: it observes, and what it changes nobody else sees. What it prints
        goes to stderr, since stdout may be read by a program.
        """
        errors: list[tuple[str, BaseException]] = []
        for name, manager in sorted(self._managers, key=lambda each: _waits(each[1], hook)):
            caller = getattr(manager.hook, hook)
            if not caller.get_hookimpls():
                continue
            try:
                with contextlib.redirect_stdout(sys.stderr):
                    caller(**copy.deepcopy(arguments))
            except KeyboardInterrupt:
                raise
            except BaseException as error:
                errors.append((name, error))
        return errors

    def blocked_by(self, name: str) -> str:
        """The variable that kept a plugin, or a distribution's plugins, from loading; empty if none did."""
        return self._blocked_by.get(name, "")

    def hooks(self, plugin: str) -> list[str]:
        """The hooks that a plugin implements, by name; none of one that was not loaded."""
        for name, manager in self._managers:
            if name == plugin:
                callers = manager.get_hookcallers(manager.get_plugin(plugin)) or []
                return sorted(caller.name for caller in callers)
        return []

    def _unknown(self, stage: str, name: str) -> UnknownComponent:
        message = f"no {stage} component is called {name!r}"
        distribution = next((d for d, names in FIRST_PARTY.items() if f"{stage}:{name}" in names), "")
        for broken in self.broken:
            if distribution and broken.distribution == distribution:
                return UnknownComponent(
                    f"{message}: {distribution}, which gives it, is broken: {broken.error}", broken.remedy
                )
        by = self.blocked_by(distribution)
        if by:
            return UnknownComponent(f"{message}: {distribution}, which gives it, is blocked by {by}", UNBLOCK[by])
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
        remedy += f"Installed for {stage}: {', '.join(names) or 'none'}."
        left_out = sorted({broken.name for broken in self.broken})
        if left_out:
            remedy += f" Broken, so not loaded: {', '.join(left_out)} (see `luthier plugins list`)."
        if self.blocked:
            by = " and ".join(sorted({self.blocked_by(each) for each in self.blocked}))
            remedy += f" Blocked by {by}, so not loaded: {', '.join(self.blocked)}."
        return UnknownComponent(message, remedy)


def _waits(manager: pluggy.PluginManager, hook: str) -> bool:
    """Whether the plugin asked to be called after the others (`hookimpl(trylast=True)`): it reads what they write."""
    return any(each.trylast for each in getattr(manager.hook, hook).get_hookimpls())
