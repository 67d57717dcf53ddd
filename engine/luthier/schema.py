"""What the signatures and docstrings of the installed components say: JSON Schema, help, example steps."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from luthier.components import Component
from luthier.core_stages import NAMED_INPUTS, REFERENCE, SUBJECTS, Stage
from luthier.nodes import dump_scalar
from luthier.schema_walk import branches

if TYPE_CHECKING:
    from luthier.plugins import Registry

_ENTRY = re.compile(r"(\*{0,2}\w+(?:\s*,\s*\w+)*)\s*(?:\([^)]*\))?:\s*(.*)")
_BOUND = {
    "anyOf": [{"type": "number"}, {"type": "string"}],
    "description": "A number; SUBJECT ± number: `base + 0.10`; or SUBJECT.METRIC ± number: `candidate.lead_rougeL`.",
}


def parameter_help(component: Component) -> dict[str, str]:
    """The description of each parameter, from the `Args` section of the docstring; inputs among them."""
    lines = iter(component.doc.splitlines())
    if not any(line.strip() in ("Args:", "Arguments:") and not line.startswith(" ") for line in lines):
        return {}
    found: dict[str, list[str]] = {}
    names: list[str] = []
    indent = 0
    for line in lines:
        if line.strip() and not line.startswith(" "):
            break  # the next section
        depth = len(line) - len(line.lstrip())
        indent = indent or depth
        entry = _ENTRY.fullmatch(line.strip()) if depth == indent else None
        if entry:
            names = [name.strip(" *") for name in entry[1].split(",")]
            found |= {name: [entry[2]] for name in names}
        elif line.strip():
            for name in names:
                found[name].append(line.strip())
    return {name: " ".join(part for part in parts if part) for name, parts in found.items()}


def component_schema(component: Component) -> dict[str, Any]:
    """The JSON Schema of a component's configuration, with descriptions; `$defs` hold nested types.

    Raises:
        PluginError: if an annotation cannot be evaluated.
    """
    schema = component.model.model_json_schema(ref_template=f"#/$defs/{_key(component)}/$defs/{{model}}")
    help_texts = parameter_help(component)
    for name, prop in schema.get("properties", {}).items():
        if help_texts.get(name):
            prop["description"] = help_texts[name]
    untitled: dict[str, Any] = _without_titles(schema)
    return untitled


def recipe_schema(registry: Registry) -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of recipes for the installed plugins, for editors.

    A step's schema follows from its component, so an editor completes and explains its keys.

    Raises:
        PluginError: if a component's annotation cannot be evaluated.
    """
    components = [component for component in registry.components if component.stage.name]
    choices = {stage.key: _choices(registry.of_stage(stage.key)) for stage in registry.stages if stage.key}
    definitions = {_key(component): _step_schema(component, choices) for component in components}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Luthier recipe",
        "type": "object",
        "required": ["luthier", "steps"],
        "additionalProperties": False,
        "properties": {
            "luthier": {"const": 1, "description": "The version of the recipe's format."},
            "name": {"type": "string", "minLength": 1, "description": "By default the file's name."},
            "seed": {"type": "integer", "minimum": 0, "maximum": 2**32 - 1, "default": 0},
            "steps": {"type": "array", "minItems": 1, "items": {"$ref": "#/$defs/step"}},
        },
        "$defs": {
            "step": _any_step(components, registry),
            "reference": {"type": "string", "pattern": r"\$\{", "description": "${env:NAME} or ${recipe_dir}"},
            **definitions,
        },
    }


def _any_step(components: Sequence[Component], registry: Registry) -> dict[str, Any]:
    choices = [
        {
            "if": {"required": [component.stage.name], "properties": {component.stage.name: {"const": component.name}}},
            "then": {"$ref": f"#/$defs/{_key(component)}"},
        }
        for component in components
    ]
    schema = {"type": "object", "anyOf": [_stage_schema(stage, registry) for stage in registry.stages if stage.name]}
    return {**schema, "allOf": choices} if choices else schema


def _key(component: Component) -> str:
    return f"{component.stage.label}.{component.name}"


def _stage_schema(stage: Stage, registry: Registry) -> dict[str, Any]:
    names = [component.name for component in registry.of_stage(stage.name)]
    return {"required": [stage.name], "properties": {stage.name: {"enum": names, "description": stage.title}}}


def _choices(components: Sequence[Component]) -> list[dict[str, Any]]:
    """What a reserved key that names a component may have."""
    return [{"enum": [component.name for component in components]}, *map(_named_schema, components)]


def _named_schema(component: Component) -> dict[str, Any]:
    """A component in a reserved key, with its parameters: `{name: NAME, PARAMETER: VALUE}`."""
    schema = component_schema(component)
    return {
        "type": "object",
        "description": component.summary,
        "properties": {"name": {"const": component.name}, **schema.get("properties", {})},
        "required": ["name", *schema.get("required", [])],
        "additionalProperties": False,
        "$defs": schema.get("$defs", {}),
    }


