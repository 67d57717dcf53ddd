"""Write the reference pages from the code; with --check, fail where a page is not what the code says.

The pages in docs/reference are of Luthier's own plugins. `--installed --output DIR` writes pages of all
plugins that are installed, with the stages that they add.
"""

from __future__ import annotations

import argparse
import inspect
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from luthier import hookspecs, scaffold
from luthier.artifacts import DATASET_FORMS
from luthier.cli import _plugin_commands
from luthier.components import DEFAULT_RUNTIMES, RESERVED_KEYS, STAGES, Stage
from luthier.context import Context
from luthier.hookcheck import CORE_SPECIFICATIONS
from luthier.plugins import FIRST_PARTY, Registry, load_plugins
from luthier.schema import example_step, parameter_help

REFERENCE = Path(__file__).parent / "reference"
NOTE = "<!-- Made by `make docs` from the code: edit the docstrings instead. -->\n"


def hooks(registry: Registry) -> str:
    """The page of hooks: every specification with its docstring, and what each stage offers."""
    lines = [NOTE, "# Hooks\n", inspect.getdoc(hookspecs) or "", "\n## Registration hooks\n"]
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
    for name in lifecycle:
        lines += _hook(name, CORE_SPECIFICATIONS[name], None)
    lines += ["## Commands\n", (inspect.getdoc(_plugin_commands) or "") + "\n"]
    lines += ["## `Stage`\n", f"{_signature_of_stage()}\n", (inspect.getdoc(Stage) or "") + "\n"]
    lines += ["## `Context`\n", (inspect.getdoc(Context) or "") + "\n"]
    for name, member in vars(Context).items():
        if not name.startswith("_") and name not in ("save_metrics", "metrics", "quarantined", "quarantine_file"):
            lines += [
                f"### `ctx.{name}{inspect.signature(member)}`\n".replace("self, ", "").replace("'", ""),
                (inspect.getdoc(member) or "") + "\n",
            ]
    lines.append("## Dataset forms\n")
    lines += ["| form | columns |", "|---|---|"]
    lines += [
        f"| `{form}` | {', '.join(f'`{name}` {kind}' for name, kind in columns.items())} |"
        for form, columns in DATASET_FORMS.items()
    ]
    return "\n".join(lines) + "\n"


def _signature_of_stage() -> str:
    return f"`Stage{inspect.signature(Stage)}`".replace("'", "").replace(" -> None", "")


def _hook(name: str, function: Callable[..., Any], stage: Stage | None, distribution: str = "") -> list[str]:
    giver = f" ({distribution})" if distribution else ""
    lines = [f"### `{name}{inspect.signature(function)}`{giver}\n".replace("'", ""), f"{inspect.getdoc(function)}\n"]
    if stage:
        lines.append(
            f"In recipes: {f'`{stage.name}`' if stage.name else 'the reserved key `runtime`'}. "
            f"A component may ask for: {stage.offer or 'nothing'}. It gives: {stage.gives or 'a Generator'}.\n"
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
            if stage.name:
                lines += ["", "```yaml", example_step(component).rstrip(), "```"]
            lines.append("")
    return "\n".join(lines) + "\n"


def recipe(registry: Registry) -> str:
    """The page of the recipe format: stages and reserved keys, as the code has them."""
    lines = [NOTE, "# Recipes: keys and stages\n", "| stage | a component may ask for | gives |", "|---|---|---|"]
    lines += [
        f"| `{stage.name}` | {stage.offer or 'nothing'} | {stage.gives} |" for stage in registry.stages if stage.name
    ]
    lines += ["", f"Reserved keys of a step: {', '.join(f'`{key}`' for key in RESERVED_KEYS)}.", ""]
    lines += [
        f"A {kind} is loaded by the runtime `{name}` unless the step says `runtime:`."
        for kind, name in DEFAULT_RUNTIMES.items()
    ]
    return "\n".join(lines) + "\n"


def stage_page(stage: Stage) -> Callable[[Registry], str]:
    """A page of one stage: what it promises, a whole plugin for it, and our own components."""
    name = stage.name or "runtime"

    def page(registry: Registry) -> str:
        naming = scaffold.Naming.of(f"my-{name}")
        ((path, text),) = scaffold.single_file_plugin(naming, stage).items()
        ours = [each for each in registry.components if each.stage is stage]
        command = f"luthier plugins new my-{name} --stage {name}"
        lines = [NOTE, f"# {stage.title}\n", f"{inspect.getdoc(CORE_SPECIFICATIONS[stage.hook])}\n"]
        lines.append(f"It may ask for: {stage.offer or 'nothing'}. It gives: {stage.gives or 'a Generator'}.\n")
        lines.append(f"## A whole plugin\n\n`{command} --single-file` writes `{path}`:\n")
        lines += [
            "```python",
            text.rstrip(),
            "```\n",
            f"`{command}` writes a distribution, with its tests. To use it:\n",
        ]
        lines += ["```yaml", scaffold.example_steps(naming, stage), "```\n"]
        lines.append("## Ours\n")
        lines += [f"- `{each.name}` ({each.distribution}): {each.summary}" for each in ours]
        return "\n".join(lines) + "\n"

    return page


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
    registry = load_plugins() if options.installed else first_party(load_plugins())
    pages: dict[str, Callable[[Registry], str]] = {"hooks.md": hooks, "components.md": components, "recipe.md": recipe}
    pages |= {f"stages/{stage.name or 'runtime'}.md": stage_page(stage) for stage in STAGES}
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
