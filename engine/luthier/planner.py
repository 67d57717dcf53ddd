"""A recipe and the installed plugins become a plan: kinds and forms are checked, and what can be fused is."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from luthier.artifacts import DATASET_FORMS, Kind
from luthier.components import plain_value
from luthier.core_stages import NAMED_INPUTS, Stage
from luthier.errors import InputError, LuthierError
from luthier.locations import check_local
from luthier.nodes import RecipeError
from luthier.plans import Force, Node, Plan, Task
from luthier.plugins import Registry
from luthier.recipe import RecipeSpec
from luthier.stepinputs import check_together, find_inputs
from luthier.steps import StepSpec
from luthier.subjects import add_validator, check_bounds, check_extra
from luthier.substitution import resolve_name
from luthier.suggest import did_you_mean
from luthier.walk import Walk

_TASKS: Mapping[Kind, Task] = {"dataset": "dataset", "report": "validate"}
"""What a worker is asked for by the kind that it is to make; the other kinds are directories."""


def make_plan(
    recipe: RecipeSpec,
    registry: Registry,
    *,
    until: str | None = None,
    force: Force = Force(),
    champion: Node | InputError | None = None,
) -> Plan:
    """Check the kinds and forms of the whole recipe, and fuse what can be fused.

    Args:
        recipe: what was read.
        registry: the plugins.
        until: the step to stop after.
        force: what to do again.
        champion: stands for the champion of the recipe's name, or is the error of a damaged one.

    Raises:
        RecipeError: with everything that is wrong, each at its place.
        InputError: if `until` or `force` name no step.
    """
    if recipe.problems:
        until, force = None, Force()  # What they name may be what could not be read.
    until = _step_named(recipe, until) if until else None
    start = _step_named(recipe, force.start) if force.start else None
    _check_order(recipe, start, until)
    force = Force(frozenset(_step_named(recipe, name) for name in sorted(force.steps)), start)
    walk = Walk(recipe, registry, champion)
    builder = _Builder(walk, recipe, boundaries=force.mentioned | ({until} if until else set()))
    read = iter(recipe.steps)
    for place in range(len(recipe.steps) + len(recipe.unread)):
        if place in recipe.unread:
            builder.add_unread(recipe.unread[place])
            continue
        step = next(read)
        builder.add(step)
        if step.id == until:
            break
    if walk.problems:
        raise RecipeError(walk.problems)
    return Plan(recipe, tuple(walk.nodes), registry, force, champion=champion if isinstance(champion, Node) else None)


def _step_named(recipe: RecipeSpec, name: str) -> str:
    """The id of the step that an option names, by its id or as the only one of its stage."""
    found, wrong = resolve_name(name, [(step.id, step.stage.name) for step in recipe.steps])
    if wrong:
        ids = [step.id for step in recipe.steps]
        hint = did_you_mean(name, ids)
        raise InputError(
            f"{recipe.name}: {wrong}", f"{hint[:1].upper()}{hint[1:]}" if hint else f"Its steps: {', '.join(ids)}."
        )
    return found


def _check_order(recipe: RecipeSpec, start: str | None, until: str | None) -> None:
    ids = [step.id for step in recipe.steps]
    if start and until and ids.index(until) < ids.index(start):
        raise InputError(
            f"{recipe.name}: --until {until} stops before --from {start}, so nothing would be done again",
            "Name a later step for --until, or an earlier one for --from.",
        )


class _Builder:
    """Makes nodes of the steps, one after the other."""

    def __init__(self, walk: Walk, recipe: RecipeSpec, boundaries: Collection[str]) -> None:
        self._walk = walk
        self._unfusable = {name for step in recipe.steps for name in step.source} | set(boundaries)

    def add(self, step: StepSpec) -> None:
        self._check_locations(step)
        check_extra(self._walk, step, step.component)
        if "subject" in step.component.inputs:
            add_validator(self._walk, step)
            return
        inputs = find_inputs(self._walk, step)
        check_together(self._walk, step, inputs)
        form = self._form(step, inputs)
        if "frame" in step.component.inputs:
            self._add_frame(step, inputs, form)
            return
        kind = step.component.kind
        assert kind is not None
        task = _TASKS.get(kind, "directory")
        traits, environment = self._traits(step, inputs), self._walk.environment(step)
        self._walk.append(Node((step,), task, kind, form, inputs, traits, environment=environment))
        if kind == "report":
            check_bounds(self._walk, step, ["candidate"])

    def add_unread(self, stage: Stage | None) -> None:
        """Let what follows find what a step that could not be read would have given."""
        if stage is None or stage.gives == "same":
            self._walk.unknown = True
        elif stage.gives not in (None, "report"):
            newest = self._walk.newest
            made_of = {name: newest[name] for name in stage.inputs if name in ("model", "onnx") and name in newest}
            self._walk.append(Node((), "directory", stage.gives, "", made_of))

    def _add_frame(self, step: StepSpec, inputs: dict[str, Node], form: str) -> None:
        before = inputs.get("data")
        environment = self._walk.environment(step)
        fusable = before is not None and before.task == "shards" and before is self._walk.nodes[-1]
        fusable = fusable and before is not None and before.environment == environment
        if fusable and before and before.step.id not in self._unfusable and not step.source:
            # The node grows by this component; nothing else refers to the shorter one.
            self._walk.nodes.pop()
            parts, inputs = (*before.parts, step), dict(before.inputs)
        else:
            parts = (step,)
        self._walk.append(Node(parts, "shards", "dataset", form, inputs, environment=environment))

    def _traits(self, step: StepSpec, inputs: Mapping[str, Node]) -> dict[str, Any]:
        """What is known of a step's result besides its form: of one that is searched, what all candidates give."""
        kept = self._same_kind(step, inputs)
        told = [step.component.traits(configuration) for configuration in step.configurations]
        own = {name: value for name, value in told[0].items() if all(each.get(name) == value for each in told)}
        return {**(kept.traits if kept else {}), **own}

    def _same_kind(self, step: StepSpec, inputs: Mapping[str, Node]) -> Node | None:
        """The input that a step gives a changed one of."""
        taken = (node for name, node in inputs.items() if name not in NAMED_INPUTS)
        return next((node for node in taken if node.kind == step.component.kind), None)

    def _form(self, step: StepSpec, inputs: Mapping[str, Node]) -> str:
        given = [node.form for node in inputs.values()]
        forms = {step.component.form(config, given) for config in step.configurations}
        if len(forms) > 1:
            self._walk.refuse(step, f"{step.component} would give several forms: {', '.join(sorted(map(str, forms)))}")
        declared = step.component.form(step.config, given)
        if declared is None and step.stage.name == "format":
            self._walk.refuse(
                step, f"{step.component} does not say which form it gives", '`@luthier.component(gives="…")`'
            )
        if declared and step.stage.gives == "dataset" and declared not in DATASET_FORMS:
            self._walk.refuse(
                step, f"{step.component} gives the unknown form {declared!r}", f"Forms: {', '.join(DATASET_FORMS)}."
            )
        if declared:
            return declared
        if step.stage.gives == "report":
            return "report"
        if step.stage.gives == "dataset" and not {"frame", "data"} & set(step.component.inputs):
            return "documents"
        # What takes its own kind keeps the form.
        same = self._same_kind(step, inputs)
        if same:
            return same.form
        # Made of what a step gives that could not be read, it may be of any form.
        return "" if "" in given or self._walk.unknown else step.component.name

    def _check_locations(self, step: StepSpec) -> None:
        """Find every path that is not there while planning, not when its step's turn comes."""
        values = [each for config in step.configurations for each in step.component.configure(config).items()]
        for name, value in values:
            try:
                plain_value(value, check_local)
            except LuthierError as error:
                self._walk.refuse_key(step, name, error.message, error.remedy)
