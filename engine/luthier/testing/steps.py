"""The requests that have a worker do a step of one component, as a run would send them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from luthier.artifacts import Artifact, Dataset
from luthier.components import Component
from luthier.streaming import Sampling

SEED = 7
PROMPTS = ("Name a river.", "Say it in one line: two words", "")
TOY_RUNTIME = "conformance-toy"


def step_requests(
    component: Component,
    configuration: Mapping[str, Any],
    pins: Mapping[str, str],
    inputs: Mapping[str, Artifact],
    place: Path,
) -> list[dict[str, Any]]:
    """What to ask a worker, in order, to run the component once.

    Args:
        component: of any stage.
        configuration: as a recipe has it.
        pins: for each location in it the local path that stands for it.
        inputs: by name, without `ctx`; a frame component's rows are `frame`.
        place: `output`, `notes` and `checkpoint` are made below it.
    """
    common: dict[str, Any] = {
        "stage": component.stage.label,
        "component": component.name,
        "config": dict(configuration),
        "form": _form_given(component, configuration, inputs),
        "seed": SEED,
        "device": "cpu",
        "pins": dict(pins),
        "output": str(place / "output"),
        "notes": str(place / "notes" / "0"),
        "checkpoint": str(place / "checkpoint"),
        "generations": str(place / "generations"),
    }
    if "frame" in component.inputs:
        return _over_shards(common, inputs["frame"], place)
    records = {name: record(artifact) for name, artifact in inputs.items()}
    if component.stage.gives == "dataset":
        return [{**common, "task": "dataset", "inputs": records}]
    if component.stage.gives == "report":
        loaded = [name for name in ("subject", "reference") if name in records]
        runtimes = {name: {"name": TOY_RUNTIME, "config": {}} for name in loaded}
        return [{**common, "task": "validate", "inputs": records, "runtimes": runtimes}]
    if component.stage.gives is None:
        runtime = {"name": component.name, "config": dict(configuration)}
        subject = next(iter(records.values()))
        asked = {"prompts": list(PROMPTS), "max_new_tokens": 8, "sampling": asdict(Sampling())}
        return [{**common, "task": "generate", "runtime": runtime, "subject": subject, **asked}]
    return [{**common, "task": "directory", "inputs": records}]


def _over_shards(common: Mapping[str, Any], data: Artifact, place: Path) -> list[dict[str, Any]]:
    assert isinstance(data, Dataset)
    done = [place / "checkpoint" / shard.stem for shard in data.shards]
    shards = [
        {
            **common,
            "task": "shard",
            "parts": [common],
            "input": str(shard),
            "done": str(finished),
            "attempt": str(finished.with_suffix(".attempt")),
        }
        for shard, finished in zip(data.shards, done, strict=True)
    ]
    join = {**common, "task": "join", "notes": str(place / "notes"), "shards": list(map(str, done)), "parts": 1}
    return [*shards, join]


def _form_given(component: Component, configuration: Mapping[str, Any], inputs: Mapping[str, Artifact]) -> str:
    taken = inputs.get("frame") or inputs.get("data")
    return component.form(configuration) or (taken.form if isinstance(taken, Dataset) else "documents")


def record(artifact: Artifact) -> dict[str, str]:
    """An artifact as requests name it."""
    return {"kind": artifact.kind, "form": artifact.form, "path": str(artifact.path), "hash": artifact.hash}
