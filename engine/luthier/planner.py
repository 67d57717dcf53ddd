"""A recipe and the installed plugins become a plan: kinds and forms are checked, and what can be fused is."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from luthier import distributions, environments
from luthier.artifacts import DATASET_FORMS, Kind
from luthier.components import Component, plain_value
from luthier.core_stages import NAMED_INPUTS, SUBJECTS, Stage
from luthier.errors import InputError, LuthierError
from luthier.locations import check_local
from luthier.nodes import RecipeError, RecipeProblem
from luthier.plans import Force, Node, Plan, Subject, Task, bounds
from luthier.plugins import Registry
from luthier.recipe import RecipeSpec
from luthier.steps import ComponentSpec, StepSpec
from luthier.substitution import resolve_name
from luthier.suggest import did_you_mean

_KINDS: Mapping[str, Kind] = {"frame": "dataset", "data": "dataset", "model": "model", "onnx": "onnx"}
"""The kind of which each input is the newest artifact; a validator's `subject` is a model of either kind."""
_TASKS: Mapping[Kind, Task] = {"dataset": "dataset", "report": "validate"}
"""What a worker is asked for by the kind that it is to make; the other kinds are directories."""


def make_plan(recipe: RecipeSpec, registry: Registry, *, until: str | None = None, force: Force = Force()) -> Plan:
    """Check the kinds and forms of the whole recipe, and fuse what can be fused.

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
    builder = _Builder(recipe, registry, boundaries=force.mentioned | ({until} if until else set()))
    read = iter(recipe.steps)
    for place in range(len(recipe.steps) + len(recipe.unread)):
        if place in recipe.unread:
            builder.add_unread(recipe.unread[place])
            continue
        step = next(read)
        builder.add(step)
        if step.id == until:
            break
    if builder.problems:
        raise RecipeError(builder.problems)
    return Plan(recipe, tuple(builder.nodes), registry, force)


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
    """Walks the steps and keeps the newest artifact of each kind."""

    def __init__(self, recipe: RecipeSpec, registry: Registry, boundaries: Collection[str]) -> None:
        self.nodes: list[Node] = []
        self.problems = list(recipe.problems)
        self._unknown = False
        self._registry = registry
        self._newest: dict[str, Node] = {}
        self._base: Node | None = None
        self._reference: Node | None = None
        self._by_id: dict[str, Node] = {}
        self._unfusable = {name for step in recipe.steps for name in step.source} | set(boundaries)

    def add(self, step: StepSpec) -> None:
        self._check_locations(step)
        self._check_extra(step, step.component)
        if "subject" in step.component.inputs:
            self._add_validator(step)
            return
        inputs = self._inputs(step)
        self._check_inputs(step, inputs)
        form = self._form(step, inputs)
        if "frame" in step.component.inputs:
            self._add_frame(step, inputs, form)
            return
        kind = step.component.kind
        assert kind is not None
        task = _TASKS.get(kind, "directory")
        traits = self._traits(step, inputs)
        self._append(Node((step,), task, kind, form, inputs, traits, environment=self._environment(step)))
        if kind == "report":
            self._check_bounds(step, ["candidate"])
        self._note_base(step.component.inputs)

    def add_unread(self, stage: Stage | None) -> None:
        """Let what follows find what a step that could not be read would have given."""
        if stage is None or stage.gives == "same":
            self._unknown = True
        elif stage.gives not in (None, "report"):
            self._append(Node((), "directory", stage.gives, ""))
            self._note_base(stage.inputs)

    def _note_base(self, inputs: Collection[str]) -> None:
        """A model that is made of no other is what later ones are compared with."""
        if self.nodes[-1].kind == "model" and "model" not in inputs:
            self._base, self._reference = self.nodes[-1], None

    def _append(self, node: Node) -> None:
        lossy = node.kind == "onnx" or any(step.stage.lossy for step in node.parts)
        if lossy and self._reference is None:
            self._reference = node.inputs.get("model") or self._newest.get("model")
        self.nodes.append(node)
        self._newest[node.kind] = node
        if node.kind in ("model", "onnx"):
            self._newest["candidate"] = node
        for step in node.parts:
            self._by_id[step.id] = node

    def _refuse(self, step: StepSpec, message: str, remedy: str = "") -> None:
        self.problems.append(RecipeProblem(step.position, step.id, message, remedy))

    def _refuse_key(self, step: StepSpec, key: str, message: str, remedy: str = "") -> None:
        place = step.positions.get(key, step.position)
        self.problems.append(RecipeProblem(place, f"{step.id}.{key}", message, remedy))

    def _refuse_without(self, step: StepSpec, kind: str) -> None:
        # A step of an unknown stage may have been meant to give it.
        if not self._unknown:
            makers = [f"`{stage.name}`" for stage in self._registry.stages if stage.gives == kind and stage.name]
            self._refuse(
                step,
                f"{step.component} needs a {kind}, but no earlier step gives one",
                f"Put a {' or '.join(makers)} step before it.",
            )

    def _add_frame(self, step: StepSpec, inputs: dict[str, Node], form: str) -> None:
        before = inputs.get("data")
        environment = self._environment(step)
        fusable = before is not None and before.task == "shards" and before is self.nodes[-1]
        fusable = fusable and before is not None and before.environment == environment
        if fusable and before and before.step.id not in self._unfusable and not step.source:
            # The node grows by this component; nothing else refers to the shorter one.
            self.nodes.pop()
            parts, inputs = (*before.parts, step), dict(before.inputs)
        else:
            parts = (step,)
        self._append(Node(parts, "shards", "dataset", form, inputs, environment=environment))

    def _environment(self, step: StepSpec) -> str:
        """The distribution in whose environment a step runs; empty for the main one."""
        component = step.component
        if step.environment == "main" or not (step.environment or environments.declares(component.distribution)):
            return ""
        if not distributions.is_distribution(component.distribution):
            self._refuse(step, f"{component} is of a local file, which has no environment of its own", "Package it.")
        return component.distribution

    def _inputs(self, step: StepSpec) -> dict[str, Node]:
        self._check_sources(step)
        given = {self._by_id[name].kind: self._by_id[name] for name in step.source if name in self._by_id}
        inputs: dict[str, Node] = {}
        for name in step.component.inputs:
            kind = _KINDS.get(name)
            if kind is None:
                continue
            node = given.get(kind) or self._newest.get(kind)
            if node is None:
                self._refuse_without(step, kind)
                continue
            inputs["data" if name == "frame" else name] = node
            self._check_form(step, name, node)
        inputs |= self._named_inputs(step)
        self._check_other(step, inputs.get("data"), inputs.get("other"))
        return inputs

    def _named_inputs(self, step: StepSpec) -> dict[str, Node]:
        """What a step takes of the steps that it names for it."""
        inputs: dict[str, Node] = {}
        for name, source in step.named.items():
            node, kind = self._by_id.get(source), NAMED_INPUTS[name]
            if node is None:
                continue  # The recipe has told why, or the step could not be read.
            if node.kind != kind:
                givers = [each.id for each in self.nodes if each.kind == kind]
                self._refuse_key(
                    step,
                    name,
                    f"the {name} of {step.component} is a {kind}, and {source!r} gives a {node.kind}",
                    f"Steps that give one: {', '.join(givers)}." if givers else "",
                )
                continue
            inputs[name] = node
            self._check_form(step, name, node)
        return inputs

    def _check_other(self, step: StepSpec, data: Node | None, other: Node | None) -> None:
        """Refuse a second dataset that is the first, or of another form."""
        if data is None or other is None:
            return
        if data is other:
            remedy = "Name the step of the first with `from:`, that of the second with `other:`."
            self._refuse_key(step, "other", f"{step.component} is given {data.step.id!r} twice", remedy)
        elif data.form and other.form and data.form != other.form:
            self._refuse_key(
                step,
                "other",
                f"{step.component} takes two datasets of one form; {data.step.id!r} gives {data.form}, "
                f"{other.step.id!r} gives {other.form}",
                "Bring both into one form with a `format` step each.",
            )

    def _check_sources(self, step: StepSpec) -> None:
        """Refuse a `from` that would change nothing: a step takes one artifact of each kind that it asks for."""
        taken = {_KINDS[name] for name in step.component.inputs if name in _KINDS}
        taken |= {"model", "onnx"} if "subject" in step.component.inputs else set()
        seen: set[str] = set()
        for name in step.source:
            node = self._by_id.get(name)
            if node is None:
                continue
            if node.kind not in taken:
                self._refuse(step, f"{step.component} takes no {node.kind}, which {name!r} gives", "Mend its `from`.")
            elif node.kind in seen:
                self._refuse(step, f"{step.component} takes one {node.kind}; `from` names several", "Name one.")
            seen.add(node.kind)

    def _check_form(self, step: StepSpec, name: str, node: Node) -> None:
        accepted = step.component.declared.needs.get(name, frozenset())
        if not accepted and step.stage.name in ("clean", "bias", "format"):
            accepted = frozenset({"documents"})
        if accepted and node.form and node.form not in accepted:
            hint = "Put a `format` step before it." if node.form == "documents" else self._others(step, name, node.form)
            key = name if name in NAMED_INPUTS else "from"
            self._refuse(
                step,
                f"{step.component} takes {name} of the form {' or '.join(sorted(accepted))}; "
                f"{node.step.id!r} gives {node.form}",
                hint or f"Move it, or name another step with `{key}:`, to give it {' or '.join(sorted(accepted))}.",
            )

    def _others(self, step: StepSpec, name: str, form: str) -> str:
        """Which exporters take what this one does not; empty for steps of another stage, and where none does."""
        if step.stage.name != "export":
            return ""
        every = self._registry.of_stage("export")
        able = [f"`export: {each.name}`" for each in every if name in each.inputs and each.accepts(name, form)]
        return f"What takes {form}: {', '.join(able)}." if able else ""

    def _check_inputs(self, step: StepSpec, inputs: Mapping[str, Node]) -> None:
        """Refuse inputs that do not go together; where one is not known, or refused by itself, all are let through."""
        check = step.component.declared.check_inputs
        known = {
            name: node.known for name, node in inputs.items() if node.form and step.component.accepts(name, node.form)
        }
        if check is None or len(known) < len(set(step.component.inputs) - {"ctx"}):
            return
        for configuration in step.configurations:
            try:
                check(step.component.configure(configuration), **known)
            except InputError as error:
                self._refuse(step, f"{step.component}: {error.message}", error.remedy)
                return

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
            self._refuse(step, f"{step.component} would give several forms: {', '.join(sorted(map(str, forms)))}")
        declared = step.component.form(step.config, given)
        if declared is None and step.stage.name == "format":
            self._refuse(step, f"{step.component} does not say which form it gives", '`@luthier.component(gives="…")`')
        if declared and step.stage.gives == "dataset" and declared not in DATASET_FORMS:
            self._refuse(
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
        return same.form if same else step.component.name

    def _add_validator(self, step: StepSpec) -> None:
        inputs = self._inputs(step)
        named = [self._by_id[name] for name in step.source if name in self._by_id]
        given = next((node for node in named if node.kind in ("model", "onnx")), None)
        candidate = given or self._newest.get("candidate")
        if candidate is None:
            self._refuse_without(step, "model")
            return
        subjects: dict[Subject, Node] = {"candidate": candidate}
        if "reference" in step.component.inputs:
            if self._reference is None:
                if not self._unknown:
                    self._refuse(
                        step,
                        f"{step.component} compares with the model before export, but nothing was exported",
                        "Put an `export` step before it, or a `quantize` step.",
                    )
                return
            inputs["reference"] = self._reference
        else:
            others: dict[Subject, Node | None] = {"base": self._base, "reference": self._reference}
            asked = {bound.subject for bound in bounds(step)}
            # Without a word of it in the recipe, only what can be loaded is compared with: an encoder alone cannot.
            subjects |= {
                name: node
                for name, node in others.items()
                if node and node is not candidate and (name in asked or self._is_compared(step, name, node))
            }
        self._check_bounds(step, subjects)
        for subject, node in subjects.items():
            runtimes = {
                name: self._runtime(step, found)
                for name, found in (("subject", node), ("reference", inputs.get("reference")))
                if found
            }
            taken = {**inputs, "subject": node}
            self._check_inputs(step, taken)
            environment = self._environment(step)
            self.nodes.append(Node((step,), "validate", "report", "report", taken, {}, runtimes, subject, environment))
        self._by_id.setdefault(step.id, self.nodes[-1])

    def _is_compared(self, step: StepSpec, name: Subject, node: Node) -> bool:
        """Whether a validator measures a subject that no gate names: as the recipe says, or what can be loaded."""
        if step.subjects != SUBJECTS:
            return name in step.subjects
        runtimes = [each for each in self._registry.of_stage("runtime") if node.kind in each.inputs]
        return not runtimes or any(each.accepts(node.kind, node.form) for each in runtimes)

    def _check_bounds(self, step: StepSpec, subjects: Collection[str]) -> None:
        """Refuse a bound that could never be judged, before hours of work."""
        recorded = step.component.metrics(step.config)
        for bound in bounds(step):
            if bound.subject is not None and bound.subject not in subjects:
                self._refuse(
                    step,
                    f"its gate on {bound.metric} compares with {bound.subject}, "
                    f"which {step.component} is not run on here",
                    f"It is run on: {', '.join(subjects)}. Give the bound as a number.",
                )
            for name in dict.fromkeys(filter(None, (bound.metric, bound.other))):
                if recorded is not None and name not in recorded:
                    self._refuse(
                        step,
                        f"its gate asks for {name!r}, which {step.component} does not measure as it is configured",
                        did_you_mean(name, recorded) or f"It measures: {', '.join(recorded)}.",
                    )

    def _check_locations(self, step: StepSpec) -> None:
        """Find every path that is not there while planning, not when its step's turn comes."""
        values = [each for config in step.configurations for each in step.component.configure(config).items()]
        for name, value in values:
            try:
                plain_value(value, check_local)
            except LuthierError as error:
                self._refuse_key(step, name, error.message, error.remedy)

    def _runtime(self, step: StepSpec, node: Node) -> ComponentSpec:
        chosen = step.runtime
        try:
            if chosen is None or node.kind not in self._registry.runtime(chosen.name).inputs:
                component = self._registry.default_runtime(node.kind, node.form)
                chosen = ComponentSpec(component.name, component.canonical({}))
        except InputError as error:
            self._refuse(step, error.message, error.remedy)
            return ComponentSpec("")
        self._check_runtime(step, self._registry.runtime(chosen.name), node)
        return chosen

    def _check_extra(self, step: StepSpec, component: Component) -> None:
        # Into an environment of its own nobody has looked yet.
        if not component.declared.extra or self._environment(step):
            return
        try:
            environments.require_extra(component)
        except InputError as error:
            self._refuse(step, error.message, error.remedy)

    def _check_runtime(self, step: StepSpec, runtime: Component, node: Node) -> None:
        self._check_extra(step, runtime)
        if not runtime.accepts(node.kind, node.form):
            forms = " or ".join(sorted(runtime.declared.needs[node.kind]))
            self._refuse(step, f"the runtime {runtime.name} loads {forms}; {node.step.id!r} gives {node.form}")
        needed = runtime.distribution
        if environments.declares(needed) and self._environment(step) != needed:
            where = f"in the environment of {needed}, and {step.component} does not"
            remedy = "Name another with `runtime:`: a model is loaded where it is measured."
            self._refuse(step, f"the runtime {runtime.name} runs {where}", remedy)