def _step_schema(component: Component, choices: Mapping[str, list[dict[str, Any]]]) -> dict[str, Any]:
    schema = component_schema(component)
    reserved: dict[str, Any] = {
        component.stage.name: {"const": component.name, "description": component.summary},
        "id": {"type": "string", "description": "Its name within the recipe; by default the component's."},
        "from": {
            "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}],
            "description": "The steps whose results it takes; by default the newest of each kind.",
        },
    }
    named = [name for name in NAMED_INPUTS if name in component.inputs]
    described = parameter_help(component)
    for name in named:
        help_text = described.get(name, f"The {name}.")
        reserved[name] = {"type": "string", "description": f"The step that gives it: {help_text}"}
    if component.stage.gives == "report":
        rules = {"at_least": _BOUND, "at_most": _BOUND, "confidence": {"type": "number"}}
        bound = {"type": "object", "additionalProperties": False, "properties": rules}
        reserved["gate"] = {
            "type": "object",
            "description": "Bounds by metric; a refused one ends the run with exit code 4.",
            "additionalProperties": {"anyOf": [bound, {"type": "array", "items": bound}]},
        }
    if "subject" in component.inputs:
        reserved["runtime"] = {"anyOf": choices["runtime"], "description": "What loads the models that it measures."}
        reserved["subjects"] = {
            "type": "array",
            "items": {"enum": list(SUBJECTS)},
            "description": "What it measures; by default candidate, base, the model before export, and champion.",
        }
        reserved[REFERENCE] = {
            "type": "string",
            "description": "The step that gives the model to compare with; by default the one before export.",
        }
    if component.declared.processes:
        reserved["executor"] = {"anyOf": choices["executor"], "description": "Where its processes run."}
    search = component.declared.search
    searched = set(schema.get("properties", {})) - set(search.budgets) if search else set()
    configuration = {
        name: _or_reference(_or_list(prop) if name in searched else prop)
        for name, prop in schema.get("properties", {}).items()
    }
    return {
        "type": "object",
        "description": component.summary,
        "properties": {**reserved, **configuration},
        "required": [component.stage.name, *named, *schema.get("required", [])],
        "additionalProperties": False,
        "$defs": schema.get("$defs", {}),
    }


def _or_list(schema: dict[str, Any]) -> dict[str, Any]:
    """A list of values may stand for one value, to choose the best of them."""
    outside, inside = _apart(schema)
    return {**outside, "anyOf": [inside, {"type": "array", "items": inside, "minItems": 1, "uniqueItems": True}]}


def _apart(schema: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a schema says about a value for people, and what the value must be."""
    outside = {key: value for key, value in schema.items() if key in ("description", "default")}
    return outside, {key: value for key, value in schema.items() if key not in outside}


def _or_reference(schema: dict[str, Any]) -> dict[str, Any]:
    """A plain `${env:NAME}` may stand for a value of any type."""
    if schema.get("type") == "string" and "enum" not in schema:
        return schema
    outside, inside = _apart(schema)
    return {**outside, "anyOf": [inside, {"$ref": "#/$defs/reference"}]} if inside else schema


def _without_titles(schema: Any) -> Any:
    """Without the titles that pydantic makes up from names; a property of that name is not one."""
    if isinstance(schema, list):
        return [_without_titles(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: {name: _without_titles(inner) for name, inner in value.items()}
        if key in ("properties", "$defs")
        else value
        if key in ("default", "const", "enum", "examples")
        else _without_titles(value)
        for key, value in schema.items()
        if key != "title"
    }


def example_step(component: Component) -> str:
    """A step of a recipe: what is required with a placeholder, the rest as comments with its default.

    A runtime or an executor, which is no step of its own, is shown in a step that has one.

    Raises:
        PluginError: if an annotation cannot be evaluated.
    """
    if not component.stage.name:
        return _example_of_key(component)
    schema = component.model.model_json_schema()
    lines = [f"- {component.stage.name}: {component.name}"]
    lines += [f"  {name}: {dump_scalar(_placeholder({}, {}))}" for name in NAMED_INPUTS if name in component.inputs]
    for name, prop in schema.get("properties", {}).items():
        if name in schema.get("required", ()):
            lines.append(f"  {name}: {dump_scalar(_placeholder(schema, prop))}")
        else:
            lines.append(f"  # {name}: {dump_scalar(prop.get('default'))}")
    return "\n".join(lines) + "\n"


def _example_of_key(component: Component) -> str:
    step = {"runtime": "- validate: perplexity", "executor": "- tune: lora\n  processes: 2"}[component.stage.key]
    properties = component.model.model_json_schema().get("properties", {})
    lines = [f"{step}\n  {component.stage.key}: {component.name}\n"]
    if properties:
        shown = ", ".join(f"{name}: {dump_scalar(prop.get('default'))}" for name, prop in properties.items())
        lines.append(f"  # or with its parameters: {{name: {component.name}, {shown}}}\n")
    return "".join(lines)


def _placeholder(root: Mapping[str, Any], schema: Mapping[str, Any]) -> Any:
    """A value of the type that a required parameter has, as plausible as its schema allows."""
    branch = next((each for each in branches(root, schema) if each.get("type") != "null"), {})
    if "enum" in branch or "const" in branch:
        return branch.get("const", branch.get("enum", [""])[0])
    match branch.get("type"):
        case "integer" | "number":
            return branch.get("minimum", branch.get("maximum", 1))
        case "boolean":
            return True
        case "array":
            return [_placeholder(root, branch["items"])] if isinstance(branch.get("items"), dict) else []
        case "object":
            required = branch.get("required", ())
            return {name: _placeholder(root, branch["properties"][name]) for name in required}
    return "…"
