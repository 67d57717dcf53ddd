"""What a step takes of the steps before it, and whether that is of a form that its component works on."""

from __future__ import annotations

from collections.abc import Mapping

from luthier.artifacts import Kind
from luthier.core_stages import NAMED_INPUTS
from luthier.errors import InputError
from luthier.formatting import with_article
from luthier.plans import Node
from luthier.steps import StepSpec
from luthier.walk import Walk

_KINDS: Mapping[str, Kind] = {"frame": "dataset", "data": "dataset", "model": "model", "onnx": "onnx"}
"""The kind of which each input is the newest artifact; a validator's `subject` is a model of either kind."""


def find_inputs(walk: Walk, step: StepSpec) -> dict[str, Node]:
    """The nodes whose artifacts a step takes, by input; what does not fit is noted as a problem."""
    _check_sources(walk, step)
    given = {walk.by_id[name].kind: walk.by_id[name] for name in step.source if name in walk.by_id}
    inputs: dict[str, Node] = {}
    for name in step.component.inputs:
        kind = _KINDS.get(name)
        if kind is None:
            continue
        node = given.get(kind) or walk.newest.get(kind)
        if node is None:
            walk.refuse_without(step, kind)
            continue
        inputs["data" if name == "frame" else name] = node
        _check_form(walk, step, name, node)
    inputs |= _named_inputs(walk, step)
    _check_other(walk, step, inputs.get("data"), inputs.get("other"))
    return inputs


def check_together(walk: Walk, step: StepSpec, inputs: Mapping[str, Node]) -> None:
    """Refuse inputs that do not go together; where one is not known, or refused by itself, all are let through."""
    check = step.component.declared.check_inputs
    known = {name: node.known for name, node in inputs.items() if node.form and step.component.accepts(name, node.form)}
    if check is None or len(known) < len(set(step.component.inputs) - {"ctx"}):
        return
    for configuration in step.configurations:
        try:
            check(step.component.configure(configuration), **known)
        except InputError as error:
            walk.refuse(step, f"{step.component}: {error.message}", error.remedy)
            return


def _named_inputs(walk: Walk, step: StepSpec) -> dict[str, Node]:
    """What a step takes of the steps that it names for it."""
    inputs: dict[str, Node] = {}
    for name, kind in NAMED_INPUTS.items():
        node = walk.by_id.get(step.named.get(name, ""))
        if node is None:
            continue  # The recipe has told why, or the step could not be read.
        if node.kind != kind:
            givers = [each.id for each in walk.nodes if each.kind == kind]
            walk.refuse_key(
                step,
                name,
                f"the {name} of {step.component} is {with_article(kind)}, "
                f"and {step.named[name]!r} gives {with_article(node.kind)}",
                f"Steps that give one: {', '.join(givers)}." if givers else "",
            )
            continue
        inputs[name] = node
        _check_form(walk, step, name, node)
    return inputs


def _check_other(walk: Walk, step: StepSpec, data: Node | None, other: Node | None) -> None:
    """Refuse a second dataset that is the first, or of another form."""
    if data is None or other is None:
        return
    if data is other:
        remedy = "Name the step of the first with `from:`, that of the second with `other:`."
        walk.refuse_key(step, "other", f"{step.component} is given {data.step.id!r} twice", remedy)
    elif data.form and other.form and data.form != other.form:
        walk.refuse_key(
            step,
            "other",
            f"{step.component} takes two datasets of one form; {data.step.id!r} gives {data.form}, "
            f"{other.step.id!r} gives {other.form}",
            "Bring both into one form with a `format` step each.",
        )


def _check_sources(walk: Walk, step: StepSpec) -> None:
    """Refuse a `from` that would change nothing: a step takes one artifact of each kind that it asks for."""
    taken = {_KINDS[name] for name in step.component.inputs if name in _KINDS}
    taken |= {"model", "onnx"} if "subject" in step.component.inputs else set()
    seen: set[str] = set()
    for name in step.source:
        node = walk.by_id.get(name)
        if node is None:
            continue
        if node.kind not in taken:
            walk.refuse(step, f"{step.component} takes no {node.kind}, which {name!r} gives", "Mend its `from`.")
        elif node.kind in seen:
            walk.refuse(step, f"{step.component} takes one {node.kind}; `from` names several", "Name one.")
        seen.add(node.kind)


def _check_form(walk: Walk, step: StepSpec, name: str, node: Node) -> None:
    accepted = step.component.declared.needs.get(name, frozenset())
    if not accepted and step.stage.name in ("clean", "bias", "format"):
        accepted = frozenset({"documents"})
    # A step of an unknown stage may have been meant to give another.
    if accepted and node.form and node.form not in accepted and not walk.unknown:
        documents = node.form == "documents"
        hint = "Put a `format` step before it." if documents else _others(walk, step, name, node.form)
        key = name if name in NAMED_INPUTS else "from"
        walk.refuse(
            step,
            f"{step.component} takes {name} of the form {' or '.join(sorted(accepted))}; "
            f"{node.step.id!r} gives {node.form}",
            hint or f"Move it, or name another step with `{key}:`, to give it {' or '.join(sorted(accepted))}.",
        )


def _others(walk: Walk, step: StepSpec, name: str, form: str) -> str:
    """Which components of the stage take a model that this one does not; empty for data, and where none does."""
    if name not in ("model", "onnx"):
        return ""
    stage = step.stage.name
    every = walk.registry.of_stage(stage)
    able = [f"`{stage}: {each.name}`" for each in every if name in each.inputs and each.accepts(name, form)]
    return f"What takes {form}: {', '.join(able)}." if able else ""
