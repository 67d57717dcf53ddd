"""Go a route: run it as a recipe, whose steps the store keeps, and read what was measured of its model."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import luthier
from luthier import Dataset, InputError, LuthierError, Recipe, Run
from luthier_optimize.material import REMEDY_DATA, Material
from luthier_optimize.outcome import Tried
from luthier_optimize.routes import Route
from luthier_optimize.steps import Step

BASELINE = "float32"
FEWEST_EXAMPLES = 8
FEWEST_TOKENS = 256
"""Below these, a mean over the held-out text says little of a model; measuring on it is refused."""
NORMAL_95 = 1.96

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Workshop:
    """How recipes are run.

    Attributes:
        material: what every recipe begins with.
        home: the store's directory.
        plugins: one-file plugins.
        device: where models run.
        examples: of the held-out text, that every model is measured on.
        failures: why steps failed before, by key; steps that fail now are added.
        tell: is told what is being done.
    """

    material: Material
    home: Path
    plugins: Sequence[Path]
    device: str
    examples: int
    failures: dict[str, str]
    tell: Tell

    def recipe(self, name: str, steps: Sequence[Step]) -> Recipe:
        """The material's recipe with more steps."""
        recipe = Recipe(recipe_name(self.material, name), seed=self.material.seed)
        for step in [*self.material.steps, *steps]:
            (stage, component), *rest = step.items()
            recipe.step(stage, component, **{_argument(key): value for key, value in rest})
        return recipe

    def run(self, recipe: Recipe) -> Run:
        """Run a recipe, or find what it gave.

        Raises:
            LuthierError: if a step fails.
        """

        def listen(event: Any) -> None:
            if event.type == "step_started":
                self.tell(event.step)

        return luthier.run(
            recipe, home=self.home, plugins=self.plugins, device=self.device, display=False, listen=listen
        )

    def measures(self, *, compared: bool, gated: bool = False) -> list[Step]:
        """The validators of a model: of its text, the recipe's own, and if it is compared, its parity.

        Args:
            compared: it is an exported one: it is held against the material's model, whatever was pruned since.
            gated: the recipe's own keep their gates.
        """
        limit = {"max_examples": self.examples}
        model = self.material.model
        found: list[Step] = [{"validate": "parity", "reference": model, **limit}] if compared else []
        found.append({"validate": "perplexity", "subjects": ["candidate"], **limit})
        found += [
            {**task.step, "reference": task.step.get("reference", model)} if gated else task.alone
            for task in self.material.texts.tasks
        ]
        return [self.material.reading(step) for step in found]


def _argument(key: str) -> str:
    return f"{key}_" if key == "from" else key


def recipe_name(material: Material, route: str = "") -> str:
    """The name of a route's recipe, and so of its runs: the same from whichever run the model is taken."""
    words = "".join(c if c.isalnum() or c in "_.-" else " " for c in f"optimize {material.name[:60]} {route}").split()
    return "-".join(words)[:100]


def try_baseline(workshop: Workshop) -> tuple[Tried, Dataset]:
    """Measure the model as it is; gives the examples too.

    Raises:
        InputError: if there is too little held-out text.
        LuthierError: if the model or the text cannot be made, or it cannot be measured.
    """
    material = workshop.material
    run = workshop.run(workshop.recipe(BASELINE, workshop.measures(compared=False)))
    tried = _measured(Tried(BASELINE, form=material.form), run, material.model, material)
    tried.mean_kl, tried.mean_kl_margin, tried.top1 = 0.0, 0.0, 1.0
    data = run.dataset(material.texts.id)
    examples = data.frame("test").height
    if examples < FEWEST_EXAMPLES or tried.tokens < FEWEST_TOKENS:
        raise InputError(
            f"too little held-out text: {material.texts.id!r} has {examples} examples in the split `test`, "
            f"{tried.tokens} tokens measured; at least {FEWEST_EXAMPLES} and {FEWEST_TOKENS} are needed",
            f"Hold out more (`split`), raise --examples, or name other text. {REMEDY_DATA}",
        )
    return tried, data


def try_route(route: Route, workshop: Workshop) -> Tried:
    """Go a route to its end; where that fails, the reason is what comes of it."""
    steps = route.steps(workshop.material)
    tried = Tried(route.label, steps, route.form)
    if route.reason:
        tried.error, tried.left_out = route.reason, True
        return tried
    recipe = workshop.recipe(route.label, [*steps, *workshop.measures(compared=True)])
    try:
        key = _next_key(recipe, workshop)
        if key in workshop.failures:
            tried.error = workshop.failures[key]
            return tried
        run = workshop.run(recipe)
    except LuthierError as error:
        tried.error = error.message
        # The same input would be refused again; a worker that was killed may live the next time.
        failed = _next_key_or_none(recipe, workshop) if error.exit_code == InputError.exit_code else None
        if failed:
            workshop.failures[failed] = error.message
        return tried
    exported = [step.id for step in run.steps if step.kind == "onnx"][-1]
    return _measured(tried, run, exported, workshop.material)


def _next_key(recipe: Recipe, workshop: Workshop) -> str:
    """The key of the first step that is not in the store; empty where all are."""
    planned = luthier.plan(recipe, home=workshop.home, plugins=workshop.plugins)
    return next((each.key or "" for each in planned if each.record is None), "")


def _next_key_or_none(recipe: Recipe, workshop: Workshop) -> str | None:
    try:
        return _next_key(recipe, workshop)
    except LuthierError:
        return None  # It cannot even be planned, which costs nothing to find out again.


def _measured(tried: Tried, run: Run, step: str, material: Material) -> Tried:
    """Enter what a run measured of the model that a step gave."""
    model = run.model(step)
    tried.path, tried.model = str(model.path), model.hash
    tried.bytes = size_of(model.path)
    found = _records(run, "perplexity")
    tried.perplexity = found["perplexity"]["value"]
    tried.tokens = int(sum(found["perplexity"]["weights"] or ()))
    if any(each.id == "parity" for each in run.steps):
        found = _records(run, "parity")
        tried.mean_kl, tried.top1 = found["mean_kl"]["value"], found["top1_agreement"]["value"]
        tried.mean_kl_margin = margin(found["mean_kl"]["per_example"], found["mean_kl"]["weights"])
    for task in material.texts.tasks:
        metrics = run.step(task.id).metrics
        if task.metric in metrics:
            tried.task[task.metric] = metrics[task.metric]
    return tried


def _records(run: Run, step: str) -> dict[str, Mapping[str, Any]]:
    report = run.report(step)
    assert report is not None  # The run is done.
    return {record["name"]: record for record in report.metric_records()}


def size_of(directory: Path) -> int:
    """Bytes of all files below a directory."""
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())


def margin(values: Sequence[float], weights: Sequence[float]) -> float:
    """Half of the 95% interval of a weighted mean over examples, by the normal approximation."""
    total = math.fsum(weights)
    mean = math.fsum(value * weight for value, weight in zip(values, weights, strict=True)) / total
    spread = math.fsum((weight * (value - mean)) ** 2 for value, weight in zip(values, weights, strict=True))
    return NORMAL_95 * math.sqrt(spread) / total
