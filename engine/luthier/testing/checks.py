"""The checks that a plugin and its components are held to. Each raises `BrokenRuleError` with what is wrong."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import pkgutil
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from luthier.components import Component, ConfigurationError, describe
from luthier.errors import PluginError
from luthier.plugins import PluginInfo, Registry
from luthier.scaffold import YAML_WORDS
from luthier.suggest import did_you_mean
from luthier.testing import samples
from luthier.testing.imported import undeclared_imports, unused_requirements
from luthier.testing.public_interface import PUBLIC_MODULES, private_imports
from luthier.testing.verdicts import BrokenRuleError, CannotRunError, explain
from luthier.testing.workshop import Outcome, Workshop

SUMMARY_CHARACTERS = 120
DETERMINISM = "Take randomness from ctx.seed or ctx.rng, sort what comes from sets and directories, and leave times out"
ELSEWHERE = "Require what it uses in `dependencies`, instead of doing without what is not installed"
_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")


@dataclass(frozen=True)
class PluginCheck:
    """A check of the plugin as a whole."""

    name: str
    run: Callable[[Workshop, Registry], None]


@dataclass(frozen=True)
class ComponentCheck:
    """A check of one component; `applies` says of which."""

    name: str
    run: Callable[[Workshop, Component], None]
    applies: Callable[[Component], bool] = lambda component: True


def check_hooks(workshop: Workshop, registry: Registry) -> None:
    """The plugin loads, its hooks are ones that there are, and they give functions that fit their stages."""
    for broken in registry.broken:
        raise BrokenRuleError("\n".join(filter(None, (broken.error, broken.remedy, broken.traceback))))


def check_settings(workshop: Workshop, registry: Registry) -> None:
    """What the author gives, samples and configurations, is for inputs and components that there are."""
    if not registry.components:
        return
    components = [name for each in registry.components for name in (each.name, str(each))]
    inputs = sorted({name for each in registry.components for name in each.inputs if name != "ctx"})
    wrong = [
        *_unknown("configurations", "component", workshop.configurations, components, components[::2]),
        *_unknown("samples", "input", workshop.given, inputs, inputs),
    ]
    if wrong:
        raise BrokenRuleError("\n".join(wrong))


def _unknown(what: str, kind: str, given: Iterable[str], known: Sequence[str], told: Sequence[str]) -> Iterator[str]:
    for name in sorted(set(given) - set(known)):
        there_are = f"There are: {', '.join(dict.fromkeys(told)) or 'none'}."
        hint = did_you_mean(name, known)
        yield f"{what} names the {kind} {name!r}, {hint or 'which is not there.'} {there_are}"


def check_light_import(workshop: Workshop, registry: Registry) -> None:
    """Importing the plugin loads no heavy library, reaches no network and writes nothing."""
    answer, heard = workshop.fresh_import()
    # A one-file plugin is its own implementation, and the engine's workers have polars anyway.
    allowed = ("polars", "numpy", "pyarrow") if isinstance(workshop.plugin, Path) else ()
    heavy = [name for name in answer["heavy"] if name not in allowed]
    if heavy:
        raise BrokenRuleError(
            f"importing {workshop.plugin} loads {', '.join(heavy)}, which every `luthier` command would pay for: "
            "import them in the component's body, or in a module that the body imports"
        )
    _refuse_all(f"importing {workshop.plugin}", heard, ("network", "write"), "an import only defines things")


def check_declared(workshop: Workshop, registry: Registry) -> None:
    """Every library that the code imports is a requirement of the distribution, and none is required for nothing."""
    for plugin in _readable(registry):
        requirements = importlib.metadata.requires(plugin.distribution) or []
        files = _sources(plugin)
        missing = undeclared_imports(files, _packages(plugin), [*requirements, plugin.distribution])
        if missing:
            raise BrokenRuleError(
                f"{plugin.distribution} imports {', '.join(sorted(missing))} and does not require it: "
                "add it to `dependencies` in pyproject.toml, with no marker that leaves it out here"
            )
        unused = unused_requirements(files, requirements)
        if unused:
            raise BrokenRuleError(
                f"{plugin.distribution} requires {', '.join(sorted(unused))}, which neither its code nor another of "
                "its requirements imports: take it out of `dependencies` in pyproject.toml"
            )


def check_public_interface(workshop: Workshop, registry: Registry) -> None:
    """Of the engine the code imports nothing but what is public; the rest may change in any version."""
    for plugin in _readable(registry):
        assert plugin.path is not None
        files = _sources(plugin) if isinstance(workshop.plugin, str) else [plugin.path]
        private = [
            f"  {path}:{line}: {name}" for path in files for line, name in private_imports(path.read_text("utf-8"))
        ]
        if private:
            public = "`luthier` itself, " + ", ".join(sorted(PUBLIC_MODULES - {"luthier"}))
            remedy = f"imports what is the engine's own and may change in any version; public are {public}"
            raise BrokenRuleError("\n".join([f"{plugin.name} {remedy}", *private]))


def check_module_names(workshop: Workshop, registry: Registry) -> None:
    """No module of a package has the name of a component that is defined in it: imported, it takes its place.

    A component's body imports its implementation, and Python then binds the module to its name in the package. From
    there on `package.name` is a module; who calls the function by that name gets an error that says nothing of it.
    """
    for component in registry.components:
        package, name = component.function.__module__, component.function.__name__
        # A module that is no package, and one file, have no modules in them.
        places = getattr(sys.modules.get(package), "__path__", [])
        if name in {module.name for module in pkgutil.iter_modules(places)}:
            raise BrokenRuleError(
                f"{describe(component.function)}: the package {package} has a module {name!r} too, and once that is "
                f"imported, `{package}.{name}` is the module and no longer the component: rename the module, to "
                f"`_{name}` or by what it does"
            )


def _readable(registry: Registry) -> Iterator[PluginInfo]:
    """The plugins whose files can be read."""
    if not registry.plugins:
        raise CannotRunError("the plugin does not load: see hooks")
    for plugin in registry.plugins:
        if plugin.path is None:
            raise CannotRunError(f"{plugin.module} has no file to read")
        yield plugin


def _packages(plugin: PluginInfo) -> set[str]:
    points = importlib.metadata.distribution(plugin.distribution).entry_points
    return {point.value.partition(":")[0].partition(".")[0] for point in points}


def _sources(plugin: PluginInfo) -> list[Path]:
    files: list[Path] = []
    for name in sorted(_packages(plugin)):
        spec = importlib.util.find_spec(name)
        roots = [Path(place) for place in (spec.submodule_search_locations or ())] if spec else []
        files += [path for root in roots for path in sorted(root.rglob("*.py"))]
        files += [Path(spec.origin)] if spec and spec.origin and not roots else []
    return files


def check_documented(workshop: Workshop, component: Component) -> None:
    """The name fits a recipe, and the docstring is a help text: one line first, each parameter in it."""
    where = describe(component.function)
    if not _NAME.fullmatch(component.name):
        raise BrokenRuleError(f"{where}: recipes write {component.name!r}; name it in lower case, without double _")
    if component.name in YAML_WORDS:
        raise BrokenRuleError(f"{where}: YAML reads {component.name!r} as a value, not as a name; choose another")
    if len(component.summary) > SUMMARY_CHARACTERS or not component.summary.endswith("."):
        raise BrokenRuleError(
            f"{where}: the docstring's first line is what listings show: one sentence with a full stop, of at most "
            f"{SUMMARY_CHARACTERS} characters"
        )
    silent = [each.name for each in component.parameters if not re.search(rf"\b{each.name}\b", component.doc)]
    if silent:
        raise BrokenRuleError(f"{where}: the docstring says nothing of {', '.join(silent)}; describe it under `Args:`")


def check_schema(workshop: Workshop, component: Component) -> None:
    """The configuration has a JSON Schema, its defaults pass their own validation and come back from JSON."""
    where = describe(component.function)
    try:
        json.dumps(component.model.model_json_schema())
    except Exception as error:
        raise BrokenRuleError(f"{where}: the configuration has no JSON Schema: {error}") from error
    configuration = workshop.configuration(component)
    # The checks that run it ask for what has no default.
    missing = {
        (each.name,) for each in component.parameters if each.default is each.empty and each.name not in configuration
    }
    try:
        canonical = component.canonical(configuration)
    except ConfigurationError as error:
        wrong = [problem for problem in error.problems if problem.key not in missing]
        if wrong:
            raise BrokenRuleError(explain(component, configuration, wrong)) from error
        return
    except PluginError as error:
        raise BrokenRuleError(str(error)) from error
    again = component.canonical(json.loads(json.dumps(canonical)))
    if again != canonical:
        raise BrokenRuleError(f"{where}: {canonical} comes back from JSON as {again}")


def check_worker(workshop: Workshop, component: Component) -> None:
    """It does its work in a worker process, as in a run."""
    _working(workshop, component, workshop.sample_run(component))


def _working(workshop: Workshop, component: Component, outcome: Outcome) -> Outcome:
    if outcome.error is None:
        return outcome
    workshop.refer(component)
    if outcome.refused and not workshop.configuration(component):
        raise CannotRunError(f"it refuses the kit's sample, so give one: {outcome.error.message}")
    raise BrokenRuleError(f"{describe(component.function)} failed in a worker: {_told(outcome)}")


def check_network(workshop: Workshop, component: Component) -> None:
    """It reaches no network by itself; what it needs comes by `ctx.open`."""
    outcome = workshop.sample_run(component, "guarded")
    remedy = "name what it needs in a parameter of the type luthier.Location, and open it with `ctx.open`"
    _refuse_all(describe(component.function), outcome.heard, ("network",), remedy)
    _working(workshop, component, outcome)


def check_directories(workshop: Workshop, component: Component) -> None:
    """It writes into `ctx.output`, `ctx.checkpoint` and temporary files only, and leaves its inputs as they are."""
    outcome = workshop.sample_run(component, "guarded")
    remedy = "write into ctx.output (the result) or ctx.checkpoint"
    changed = workshop.changed_inputs(component)
    _refuse_all(describe(component.function), outcome.heard, ("write",), remedy)
    if changed:
        raise BrokenRuleError(
            f"{describe(component.function)} changed its input {', '.join(changed)}: inputs are shared"
        )
    _working(workshop, component, outcome)


def _refuse_all(who: str, heard: Iterable[Mapping[str, str]], kinds: Sequence[str], remedy: str) -> None:
    found = [each for each in heard if each["kind"] in kinds]
    if found:
        lines = dict.fromkeys(f"  {each['event']} {each['target']}  {each['where']}".rstrip() for each in found)
        raise BrokenRuleError("\n".join([f"{who}: {remedy}", *list(lines)[:8]]))


def check_bytes(workshop: Workshop, component: Component) -> None:
    """The same input, configuration and seed give the same bytes, in another process too."""
    first = _working(workshop, component, workshop.sample_run(component))
    second = _working(workshop, component, workshop.sample_run(component, "guarded"))
    _same(component, first, second, "run twice on the same input with the same seed")


def _same(component: Component, first: Outcome, second: Outcome, what: str, remedy: str = DETERMINISM) -> None:
    # Elsewhere the notes may say how long things took.
    measures = component.stage.gives == "report"
    before, after = first.result(notes=measures), second.result(notes=measures)
    differing = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
    if differing:
        raise BrokenRuleError(
            f"{describe(component.function)}, {what}, gives other bytes: {', '.join(differing[:8])}. {remedy}"
        )


def check_sharding(workshop: Workshop, component: Component) -> None:
    """A frame component gives each row the same, however the rows are cut into shards and ordered."""
    import polars as pl

    whole = _working(workshop, component, workshop.sample_run(component))
    rows = workshop.rows(component)
    turned = rows.reverse()
    cuts = [turned.head(1), turned.slice(1, rows.height // 3), turned.slice(1 + rows.height // 3)]
    shards = _working(workshop, component, workshop.run(component, frames=cuts))
    results = [pl.read_parquet(run.place / "output" / "shard-*.parquet").sort("id") for run in (whole, shards)]
    if results[0].schema != results[1].schema:
        raise BrokenRuleError(f"{describe(component.function)}: the columns depend on how the rows are sharded")
    if not results[0].equals(results[1]):
        ids = [set(result["id"].to_list()) for result in results]
        lost = f"; in one shard only: {sorted(ids[0] - ids[1])[:3]}, in several only: {sorted(ids[1] - ids[0])[:3]}"
        raise BrokenRuleError(
            f"{describe(component.function)}: the result depends on how the rows are sharded and ordered"
            f"{lost if ids[0] != ids[1] else ''}. Ask for `data` to see all rows, and take randomness from ctx.rng(id)"
        )


def check_hostile(workshop: Workshop, component: Component) -> None:
    """No row makes it crash; to refuse one with an InputError is fine."""
    workshop.ready(component)
    workshop.refer(component)
    together = component.stage.gives != "dataset"
    hostile = samples.hostile_rows(workshop.form(component), together=together)
    crashes = []
    for name, frame in hostile.items():
        outcome = workshop.run(component, frames=[frame])
        if outcome.error and not outcome.refused:
            crashes.append(f"  {name}: {_told(outcome)}")
    if crashes:
        raise BrokenRuleError("\n".join([f"{describe(component.function)} crashes on", *crashes]))


def check_killed(workshop: Workshop, component: Component) -> None:
    """Killed at a write and run again with its checkpoint, it gives what it gives in one go."""
    guarded = _working(workshop, component, workshop.sample_run(component, "guarded"))
    whole = _working(workshop, component, workshop.sample_run(component))
    for write in _moments(guarded):
        killed = workshop.kill(component, write)
        again = _working(workshop, component, workshop.run(component, place=killed.place))
        _same(component, whole, again, f"killed at its write number {write} and run again")


def _moments(outcome: Outcome) -> list[int]:
    """The writes to kill it at: two of those into the checkpoint, which the next attempt sees; else the last one."""
    writes = [Path(each["target"]) for each in outcome.heard if each["kind"] == "step"]
    checkpoint = outcome.place / "checkpoint"
    kept = [
        number
        for number, path in enumerate(writes, 1)
        # A shard's attempt is begun anew, so what a frame component leaves there is gone.
        if checkpoint in path.parents and ".attempt" not in path.relative_to(checkpoint).parts[0]
    ]
    if not kept:
        return [len(writes)] if writes else []
    return sorted({kept[len(kept) // 2], kept[-1]})


def check_environment(workshop: Workshop, component: Component) -> None:
    """It works in an environment where only what its distribution requires is installed; datasets are the same there.

    Models and measurements may differ in their last bits: numeric libraries use what else is installed (a faster
    kernel, an accelerator), and round as that does.
    """
    from luthier.environment_build import build

    if isinstance(workshop.plugin, Path):
        raise CannotRunError("a one-file plugin has no requirements to build an environment from")
    workshop.ready(component)
    environment = build(component.distribution, tell=lambda line: None)
    outcome = workshop.run(component, python=environment.python)
    if outcome.error:
        workshop.refer(component)
        raise BrokenRuleError(
            f"{describe(component.function)} failed in the environment {environment.path}: {_told(outcome)}"
        )
    if component.stage.gives == "dataset":
        here = _working(workshop, component, workshop.sample_run(component))
        _same(component, here, outcome, f"run here and in the environment {environment.path}", ELSEWHERE)


def _told(outcome: Outcome) -> str:
    assert outcome.error is not None
    detail = getattr(outcome.error, "detail", "")
    return f"{outcome.error}\n{detail}".rstrip()


def takes_rows(component: Component) -> bool:
    """Whether it works on rows that the kit can make."""
    return bool({"frame", "data"} & set(component.inputs))


def is_run(component: Component) -> bool:
    """Whether the kit can run it by itself; an executor runs others, anywhere."""
    return component.stage.key != "executor"


PLUGIN_CHECKS = (
    PluginCheck("hooks", check_hooks),
    PluginCheck("settings", check_settings),
    PluginCheck("light-import", check_light_import),
    PluginCheck("public-interface", check_public_interface),
    PluginCheck("declared-libraries", check_declared),
    PluginCheck("module-names", check_module_names),
)
COMPONENT_CHECKS = (
    ComponentCheck("documented", check_documented),
    ComponentCheck("schema", check_schema),
    ComponentCheck("worker", check_worker, is_run),
    ComponentCheck("no-network", check_network, is_run),
    ComponentCheck("own-directories", check_directories, is_run),
    ComponentCheck("same-bytes", check_bytes, is_run),
    ComponentCheck("sharding", check_sharding, lambda component: "frame" in component.inputs),
    ComponentCheck("hostile-rows", check_hostile, takes_rows),
    ComponentCheck("killed", check_killed, is_run),
)
ENVIRONMENT_CHECK = ComponentCheck("own-environment", check_environment, is_run)
