"""Which runs, and so which models, saw rows of the log: their source steps say which rows they used."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from luthier import InputError, Run, StepResult, find_run
from luthier_feedback.frames import TABLE


@dataclass(frozen=True)
class Seen:
    """A run that used rows.

    Attributes:
        run: its id.
        recipe: the name of its recipe.
        trained, held_out: how many of the rows it read to train on and to test on; None where its record is no longer
            in the store, so that nobody can tell.
        models: the hashes of the models that it made of feedback, with the steps that did: none of those before.
    """

    run: str
    recipe: str
    trained: int | None
    held_out: int | None
    models: tuple[tuple[str, str], ...]

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "run": self.run,
            "recipe": self.recipe,
            "trained_on": self.trained,
            "held_out": self.held_out,
            "models": [{"step": step, "hash": artifact} for step, artifact in self.models],
        }


def runs_that_saw(ids: Collection[str], home: Path | None = None) -> list[Seen]:
    """The runs of a store whose `feedback` steps used any of the rows, or may have, newest first."""
    wanted = set(ids)
    return [seen for run in runs_in(home) if (seen := _look(run, wanted)) is not None]


def rows_used(run: Run) -> dict[str, str] | None:
    """The rows that a run used, by their ids, and for what: `train` or `held-out`.

    None if it has a step that used feedback, whose record is no longer in the store.
    """
    used: dict[str, str] = {}
    for step in run.steps:
        if not _reads_feedback(step) or step.state != "done":
            continue
        report = run.report(step.id)
        if report is None or TABLE not in report.tables():
            return None
        found = report.table(TABLE)
        for row, use in found.select("row", "use").iter_rows():
            # What one step trains on is trained on, whatever another holds out.
            if use == "train" or (use == "held-out" and row not in used):
                used[row] = use
    return used


def runs_in(home: Path | None) -> Iterator[Run]:
    """The runs of a store, newest first; none where there is no store."""
    try:
        newest = find_run(home=home)
    except InputError:
        return  # there is no store, or nothing in it
    for path in sorted(newest.path.parent.iterdir(), reverse=True):
        if (path / "run.json").exists():
            yield Run.at(path)


def _look(run: Run, wanted: set[str]) -> Seen | None:
    used = rows_used(run)
    models = tuple(_models(run))
    if used is None:
        return Seen(run.id, run.data.recipe, None, None, models)
    uses = [used[each] for each in wanted & used.keys()]
    if not uses:
        return None
    return Seen(run.id, run.data.recipe, uses.count("train"), uses.count("held-out"), models)


def _reads_feedback(step: StepResult) -> bool:
    return (step.stage, step.component) == ("source", "feedback")


def _models(run: Run) -> Iterator[tuple[str, str]]:
    """The models that a run made of what its `feedback` steps gave, at first hand or through other steps."""
    reached: set[str] = set()
    for step in run.steps:
        made_of = [node.ingredients["inputs"] for node in step.nodes if "inputs" in node.ingredients]
        inputs = {artifact for each in made_of for artifact in each.values()}
        # Where nothing says what a step was made of, it may have been that.
        if _reads_feedback(step) or not made_of or inputs & reached:
            reached.add(step.artifact)
            if step.kind in ("model", "onnx") and step.artifact:
                yield step.id, step.artifact
