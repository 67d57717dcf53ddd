"""What changed between two runs, recipe line by recipe line and library by library, and what that did."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from luthier.artifacts import Artifact, Dataset
from luthier.distributions import normalized
from luthier.errors import InputError
from luthier.explain import explain, is_content
from luthier.lock import FILE_NAME, read_lock
from luthier.recipelines import KeyPath, RecipeAsRun, key_changes, path_text
from luthier.resultdiff import (
    count_changes,
    flipped,
    intervals,
    metric_changes,
    own_ingredients,
    pair_gates,
    paired,
)
from luthier.runrecord import NodeResult, StepResult
from luthier.runs import Run

Change = dict[str, Any]
"""`step`, `kind`, `name`, `before`, `after`. The kinds: `step` (only one run has it), `component`, `configuration`,
`data` (what a location or a source's fingerprint stands for), `input` (an earlier step's result), `code`, `library`,
`runtime` (which one, and its configuration), `gate`, `subjects`, `environment`, `executor` and `from` (what the recipe
has there), `seed`, `platform`, `state`, `result` (another one from the same ingredients), `search` (the values that a
parameter was searched among).
What stands in a recipe has `lines`, as both have it: `recipe.yaml:15: rank: 8`, or the `--set` that brought it in."""

WRITTEN = ("component", "configuration", "data", "runtime", "search", "seed")
RESERVED = ("gate", "subjects", "environment", "from", "runtime", "executor")
"""The keys of a step that its ingredients do not have, or not as the recipe says them."""


@dataclass(frozen=True)
class _Side:
    """A run, its recipe, and of the plugins that it used the distribution and version that a code hash stands for."""

    run: Run
    recipe: RecipeAsRun
    versions: Mapping[str, str]

    @classmethod
    def of(cls, run: Run) -> _Side:
        return cls(run, RecipeAsRun(run), _versions(run))


def compare(before: Run, after: Run) -> dict[str, Any]:
    """What differs between two runs.

    Returns:
        `before`, `after`: the runs' ids; `recipes`: their names, and `states`: how they ended, where those differ;
        `steps`: `[{"id", "change"}]`, in words; `changes`: the same for programs, see `Change`;
        `environment`: `[{"name", "before", "after"}]`, Python, platform and the distributions that no step's key has;
        `counts`: `[{"step", "name", "before", "after"}]`, of a data step's documents, where they differ; None where
        one side lacks the step; `metrics`: `[{"step", "metric", "before", "after"}]`, likewise;
        `intervals`: `[{"step", "metric", "difference", "low", "high", "confidence"}]`, of B's metric minus A's
        where both were measured on the same examples; `gates`: those that flipped.
    """
    old = {step.id: step for step in before.steps}
    new = {step.id: step for step in after.steps}
    ids = list(dict.fromkeys([*old, *new]))
    a, b = _Side.of(before), _Side.of(after)
    by_step = {name: _step_changes(a, b, old.get(name), new.get(name)) for name in ids}
    changes = [change for found in by_step.values() for change in found]
    metrics = [each for name in ids for each in metric_changes(name, old.get(name), new.get(name))]
    words = {name: _in_words(old.get(name), new.get(name), found) for name, found in by_step.items()}
    return {
        "before": before.id,
        "after": after.id,
        "recipes": _both(before.data.recipe, after.data.recipe),
        "states": _both(before.state, after.state),
        "steps": [{"id": name, "change": text} for name, text in words.items() if text],
        "changes": changes,
        "environment": _environment_changes(before, after, changes),
        "counts": [each for name in ids for each in count_changes(name, old.get(name), new.get(name))],
        "metrics": metrics,
        "intervals": list(intervals(before, after, metrics)),
        "gates": list(flipped(before, after)),
    }


def _both(before: str, after: str) -> dict[str, str] | None:
    return {"before": before, "after": after} if before != after else None


# --- steps --------------------------------------------------------------------------------------------


def _in_words(before: StepResult | None, after: StepResult | None, changes: Sequence[Change]) -> str:
    """What changed in how a step was made; empty if nothing did."""
    if before is None or after is None:
        return "only in B" if before is None else "only in A"
    reasons = [explain(was.ingredients, now.ingredients) for was, now in _changed_nodes(before, after)]
    for change in changes:
        if change["kind"] in ("gate", "subjects", "environment", "from", "search"):
            name = "" if change["name"] == change["kind"] else f"{change['name']} "
            reasons.append(f"{change['kind']} changed: {name}{change['before']} → {change['after']}")
    if before.state != after.state:
        reasons.append(f"{before.state} → {after.state}")
    if any(change["kind"] == "result" for change in changes):
        reasons.append("another result from the same ingredients")
    return "; ".join(dict.fromkeys(reasons))


def _changed_nodes(before: StepResult, after: StepResult) -> Iterator[tuple[NodeResult, NodeResult]]:
    """What was done for the step otherwise than before, by subject, with the ingredients that are the step's own."""
    now = {node.subject: node for node in after.nodes if node.ingredients}
    for node in before.nodes:
        other = now.get(node.subject)
        if node.ingredients and other:
            # Of a fused pass, the input is that of the first part alone: what the others get is not stored.
            first = node.part == other.part == 0
            own = [replace(each, part=0, ingredients=_own(each, first=first)) for each in (node, other)]
            if own[0].ingredients != own[1].ingredients:
                yield own[0], own[1]


