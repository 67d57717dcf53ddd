"""Where everything came from: code, configuration, inputs and results by their hashes; the environment."""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from luthier import Run, StepResult
from luthier_report._values import displayable, value_text

GROUP = "luthier"


@dataclass(frozen=True)
class Code:
    """A component's code: its plugin's distribution, version, hash, and the versions that it requires."""

    component: str
    distribution: str
    version: str
    hash: str
    requires: dict[str, str]


@dataclass(frozen=True)
class StepLineage:
    """How one step came to its result. All texts are displayable."""

    id: str
    stage: str
    state: str
    cached: bool
    seconds: float
    code: Code | None
    runtimes: list[Code]
    configuration: list[tuple[str, str]]
    inputs: list[tuple[str, str]]
    keys: list[tuple[str, str]]
    artifact: str
    kind: str
    seed: str


@dataclass(frozen=True)
class Environment:
    """Where the run ran; `key` are the distributions that its components require, `others` the rest."""

    python: str
    platform: str
    key: list[tuple[str, str]]
    others: list[tuple[str, str]]


def lineage(run: Run) -> list[StepLineage]:
    """Every step, in the order of the recipe."""
    return [_step(run, step) for step in run.steps]


def part_of(step: StepResult) -> Mapping[str, Any]:
    """What the step's key says of its component: code, configuration; empty where it was not reached."""
    for node in step.nodes:
        parts = node.ingredients.get("parts", [])
        if node.part < len(parts):
            part: Mapping[str, Any] = parts[node.part]
            return part
    return {}


def configuration_of(step: StepResult) -> dict[str, Any]:
    """The step's whole configuration, defaults included; content's hash in place of a path."""
    return dict(part_of(step).get("config", {}))


def _step(run: Run, step: StepResult) -> StepLineage:
    part = part_of(step)
    first = step.nodes[0] if step.nodes else None
    ingredients = first.ingredients if first else {}
    return StepLineage(
        id=displayable(step.id),
        stage=displayable(step.stage),
        state=step.state,
        cached=step.cached,
        seconds=step.seconds,
        code=_code(run, part) if part else None,
        runtimes=[_code(run, runtime) for runtime in ingredients.get("runtimes", {}).values()],
        configuration=flatten(part.get("config", {})),
        inputs=[(displayable(name), str(value)) for name, value in ingredients.get("inputs", {}).items()],
        keys=[(displayable(node.subject), node.key) for node in step.nodes],
        artifact=step.artifact,
        kind=step.kind,
        seed=value_text(ingredients.get("seed")) if "seed" in ingredients else "",
    )


def flatten(configuration: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Keys with dots, and values as text."""
    flat: list[tuple[str, str]] = []
    for name, value in configuration.items():
        if isinstance(value, Mapping) and value:
            flat += flatten(value, f"{prefix}{name}.")
        else:
            flat.append((displayable(f"{prefix}{name}"), value_text(value)))
    return flat


def _code(run: Run, part: Mapping[str, Any]) -> Code:
    plugin = str(part.get("plugin", ""))
    distribution = distribution_of(plugin)
    versions: Mapping[str, str] = run.data.environment.get("distributions", {})
    return Code(
        component=displayable(str(part.get("component", ""))),
        distribution=displayable(distribution or f"{plugin} (a local file)"),
        version=versions.get(distribution, ""),
        hash=str(part.get("code", "")),
        requires={name: str(version).split()[0] for name, version in part.get("requires", {}).items()},
    )


@cache
def distribution_of(plugin: str) -> str:
    """The distribution that gives the plugin of this name; empty for a local file."""
    for point in importlib.metadata.entry_points(group=GROUP, name=plugin):
        if point.dist is not None:
            return str(point.dist.name)
    return ""


def environment(run: Run) -> Environment:
    """Python, platform and the versions of what was installed."""
    recorded = run.data.environment
    versions = {_normal(name): (name, version) for name, version in recorded.get("distributions", {}).items()}
    wanted = {_normal(name) for step in run.steps for name in part_of(step).get("requires", {})}
    wanted |= {name for name in versions if name == GROUP or name.startswith(f"{GROUP}-")}
    items = [(name, *versions[name]) for name in sorted(versions)]
    return Environment(
        python=str(recorded.get("python", "")),
        platform=displayable(str(recorded.get("platform", ""))),
        key=[(shown, version) for name, shown, version in items if name in wanted],
        others=[(shown, version) for name, shown, version in items if name not in wanted],
    )


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
