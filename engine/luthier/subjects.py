"""What a validator measures: its subjects, the runtimes that load them, the bounds that can be judged by them."""

from __future__ import annotations

from collections.abc import Collection

from luthier import environments
from luthier.components import Component
from luthier.core_stages import CHAMPION, REFERENCE, SUBJECTS
from luthier.errors import InputError
from luthier.formatting import with_article
from luthier.plans import Node, Subject, bounds
from luthier.stepinputs import check_together, find_inputs
from luthier.steps import ComponentSpec, StepSpec
from luthier.suggest import did_you_mean
from luthier.walk import Walk


def add_validator(walk: Walk, step: StepSpec) -> None:
    """Add a node for each subject that a step measures; what does not fit is noted as a problem."""
    inputs = find_inputs(walk, step)
    named = [walk.by_id[name] for name in step.source if name in walk.by_id]
    given = next((node for node in named if node.kind in ("model", "onnx")), None)
    candidate = given or walk.newest.get("candidate")
    if candidate is None:
        walk.refuse_without(step, "model")
        return
    subjects: dict[Subject, Node] = {"candidate": candidate}
    base, reference = _compared_with(candidate)
    if REFERENCE in step.named:
        reference = _named_reference(walk, step, candidate)
        if reference is None:
            return
    if REFERENCE in step.component.inputs:
        if reference is None:
            if not walk.unknown:
                walk.refuse(
                    step,
                    f"{step.component} compares with the model before export, but its model was not exported",
                    "Put an `export` or `quantize` step before it, or name what to compare with: `reference: STEP`.",
                )
            return
        inputs[REFERENCE] = reference
    else:
        others: dict[Subject, Node | None] = {"base": base, REFERENCE: reference}
        asked = {bound.subject for bound in bounds(step)}
        if isinstance(walk.champion, InputError):
            _refuse_damaged(walk, step, walk.champion)
        else:
            others["champion"] = walk.champion
        # Without a word of it in the recipe, only what can be loaded is compared with: an encoder alone cannot.
        subjects |= {
            name: node
            for name, node in others.items()
            if node and node is not candidate and (name in asked or _is_compared(walk, step, name, node))
        }
    # As long as there is no champion, bounds that name it are skipped.
    check_bounds(walk, step, subjects, later=() if REFERENCE in step.component.inputs else (CHAMPION,))
    for subject, node in subjects.items():
        problems = len(walk.problems)
        runtimes = {
            name: _runtime(walk, step, found)
            for name, found in (("subject", node), (REFERENCE, inputs.get(REFERENCE)))
            if found
        }
        taken = {**inputs, "subject": node}
        check_together(walk, step, taken)
        environment = walk.environment(step)
        if subject == CHAMPION and not _is_asked(step) and len(walk.problems) > problems:
            del walk.problems[problems:]
            continue  # What nobody asked to compare with must not stop a recipe.
        walk.nodes.append(Node((step,), "validate", "report", "report", taken, {}, runtimes, subject, environment))
    walk.by_id.setdefault(step.id, walk.nodes[-1])


def _compared_with(candidate: Node) -> tuple[Node | None, Node | None]:
    """The base and the reference of a model, both of its own branch of the recipe.

    The base is what it was made of in the end, the reference what the first step was given that exports a model or may
    lose some of it.
    """
    base = reference = None
    for node in candidate.lineage():
        if node.kind == "model":
            base = node
        if node.lossy:
            reference = node.inputs.get("model") or reference
    return base, reference


def _named_reference(walk: Walk, step: StepSpec, candidate: Node) -> Node | None:
    """The model that a recipe names for a validator to compare with; None, with the problem noted, if it is none."""
    source = step.named[REFERENCE]
    node = walk.by_id.get(source)
    if node is None:
        return None  # The step could not be read, which has been told.
    if node.kind not in ("model", "onnx"):
        walk.refuse_key(step, REFERENCE, f"{source!r} gives {with_article(node.kind)}, not a model")
        return None
    if node is candidate:
        walk.refuse_key(step, REFERENCE, f"{source!r} gives the model that is measured", "Name another.")
        return None
    return node


