"""Has the work of a node done by workers: one request, or one for each shard and one that joins them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from luthier import environments
from luthier.artifacts import Artifact, Dataset, Report
from luthier.errors import InputError
from luthier.events import Listener, StepProgress, from_worker
from luthier.formatting import describe_counts
from luthier.plans import Node, Plan
from luthier.pool import Pool
from luthier.store import WorkDirectory


class Performer:
    """Asks the workers of a pool for what the nodes of a plan need."""

    def __init__(self, plan: Plan, pool: Pool, generations: Path, device: str) -> None:
        self._plan = plan
        self._pool = pool
        self._generations = generations
        self._device = device

    def perform(
        self, node: Node, inputs: Mapping[str, Artifact], work: WorkDirectory, listen: Listener
    ) -> dict[str, Any]:
        """Have a node's work done; gives what its record keeps of it.

        Raises:
            LuthierError: the component's error, or its worker's.
        """
        hear = self._hearing(node, listen)
        if node.task == "shards":
            result = self._pass_over_shards(node, inputs["data"], work, listen)
        else:
            result = self._pool.call(self._request(node, inputs, work), hear, _python(node))
        details = {name: value for name, value in result.items() if name != "type"}
        if node.kind == "dataset" and details["rows"] == 0:
            error = InputError(
                f"no rows are left ({_what_became(node, work.notes)})",
                "Loosen its configuration, or the steps' before it.",
            )
            error.part = _emptied_by(node, work.notes)
            raise error
        return details

    def rows_in_split(self, node: Node, data: Artifact, split: str) -> int:
        """How many rows of a node's data are in a split."""
        request = {"task": "count", "input": _artifact_record(data), "split": split}
        return int(self._pool.call(request, lambda message: None, _python(node))["rows"])

    def check_device(self) -> None:
        """Have what is to compute here say whether there is the device that the user named; each says it once.

        Raises:
            LuthierError: if there is none.
        """
        asked: set[tuple[object, str]] = set()
        for node in self._plan.nodes if self._device not in ("auto", "cpu") else ():
            # What an executor of the recipe's starts may compute on another machine.
            components = [step.component for step in node.parts if step.executor is None]
            components += [self._plan.registry.runtime(each.name) for each in node.runtimes.values()]
            for component in components:
                question = (component.declared.check_device, node.environment)
                if question[0] is None or question in asked:
                    continue
                asked.add(question)
                named = {"stage": component.stage.label, "component": component.name, "device": self._device}
                self._pool.call({"task": "check-device", **named}, lambda message: None, _python(node))

    def _hearing(self, node: Node, listen: Listener) -> Callable[[Mapping[str, Any]], None]:
        def hear(message: Mapping[str, Any]) -> None:
            event = from_worker(node.id, message)
            if event is not None:
                listen(event)

        return hear

    def _request(self, node: Node, inputs: Mapping[str, Artifact], work: WorkDirectory) -> dict[str, Any]:
        return {
            "task": node.task,
            **_component_request(node.step),
            "form": node.form,
            "inputs": {name: _artifact_record(artifact) for name, artifact in inputs.items()},
            "executor": asdict(node.step.executor) if node.step.executor else None,
            "runtimes": {name: asdict(runtime) for name, runtime in node.runtimes.items()},
            "output": str(work.output),
            "notes": str(work.notes / "0"),
            "checkpoint": str(work.checkpoint),
            "generations": str(self._generations),
            **self._common(),
        }

    def _common(self) -> dict[str, Any]:
        return {"seed": self._plan.recipe.seed, "device": self._device, "pins": self._plan.pins}

    def _pass_over_shards(self, node: Node, data: Artifact, work: WorkDirectory, listen: Listener) -> dict[str, Any]:
        hear = self._hearing(node, listen)
        assert isinstance(data, Dataset)
        parts = [
            {**_component_request(step), "form": form} for step, form in zip(node.parts, node.part_forms, strict=True)
        ]
        shards = data.shards
        finished = [work.checkpoint / f"shard-{index:05d}" for index in range(len(shards))]
        common = {"task": "shard", "parts": parts, **self._common()}
        requests = [
            {**common, "input": str(shard), "done": str(done), "attempt": str(done.with_suffix(".attempt"))}
            for shard, done in zip(shards, finished, strict=True)
        ]
        busy: list[float] = []

        def advance(result: Mapping[str, Any]) -> None:
            busy.append(result["busy"])
            listen(StepProgress(step=node.step.id, done=len(busy), total=len(shards), metrics={}))

        self._pool.map(requests, hear, advance, _python(node))
        join = {
            "task": "join",
            **_component_request(node.step),
            "output": str(work.output),
            "notes": str(work.notes),
            "shards": list(map(str, finished)),
            "parts": len(parts),
        }
        result = self._pool.call(join, hear, _python(node))
        side_by_side = min(self._pool.jobs, len(shards))
        return {**result, "busy": result["busy"] + sum(busy) / side_by_side}


def _python(node: Node) -> Path | None:
    """The interpreter of the environment that a node runs in; None for the main one."""
    return environments.require(node.environment).python if node.environment else None


def _artifact_record(artifact: Artifact) -> dict[str, Any]:
    return {"kind": artifact.kind, "form": artifact.form, "path": str(artifact.path), "hash": artifact.hash}


def _component_request(step: Any) -> dict[str, Any]:
    return {"stage": step.stage.name, "component": step.component.name, "config": step.config}


def counts_of(report: Report) -> dict[str, int]:
    """What became of the rows of a data step; empty for any other."""
    path = report.path / "outcome.json"
    if not path.exists():
        return {}
    counts: dict[str, int] = json.loads(path.read_text(encoding="utf-8"))["counts"]
    return counts


def _what_became(node: Node, notes: Path) -> str:
    """What each step of a node did with the rows, for the one who looks for where they went."""
    told = []
    for index, step in enumerate(node.parts):
        counts = counts_of(Report.at(notes / str(index), "report", ""))
        told.append(f"{step.id}: {describe_counts(counts) or 'none in'}")
    return "; ".join(told)


def _emptied_by(node: Node, notes: Path) -> int:
    """The place of the first part of a node that gave no rows."""
    given = [counts_of(Report.at(notes / str(index), "report", "")) for index in range(len(node.parts))]
    return next((index for index, each in enumerate(given) if not each["kept"] + each["added"]), len(given) - 1)