def _own(node: NodeResult, *, first: bool) -> dict[str, Any]:
    parts = node.ingredients.get("parts", [])
    inputs = node.ingredients.get("inputs", {}) if first else {}
    return {**node.ingredients, "parts": parts[node.part : node.part + 1], "inputs": inputs}


def _step_changes(a: _Side, b: _Side, before: StepResult | None, after: StepResult | None) -> list[Change]:
    if before is None or after is None:
        there = after or before
        assert there is not None
        lines = {"before": _lines(a, before) if before else [], "after": _lines(b, after) if after else []}
        named = [f"{step.stage}: {step.component}" if step else None for step in (before, after)]
        return [{"step": there.id, **_change("step", there.id, *named), "lines": lines}]
    found: list[Change] = []
    for node, other in _changed_nodes(before, after):
        told = ({"step": after.id, **change} for change in _node_changes(a, b, node, other))
        found += [change for change in told if change not in found]
    found += [{"step": after.id, **change} for change in _changed("search", _lists(before), _lists(after))]
    for change in found:
        if change["kind"] in WRITTEN:
            path = _path(change)
            change["lines"] = {"before": _lines(a, before, path), "after": _lines(b, after, path)}
    known = {change["kind"] for change in found}
    found += [change for key in RESERVED if key not in known for change in _recipe_changes(a, b, before, after, key)]
    if before.state != after.state:
        found.append({"step": after.id, **_change("state", "state", before.state, after.state)})
    artifacts = (before.artifact, after.artifact)
    alike = [node.ingredients for node in before.nodes] == [node.ingredients for node in after.nodes]
    if alike and all(artifacts) and before.artifact != after.artifact:
        found.append({"step": after.id, **_change("result", "result", *artifacts)})
    return found


def _recipe_changes(a: _Side, b: _Side, before: StepResult, after: StepResult, key: str) -> Iterator[Change]:
    """What the recipes say under a reserved key, where that differs; what is absent has no line."""

    def written(path: KeyPath, was: Any, now: Any) -> Change:
        lines = {
            "before": [] if was is None else _lines(a, before, path),
            "after": [] if now is None else _lines(b, after, path),
        }
        return {"step": after.id, **_change(key, path_text(path[1:]) or key, was, now), "lines": lines}

    found = [written(*each) for each in key_changes(a.recipe, b.recipe, after.id, key)]
    if key == "gate" and not found:
        # The lines are the same: a bound holds a reference, such as ${env:BOUND}.
        gates = [[gate for gate in side.run.gates if gate.step == after.id] for side in (a, b)]
        found = [
            written(("gate", was.metric), was.bound, now.bound)
            for was, now in pair_gates(*gates)
            if was.bound != now.bound
        ]
    yield from found


def _node_changes(a: _Side, b: _Side, before: NodeResult, after: NodeResult) -> Iterator[Change]:
    was, now = own_ingredients(before), own_ingredients(after)
    yield from _code_changes(a, b, was, now)
    yield from _changed("configuration", _flat(was.get("config", {})), _flat(now.get("config", {})))
    if was.get("fingerprint") != now.get("fingerprint"):
        yield _change("data", f"what {now.get('component')} reads", was.get("fingerprint"), now.get("fingerprint"))
    then, there = before.ingredients, after.ingredients
    for name, one, other in paired(then.get("inputs", {}), there.get("inputs", {})):
        if one != other:
            yield _change("input", name, _describe(a.run, one), _describe(b.run, other))
    for _, one, other in paired(then.get("runtimes", {}), there.get("runtimes", {})):
        if one and other:  # What only one side has comes with a change of the component.
            yield from _code_changes(a, b, one, other, kind="runtime")
            yield from _changed("runtime", _flat(one.get("config", {})), _flat(other.get("config", {})))
    for name in ("seed", "platform"):
        if then.get(name) != there.get(name):
            yield _change(name, name, then.get(name), there.get(name))


