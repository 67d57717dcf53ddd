"""What changed between two runs, recipe line by recipe line and library by library, and what that did."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from luthier.artifacts import Artifact, Dataset
from luthier.errors import InputError, LuthierError
from luthier.explain import explain
from luthier.gates import Bound, judge
from luthier.lock import FILE_NAME, read_lock
from luthier.nodes import Node, RecipeError, follow, parse_yaml
from luthier.runs import NodeResult, Run, StepResult
from luthier.substitution import name_steps

CONFIDENCE = 0.95
RECIPE_FILE = "recipe.yaml"
LOCATION = "sha256:"

Change = dict[str, Any]
"""`step`, `kind`, `name`, `before`, `after`. The kinds: `step` (only one run has it), `component`, `configuration`,
`data` (what a location or a source's fingerprint stands for), `input` (an earlier step's result), `code`, `library`,
`runtime` (its configuration), `seed`, `platform`, `state`, `result` (another one from the same ingredients).
What stands in a recipe has `lines`, as both have it: `recipe.yaml:15: rank: 8`, or the `--set` that brought it in."""

WRITTEN = ("component", "configuration", "data", "seed")


def compare(before: Run, after: Run) -> dict[str, Any]:
    """What differs between two runs.

    Returns:
        `before`, `after`: the runs' ids; `recipes`: their names, where they differ;
        `steps`: `[{"id", "change"}]`, in words; `changes`: the same for programs, see `Change`;
        `environment`: `[{"name", "before", "after"}]`, Python, platform and the distributions that no step's key has;
        `metrics`: `[{"step", "metric", "before", "after"}]`, where they differ; None where one side lacks it;
        `intervals`: `[{"step", "metric", "difference", "low", "high", "confidence"}]`, of B's metric minus A's
        where both were measured on the same examples; `gates`: those that flipped.
    """
    old = {step.id: step for step in before.steps}
    new = {step.id: step for step in after.steps}
    ids = list(dict.fromkeys([*old, *new]))
    changes = [change for name in ids for change in _step_changes(before, after, old.get(name), new.get(name))]
    metrics = [
        {"step": name, "metric": metric, "before": was, "after": now}
        for name in ids
        for metric, was, now in _paired(_metrics(old.get(name)), _metrics(new.get(name)))
        if was != now
    ]
    recipes = (before.data.recipe, after.data.recipe)
    return {
        "before": before.id,
        "after": after.id,
        "recipes": {"before": recipes[0], "after": recipes[1]} if recipes[0] != recipes[1] else None,
        "steps": [{"id": name, "change": text} for name in ids if (text := _in_words(old.get(name), new.get(name)))],
        "changes": changes,
        "environment": _environment_changes(before, after, changes),
        "metrics": metrics,
        "intervals": list(_intervals(before, after, metrics)),
        "gates": list(_flipped(before, after)),
    }


def interval(before: Run, after: Run, step: str, metric: str) -> tuple[float, float] | None:
    """The 95% interval of a metric's difference, the later run's minus the earlier one's, by the gates' bootstrap.

    None unless both runs measured single examples, the same ones: with the same validator, code and
    configuration apart from the models, on the same data.
    """
    subject, _, name = metric.rpartition(".") if "." in metric else ("candidate", "", metric)
    try:
        one, other = _node_of(before.step(step), subject), _node_of(after.step(step), subject)
        if one is None or other is None or not _same_examples(one, other):
            return None
        was, now = before.report(step, subject), after.report(step, subject)
        if was is None or now is None:
            return None
        # A bound names one of the gates' subjects; which of them changes nothing in the interval.
        bound = Bound(name, "at_least", "base", 0.0, CONFIDENCE)
        found = judge(bound, now.metric_records(), was.metric_records(), after.data.seed).interval
    except LuthierError:
        return None
    return found if found and not any(map(math.isnan, found)) else None


# --- steps --------------------------------------------------------------------------------------------


def _in_words(before: StepResult | None, after: StepResult | None) -> str:
    """What changed in how a step was made; empty if nothing did."""
    if before is None or after is None:
        return "only in B" if before is None else "only in A"
    reasons = [explain(was.ingredients, now.ingredients) for was, now in _changed_nodes(before, after)]
    if before.state != after.state:
        reasons.append(f"{before.state} → {after.state}")
    if not reasons and before.artifact != after.artifact:
        reasons.append("another result from the same ingredients")
    return "; ".join(dict.fromkeys(reasons))


def _changed_nodes(before: StepResult, after: StepResult) -> Iterator[tuple[NodeResult, NodeResult]]:
    now = {node.id: node for node in after.nodes if node.ingredients}
    for node in before.nodes:
        other = now.get(node.id)
        if node.ingredients and other and node.ingredients != other.ingredients:
            yield node, other


def _step_changes(a: Run, b: Run, before: StepResult | None, after: StepResult | None) -> list[Change]:
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
    if before.state != after.state:
        found.append({"step": after.id, **_change("state", "state", before.state, after.state)})
    if not found and before.artifact != after.artifact:
        found.append({"step": after.id, **_change("result", "result", before.artifact, after.artifact)})
    for change in found:
        if change["kind"] in WRITTEN:
            key = "" if change["kind"] == "component" else change["name"]
            change["lines"] = {"before": _lines(a, before, key), "after": _lines(b, after, key)}
    return found


def _node_changes(a: Run, b: Run, before: NodeResult, after: NodeResult) -> Iterator[Change]:
    was, now = _part(before), _part(after)
    yield from _code_changes(a, b, was, now)
    yield from _changed("configuration", _flat(was.get("config", {})), _flat(now.get("config", {})))
    if was.get("fingerprint") != now.get("fingerprint"):
        yield _change("data", f"what {now.get('component')} reads", was.get("fingerprint"), now.get("fingerprint"))
    then, there = before.ingredients, after.ingredients
    for name, one, other in _paired(then.get("inputs", {}), there.get("inputs", {})):
        if one != other:
            yield _change("input", name, _describe(a, one), _describe(b, other))
    for _, one, other in _paired(then.get("runtimes", {}), there.get("runtimes", {})):
        yield from _code_changes(a, b, one or {}, other or {})
        yield from _changed("runtime", _flat((one or {}).get("config", {})), _flat((other or {}).get("config", {})))
    for name in ("seed", "platform"):
        if then.get(name) != there.get(name):
            yield _change(name, name, then.get(name), there.get(name))


def _part(node: NodeResult) -> Mapping[str, Any]:
    parts = node.ingredients.get("parts", [])
    return parts[node.part] if node.part < len(parts) else {}


def _code_changes(a: Run, b: Run, was: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[Change]:
    if was.get("component") != now.get("component"):
        yield _change("component", "component", was.get("component"), now.get("component"))
    elif was.get("code") != now.get("code"):
        yield _change("code", str(now.get("plugin")), _code(a, was), _code(b, now))
    yield from _changed("library", was.get("requires", {}), now.get("requires", {}))


def _changed(kind: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[Change]:
    for name, was, now in sorted(_paired(before, after)):
        if was != now:
            # Of a location only the content is in a key.
            data = kind == "configuration" and str(was).startswith(LOCATION) and str(now).startswith(LOCATION)
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


def _code(run: Run, part: Mapping[str, Any]) -> dict[str, str] | None:
    if not part:
        return None
    code = str(part.get("code"))
    return {"version": _versions(run).get(code, ""), "code": code}


def _versions(run: Run) -> dict[str, str]:
    """Of the plugins that a run used, the distribution and version that a code hash stands for."""
    try:
        plugins = read_lock(run.path / FILE_NAME).plugins
    except InputError:  # A run of before locks were written.
        return {}
    return {each["code"]: f"{name} {each['version']}".strip() for name, each in plugins.items()}


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


# --- the recipes' lines -------------------------------------------------------------------------------


def _lines(run: Run, step: StepResult, key: str = "") -> list[str]:
    """The lines of the recipe as run that say so; those of overrides where there are any."""
    try:
        text = (run.path / RECIPE_FILE).read_text(encoding="utf-8")
        root = parse_yaml(text, RECIPE_FILE)
    except (OSError, UnicodeDecodeError, RecipeError):
        return []
    lines = text.splitlines()
    names = ("seed",) if key == "seed" else tuple(f"{name}.{key}" for name in (step.id, step.stage))
    numbers = [number for number, line in enumerate(lines, 1) if key and _overrides(line, names)]
    if not numbers:
        number = _line_of(root, step.id, key)
        numbers = [number] if number else []
    return [f"{RECIPE_FILE}:{number}: {lines[number - 1].strip()}" for number in numbers]


def _overrides(line: str, names: tuple[str, ...]) -> bool:
    """Whether a line notes a `--set` of one of the keys, of what is in it, or of what holds it."""
    wanted, equals, _ = line.removeprefix("# --set ").partition("=")
    if not line.startswith("# --set ") or not equals:
        return False
    return any(f"{name}.".startswith(f"{wanted}.") or wanted.startswith(f"{name}.") for name in names)


def _line_of(root: Node, step: str, key: str) -> int:
    """Where a key of a step stands, or the step itself without one; 0 where the recipe does not have it."""
    if not isinstance(root.value, dict):
        return 0
    if key == "seed" and "seed" in root.value:
        place = root.value["seed"].place
        return place.line if place else 0
    for name, _, node in name_steps(root.value.get("steps")):
        if name == step:
            found, shown = follow(node, key.split(".") if key else [])
            place = found.place if not key or shown.strip(".") == key else None
            return place.line if place else 0
    return 0


# --- the environment ----------------------------------------------------------------------------------


def _environment_changes(before: Run, after: Run, changes: list[Change]) -> list[dict[str, Any]]:
    told = {change["name"] for change in changes if change["kind"] in ("library", "platform")}
    was, now = before.data.environment, after.data.environment
    plain = [
        {"name": name, "before": was.get(name), "after": now.get(name)}
        for name in ("python", "platform")
        if was.get(name) != now.get(name)
    ]
    groups = [("", was.get("distributions", {}), now.get("distributions", {}))]
    for plugin, one, other in _paired(was.get("environments", {}), now.get("environments", {})):
        groups.append((f" in the environment of {plugin}", one or {}, other or {}))
    return plain + [
        {"name": f"{name}{where}", "before": one, "after": other}
        for where, installed, there in groups
        for name, one, other in sorted(_paired(installed, there))
        if one != other and (where or name.lower() not in told)
    ]


# --- what was measured --------------------------------------------------------------------------------


def _metrics(step: StepResult | None) -> Mapping[str, float]:
    return step.metrics if step else {}


def _paired(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    return [(name, before.get(name), after.get(name)) for name in dict.fromkeys([*before, *after])]


def _intervals(before: Run, after: Run, metrics: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for each in metrics:
        if each["before"] is None or each["after"] is None:
            continue
        found = interval(before, after, each["step"], each["metric"])
        if found:
            yield {
                "step": each["step"],
                "metric": each["metric"],
                "difference": each["after"] - each["before"],
                "low": found[0],
                "high": found[1],
                "confidence": CONFIDENCE,
            }


def _node_of(step: StepResult, subject: str) -> NodeResult | None:
    return next((node for node in step.nodes if (node.subject or "candidate") == subject and node.ingredients), None)


def _same_examples(one: NodeResult, other: NodeResult) -> bool:
    """Whether two measurements are of the same examples in the same order."""

    def what(node: NodeResult) -> tuple[Any, ...]:
        part = _part(node)
        data = node.ingredients.get("inputs", {}).get("data")
        return part.get("component"), part.get("code"), part.get("config"), data

    return what(one) == what(other)


def _flipped(before: Run, after: Run) -> Iterator[dict[str, Any]]:
    was = {(gate.step, gate.metric, gate.bound): gate for gate in before.gates}
    for gate in after.gates:
        then = was.get((gate.step, gate.metric, gate.bound))
        if then and then.passed != gate.passed:
            yield {
                "step": gate.step,
                "metric": gate.metric,
                "bound": gate.bound,
                "before": then.passed,
                "after": gate.passed,
                "reason": gate.reason,
            }