def check_bounds(walk: Walk, step: StepSpec, subjects: Collection[str], later: Collection[str] = ()) -> None:
    """Refuse a bound that could never be judged, before hours of work; `later` are subjects that need not be there."""
    recorded = step.component.metrics(step.config)
    for bound in bounds(step):
        if bound.subject is not None and bound.subject not in (*subjects, *later):
            walk.refuse(
                step,
                f"its gate on {bound.metric} compares with {bound.subject}, which {step.component} is not run on here",
                f"It is run on: {', '.join(subjects)}. Give the bound as a number.",
            )
        for name in dict.fromkeys(filter(None, (bound.metric, bound.other))):
            if recorded is not None and name not in recorded:
                walk.refuse(
                    step,
                    f"its gate asks for {name!r}, which {step.component} does not measure as it is configured",
                    did_you_mean(name, recorded) or f"It measures: {', '.join(recorded)}.",
                )


def check_extra(walk: Walk, step: StepSpec, component: Component) -> None:
    """Refuse a component whose extra is not installed."""
    # Into an environment of its own nobody has looked yet.
    if not component.declared.extra or walk.environment(step):
        return
    try:
        component.require_extra()
    except InputError as error:
        walk.refuse(step, error.message, error.remedy)


def _is_asked(step: StepSpec) -> bool:
    """Whether a recipe says itself that a step is to measure the champion."""
    listed = step.subjects != SUBJECTS and CHAMPION in step.subjects
    return listed or any(bound.subject == CHAMPION for bound in bounds(step))


def _refuse_damaged(walk: Walk, step: StepSpec, error: InputError) -> None:
    """Refuse to compare with a champion that is damaged: to skip the bound would let any model pass."""
    if _is_asked(step):
        remedy = f"{error.remedy} --until the step before {step.id}, which compares with it"
        walk.refuse(step, error.message, remedy)


def _is_compared(walk: Walk, step: StepSpec, name: Subject, node: Node) -> bool:
    """Whether a validator measures a subject that no gate names: as the recipe says, or what can be loaded."""
    if step.subjects != SUBJECTS:
        return name in step.subjects
    runtimes = [each for each in walk.registry.of_stage("runtime") if node.kind in each.inputs]
    return not runtimes or any(each.accepts(node.kind, node.form) for each in runtimes)


def _runtime(walk: Walk, step: StepSpec, node: Node) -> ComponentSpec:
    chosen = step.runtime
    try:
        if chosen is None or not _loads(walk.registry.runtime(chosen.name), node):
            component = walk.registry.default_runtime(node.kind, node.form)
            chosen = ComponentSpec(component.name, component.canonical({}))
    except InputError as error:
        walk.refuse(step, error.message, error.remedy)
        return ComponentSpec("")
    _check_runtime(walk, step, walk.registry.runtime(chosen.name), node)
    return chosen


def _loads(runtime: Component, node: Node) -> bool:
    """Whether the runtime that a recipe names is for a node; the champion may be of a form that it is not for."""
    return node.kind in runtime.inputs and (not node.given or runtime.accepts(node.kind, node.form))


def _check_runtime(walk: Walk, step: StepSpec, runtime: Component, node: Node) -> None:
    check_extra(walk, step, runtime)
    if not runtime.accepts(node.kind, node.form):
        forms = " or ".join(sorted(runtime.declared.needs[node.kind]))
        walk.refuse(step, f"the runtime {runtime.name} loads {forms}; {node.id!r} gives {node.form}")
    needed = runtime.distribution
    if environments.declares(needed) and walk.environment(step) != needed:
        where = f"in the environment of {needed}, and {step.component} does not"
        remedy = "Name another with `runtime:`: a model is loaded where it is measured."
        walk.refuse(step, f"the runtime {runtime.name} runs {where}", remedy)