def _code_changes(
    a: _Side, b: _Side, was: Mapping[str, Any], now: Mapping[str, Any], kind: str = "component"
) -> Iterator[Change]:
    if was.get("component") != now.get("component"):
        yield _change(kind, kind, was.get("component"), now.get("component"))
    elif was.get("code") != now.get("code"):
        yield _change("code", str(now.get("plugin")), _code(a, was), _code(b, now))
    yield from _changed("library", was.get("requires", {}), now.get("requires", {}))


def _changed(kind: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[Change]:
    for name, was, now in sorted(paired(before, after)):
        if was != now:
            # Of a location only the content is in a key.
            data = kind == "configuration" and is_content(was) and is_content(now)
            yield _change("data" if data else kind, name, was, now)


def _flat(configuration: Mapping[str, Any]) -> dict[str, Any]:
    """Nested mappings as dotted names, so that a change is told of its own line."""
    found: dict[str, Any] = {}
    for name, value in configuration.items():
        if isinstance(value, Mapping) and value:
            found |= {f"{name}.{inner}": each for inner, each in _flat(value).items()}
        else:
            found[name] = value
    return found


def _change(kind: str, name: str, before: Any, after: Any) -> Change:
    return {"kind": kind, "name": name, "before": before, "after": after}


def _lists(step: StepResult) -> Mapping[str, Any]:
    return step.search.lists if step.search else {}


def _code(side: _Side, part: Mapping[str, Any]) -> dict[str, str]:
    code = str(part.get("code"))
    return {"version": side.versions.get(code, ""), "code": code}


def _versions(run: Run) -> dict[str, str]:
    try:
        plugins = read_lock(run.path / FILE_NAME).plugins
    except InputError:  # A run of before locks were written.
        return {}
    return {each.code: f"{name} {each.version}".strip() for name, each in plugins.items()}


def _describe(run: Run, hash: str | None) -> dict[str, Any] | None:
    """An input: its hash, the step that gave it, and of a dataset in the store its rows and columns."""
    if hash is None:
        return None
    giver = next((step for step in run.steps if step.artifact == hash), None)
    found: dict[str, Any] = {"hash": hash, "from": giver.id if giver else ""}
    artifact = run.store.get(hash)
    return found | (_size(artifact) if artifact else {})


def _size(artifact: Artifact) -> dict[str, int]:
    if not isinstance(artifact, Dataset) or not artifact.shards:
        return {}
    import polars as pl

    rows = artifact.scan()
    return {"rows": int(rows.select(pl.len()).collect().item()), "columns": len(rows.collect_schema())}


def _path(change: Change) -> KeyPath:
    """Where a recipe says what changed."""
    kind, name = change["kind"], change["name"]
    if kind == "component":
        return ()
    return (*(("runtime",) if kind == "runtime" and name != kind else ()), *name.split("."))


def _lines(side: _Side, step: StepResult, path: KeyPath = ()) -> list[str]:
    return side.recipe.lines(step.id, step.stage, path)


# --- the environment ----------------------------------------------------------------------------------


def _environment_changes(before: Run, after: Run, changes: list[Change]) -> list[dict[str, Any]]:
    told = {each for change in changes for each in _versions_told(change)}
    was, now = before.data.environment, after.data.environment
    plain = [
        {"name": name, "before": was.get(name), "after": now.get(name)}
        for name in ("python", "platform")
        if was.get(name) != now.get(name)
    ]
    groups = [("", was.get("distributions", {}), now.get("distributions", {}))]
    for plugin, one, other in paired(was.get("environments", {}), now.get("environments", {})):
        groups.append((f" in the environment of {plugin}", one or {}, other or {}))
    return plain + [
        {"name": f"{name}{where}", "before": one, "after": other}
        for where, installed, there in groups
        for name, one, other in sorted(paired(installed, there))
        if one != other and (normalized(name), one, other) not in told
    ]


def _versions_told(change: Change) -> Iterator[tuple[str, str | None, str | None]]:
    """The distribution, and its versions before and after, that a step's change speaks of."""
    was, now = change["before"], change["after"]
    if change["kind"] == "library":
        # Of a plugin, its code follows the version.
        one, other = (each.partition(" ")[0] if each else None for each in (was, now))
        yield normalized(change["name"]), one, other
    elif change["kind"] == "code":
        (name, _, before), (_, _, after) = (each["version"].partition(" ") for each in (was, now))
        yield normalized(name), before, after
