"""Steps of a checked recipe, written down again as a recipe has them, with every location absolute."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

Step = dict[str, Any]
"""One step as a recipe's mapping: its stage and component first, then the other keys."""

ALL_SUBJECTS = 4
"""Of a validator, where its step says nothing of them: the candidate, the base, the reference and the champion."""


def written(step: Any) -> Step:
    """A checked step (of `luthier.plan`) as a recipe has it, without what is the default."""
    name = step.component.name
    found: Step = {step.stage.name: name}
    if step.id != name:
        found["id"] = step.id
    if step.source:
        found["from"] = list(step.source)
    found |= step.named
    for key in ("runtime", "executor"):
        chosen = getattr(step, key)
        if chosen is not None:
            found[key] = {"name": chosen.name, **chosen.config}
    if step.environment:
        found["environment"] = step.environment
    if step.gate:
        found["gate"] = step.gate
    if len(step.subjects) < ALL_SUBJECTS:
        found["subjects"] = list(step.subjects)
    defaults = {each.name: _plain(each.default) for each in step.component.parameters}
    lists = step.space.lists if step.space else {}
    configured = {**step.config, **lists}
    found |= {
        key: _escaped(value) for key, value in configured.items() if key in lists or value != defaults.get(key, ...)
    }
    return found


def id_of(step: Mapping[str, Any]) -> str:
    """The id of a step as a recipe has it."""
    return str(step.get("id") or next(iter(step.values())))


def renamed(steps: Sequence[Step], prefix: str) -> list[Step]:
    """Steps with other ids, so that they can stand beside those of another recipe; what they name is renamed too."""
    ids = {id_of(step) for step in steps}

    def name(key: str, value: Any) -> Any:
        if key == "from":
            return [prefix + each for each in value]
        return prefix + value if key == "other" and value in ids else value

    return [{**{key: name(key, value) for key, value in step.items()}, "id": prefix + id_of(step)} for step in steps]


def ancestors(nodes: Iterable[Any]) -> set[str]:
    """The ids of all steps that nodes of a plan, and what they are made of, do."""
    waiting = list(nodes)
    found: set[str] = set()
    while waiting:
        node = waiting.pop()
        ids = {step.id for step in node.parts}
        if not ids <= found:
            found |= ids
            waiting += node.inputs.values()
    return found


def recipe_text(name: str, seed: int, steps: Sequence[Mapping[str, Any]], comment: str) -> str:
    """A recipe as YAML, with a comment above it."""
    from io import StringIO

    yaml = YAML(typ="rt", pure=True)
    yaml.indent(mapping=2, sequence=4, offset=2)
    yaml.width = 100
    text = StringIO()
    yaml.dump({"luthier": 1, "name": name, "seed": seed, "steps": [dict(step) for step in steps]}, text)
    above = "".join(f"# {line}".rstrip() + "\n" for line in comment.splitlines())
    return above + text.getvalue()


def seed_of(recipe: Path) -> int:
    """The seed of a recipe's file, which `luthier.plan` has accepted."""
    return int(YAML(typ="safe", pure=True).load(recipe.read_text(encoding="utf-8-sig")).get("seed", 0))


def overrides_of(text: str) -> dict[str, Any]:
    """The overrides of a run, which stand in comments above the recipe that it keeps."""
    marks = (line.removeprefix("# --set ") for line in text.splitlines() if line.startswith("# --set "))
    return {name: json.loads(value) for name, _, value in (mark.partition("=") for mark in marks)}


def _plain(default: Any) -> Any:
    """A parameter's default as the JSON value that a checked step has for it."""
    if dataclasses.is_dataclass(default) and not isinstance(default, type):
        return {each.name: _plain(getattr(default, each.name)) for each in dataclasses.fields(default)}
    return list(default) if isinstance(default, tuple) else default


def _escaped(value: Any) -> Any:
    """A value in which references of recipes (`${env:NAME}`) have been put in, so that none is read into it again."""
    if isinstance(value, str):
        return value.replace("${", "$${")
    if isinstance(value, Mapping):
        return {key: _escaped(inner) for key, inner in value.items()}
    return [_escaped(inner) for inner in value] if isinstance(value, list) else value
