"""Write the reference pages from the code; with --check, fail where a page is not what the code says.

The pages in docs/reference are of Luthier's own plugins. `--installed --output DIR` writes pages of all
plugins that are installed, with the stages that they add.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import api

from luthier import hookspecs, scaffold
from luthier.artifacts import DATASET_FORMS, SPLITS
from luthier.cli import _plugin_commands
from luthier.components import RESERVED_KEYS, Component
from luthier.core_stages import DEFAULT_RUNTIMES, NAMED_INPUTS, STAGES, Stage
from luthier.hookcheck import CORE_SPECIFICATIONS
from luthier.plugins import FIRST_PARTY, Registry, load_plugins
from luthier.schema import example_step, parameter_help

REFERENCE = Path(__file__).parent / "reference"
NOTE = "<!-- Made by `make docs` from the code: edit the docstrings instead. -->\n"


def hooks(registry: Registry) -> str:
    """The page of hooks: every specification with its docstring, and what each stage offers."""
    lines = [NOTE, "# Hooks\n", api.markdown(hookspecs), "\n## Registration hooks\n"]
    stages = {stage.hook: stage for stage in STAGES}
    lifecycle = [name for name in CORE_SPECIFICATIONS if name not in ("luthier_stages", *stages)]
    for name, function in CORE_SPECIFICATIONS.items():
        if name not in lifecycle:
            lines += _hook(name, function, stages.get(name))
    if registry.added_stages:
        lines.append("## Hooks of stages that plugins add\n")
    for added in registry.added_stages:
        lines += _hook(added.stage.hook, added.specification, added.stage, added.distribution)
    lines.append("## Lifecycle hooks\n")
    lines.append("[The interface](api.md) has the fields of every event and all that a `Run` tells.\n")
    for name in lifecycle:
        lines += _hook(name, CORE_SPECIFICATIONS[name], None)
    lines += ["## Commands\n", api.markdown(_plugin_commands) + "\n"]
    lines.append("## Dataset forms\n")
    lines += ["| form | columns |", "|---|---|"]
    lines += [
        f"| `{form}` | {', '.join(f'`{name}` {kind}' for name, kind in columns.items())} |"
        for form, columns in DATASET_FORMS.items()
    ]
    lines.append(f"\n`split` is {', '.join(f'`{name}`' for name in SPLITS[:-1])} or `{SPLITS[-1]}`; nothing else.")
    return "\n".join(lines) + "\n"


def _hook(name: str, function: Callable[..., Any], stage: Stage | None, distribution: str = "") -> list[str]:
    giver = f" ({distribution})" if distribution else ""
    lines = [f"### `{name}{api.signature(function)}`{giver}\n", f"{api.markdown(function)}\n"]
    if stage:
        lines.append(
            f"In recipes: {f'`{stage.name}`' if stage.name else f'the reserved key `{stage.key}`'}. "
            f"A component may ask for: {stage.offer or 'nothing'}. It gives: {stage.given}.\n"
        )
    return lines


def components(registry: Registry) -> str:
    """The page of the components, with every parameter."""
    ours = all(component.distribution in FIRST_PARTY for component in registry.components)
    whose = "What our own plugins give." if ours else "What the installed plugins give."
    lines = [NOTE, "# Components\n", f"{whose} `luthier plugins show NAME` prints the same of any installed plugin.\n"]
    for stage in registry.stages:
        lines.append(f"## {stage.title}\n")
        for component in registry.components:
            if component.stage is not stage:
                continue
            lines += [
                f"### `{component.name}` ({component.distribution})\n",
                component.doc.partition("\nArgs:")[0].strip() + "\n",
            ]
            told = parameter_help(component)
            for parameter in component.parameters:
                default = "required" if parameter.default is parameter.empty else f"default `{parameter.default!r}`"
                help_text = told.get(parameter.name, "")
                lines.append(f"- `{parameter.name}`: `{parameter.annotation}`, {default}. {help_text}".rstrip())
            lines += _search(component)
            if stage.name:
                lines += ["", "```yaml", example_step(component).rstrip(), "```"]
            lines.append("")
    return "\n".join(lines) + "\n"


def _search(component: Component) -> list[str]:
    """By what a component is searched, if it is."""
    search = component.declared.search
    if search is None:
        return []
    budgets = ", ".join(f"`{name}`" for name in search.budgets)
    shared = f" The budget, which they share: {budgets}." if budgets else ""
    return ["", f"Lists of values are searched, by `{search.metric}` ({search.better} is better).{shared}"]


def recipe(registry: Registry) -> str:
    """The page of the recipe format: stages and reserved keys, as the code has them."""
    lines = [NOTE, "# Recipes: keys and stages\n", "| stage | a component may ask for | gives |", "|---|---|---|"]
    lines += [
        f"| `{stage.name}` | {stage.offer or 'nothing'} | {stage.gives} |" for stage in registry.stages if stage.name
    ]
    searched = [f"`{each}`" for each in registry.components if each.declared.search]
    lines += (
        ["", f"A parameter may have a list of values to choose from in: {', '.join(searched)}."] if searched else []
    )
    lines += ["", f"Reserved keys of a step: {', '.join(f'`{key}`' for key in RESERVED_KEYS)}.", ""]
    lines += [
        f"`{name}` names the step that gives a component its {name}, a {kind}: for components that ask for one, and "
        "there required. Every other input is the newest artifact of its kind, or what `from` names."
        for name, kind in NAMED_INPUTS.items()
    ]
    lines += [
        "`reference` names the step whose model a validator compares with; without it, that is what the first `export` "
        "or `quantize` step was given on the way to the model that is measured.",
        "",
    ]
    lines += [
        f"A {kind} is loaded by the runtime `{name}` unless the step says `runtime:`."
        for kind, name in DEFAULT_RUNTIMES.items()
    ]
    return "\n".join(lines) + "\n"


def stage_page(stage: Stage) -> Callable[[Registry], str]:
    """A page of one stage: what it promises, a whole plugin for it where there is a template, and its components."""

    def page(registry: Registry) -> str:
        ours = [each for each in registry.components if each.stage is stage]
        added = next((each for each in registry.added_stages if each.stage is stage), None)
        specification = added.specification if added else CORE_SPECIFICATIONS[stage.hook]
        lines = [NOTE, f"# {stage.title}\n"]
        lines += [f"A stage that {added.distribution} adds; its hook is `{stage.hook}`.\n"] if added else []
        lines.append(f"{api.markdown(specification)}\n")
        lines.append(f"It may ask for: {stage.offer or 'nothing'}. It gives: {stage.given}.\n")
        lines += _whole_plugin(stage) if scaffold.has_template(stage) else []
        lines.append("## Components\n" if added else "## Ours\n")
        lines += [f"- `{each.name}` ({each.distribution}): {each.summary}" for each in ours]
        return "\n".join(lines) + "\n"

    return page


def _whole_plugin(stage: Stage) -> list[str]:
    name = stage.label
    naming = scaffold.Naming.of(f"my-{name}")
    ((path, text),) = scaffold.single_file_plugin(naming, stage).items()
    command = f"luthier plugins new my-{name} --stage {name}"
    return [
        f"## A whole plugin\n\n`{command} --single-file` writes `{path}`:\n",
        "```python",
        text.rstrip(),
        "```\n",
        f"`{command}` writes a distribution, with its tests. To use it:\n",
        "```yaml",
        scaffold.example_steps(naming, stage),
        "```\n",
    ]


def first_party(registry: Registry) -> Registry:
    """The registry without the plugins that are installed here and not ours."""
    added = tuple(each for each in registry.added_stages if each.distribution in FIRST_PARTY)
    return replace(
        registry,
        components=tuple(each for each in registry.components if each.distribution in FIRST_PARTY),
        stages=(*STAGES, *(each.stage for each in added)),
        added_stages=added,
    )


def main() -> int:
    """Write or check every page; gives the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--check", action="store_true", help="write nothing; fail where a page is not what it should be"
    )
    parser.add_argument("--installed", action="store_true", help="of all plugins that are installed, not ours alone")
    parser.add_argument("--output", type=Path, default=REFERENCE, help="the directory of the pages")
    options = parser.parse_args()
    if options.installed and options.output == REFERENCE:
        parser.error("--installed needs --output: docs/reference is of our own plugins")
    registry = load_plugins()
    if not options.installed:
        missing = sorted(set(FIRST_PARTY) - {each.distribution for each in registry.components})
        if missing:
            # Without one of them its pages would be lost in silence.
            parser.error(f"not installed, or broken: {', '.join(missing)}; run `make install`")
        registry = first_party(registry)
    pages: dict[str, Callable[[Registry], str]] = {"hooks.md": hooks, "components.md": components, "recipe.md": recipe}
    pages["api.md"] = lambda registry: f"{NOTE}\n{api.page()}"
    pages |= {f"stages/{stage.label}.md": stage_page(stage) for stage in registry.stages}
    options.output.mkdir(parents=True, exist_ok=True)
    stale = []
    for name, make in pages.items():
        path, text = options.output / name, make(registry)
        if not options.check:
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
        elif not path.exists() or path.read_text(encoding="utf-8") != text:
            stale.append(str(path))
    if stale:
        print(f"not what the code says: {', '.join(stale)}; run `make docs`", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
