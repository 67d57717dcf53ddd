"""The checks that a plugin and its components are held to. Each raises `BrokenRuleError` with what is wrong."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from luthier.components import Component, ConfigurationError, describe
from luthier.plugins import PluginInfo, Registry
from luthier.testing import samples
from luthier.testing.imported import undeclared_imports
from luthier.testing.workshop import CannotRunError, Outcome, Workshop

SUMMARY_CHARACTERS = 120
_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")


class BrokenRuleError(AssertionError):
    """A plugin breaks a rule; the message says which component, what it did and what to do."""


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
    """Every library that the code imports is a requirement of the distribution."""
    for plugin in registry.plugins:
        if plugin.path is None:
            raise CannotRunError(f"{plugin.module} has no file to read")
        requirements = importlib.metadata.requires(plugin.distribution) or []
        missing = undeclared_imports(_sources(plugin), _packages(plugin), [*requirements, plugin.distribution])
        if missing:
            raise BrokenRuleError(
                f"{plugin.distribution} imports {', '.join(sorted(missing))} and does not require it: "
                "add it to `dependencies` in pyproject.toml"
            )


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
    try:
        canonical = component.canonical(configuration)
    except ConfigurationError as error:
        missing = (
            {(each.name,) for each in component.parameters if each.default is each.empty}
            if not configuration
            else set()
        )
        wrong = [problem for problem in error.problems if problem.key not in missing]
        if wrong:
            keys = "; ".join(": ".join(filter(None, (".".join(map(str, p.key)), p.message))) for p in wrong)
            raise BrokenRuleError(f"{where}: the defaults do not pass: {keys}") from error
        return
    again = component.canonical(json.loads(json.dumps(canonical)))
    if again != canonical:
        raise BrokenRuleError(f"{where}: {canonical} comes back from JSON as {again}")


def check_worker(workshop: Workshop, component: Component) -> None:
    """It does its work in a worker process, as in a run."""
    _working(workshop, component, workshop.sample_run(component))


def _working(workshop: Workshop, component: Component, outcome: Outcome) -> Outcome:
    if outcome.error is None:
        return outcome
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
    _refuse_all(describe(component.function), outcome.heard, ("write",), remedy)
    changed = workshop.changed_inputs()
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


def _same(component: Component, first: Outcome, second: Outcome, what: str) -> None:
    # Elsewhere the notes may say how long things took.
    measures = component.stage.gives == "report"
    before, after = first.result(notes=measures), second.result(notes=measures)
    differing = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
    if differing:
        raise BrokenRuleError(
            f"{describe(component.function)}, {what}, gives other bytes: {', '.join(differing[:8])}. Take randomness "
            "from ctx.seed or ctx.rng, sort what comes from sets and directories, and leave times out"
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
    """It gives the same in an environment of its own, where only what its distribution requires is installed."""
    from luthier.environment_build import build

    if isinstance(workshop.plugin, Path):
        raise CannotRunError("a one-file plugin has no requirements to build an environment from")
    workshop.ready(component)
    environment = build(component.distribution, tell=lambda line: None)
    outcome = workshop.run(component, python=environment.python)
    if outcome.error:
        raise BrokenRuleError(
            f"{describe(component.function)} failed in the environment {environment.path}: {_told(outcome)}"
        )


def _told(outcome: Outcome) -> str:
    assert outcome.error is not None
    detail = getattr(outcome.error, "detail", "")
    return f"{outcome.error}\n{detail}".rstrip()


def takes_rows(component: Component) -> bool:
    """Whether it works on rows that the kit can make."""
    return bool({"frame", "data"} & set(component.inputs))


PLUGIN_CHECKS = (
    PluginCheck("hooks", check_hooks),
    PluginCheck("light-import", check_light_import),
    PluginCheck("declared-libraries", check_declared),
)
COMPONENT_CHECKS = (
    ComponentCheck("documented", check_documented),
    ComponentCheck("schema", check_schema),
    ComponentCheck("worker", check_worker),
    ComponentCheck("no-network", check_network),
    ComponentCheck("own-directories", check_directories),
    ComponentCheck("same-bytes", check_bytes),
    ComponentCheck("sharding", check_sharding, lambda component: "frame" in component.inputs),
    ComponentCheck("hostile-rows", check_hostile, takes_rows),
    ComponentCheck("killed", check_killed),
)
ENVIRONMENT_CHECK = ComponentCheck("own-environment", check_environment)
