"""Write the reference pages from the code; with --check, fail where a page is not what the code says."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from pathlib import Path

from luthier import hookspecs
from luthier.artifacts import DATASET_FORMS
from luthier.components import DEFAULT_RUNTIMES, RESERVED_KEYS, STAGES
from luthier.context import Context
from luthier.plugins import FIRST_PARTY, Registry, load_plugins
from luthier.schema import example_step, parameter_help

REFERENCE = Path(__file__).parent / "reference"
NOTE = "<!-- Made by `make docs` from the code: edit the docstrings instead. -->\n"


def hooks() -> str:
    """The page of hooks: every specification with its docstring, and what each stage offers."""
    lines = [NOTE, "# Hooks\n", inspect.getdoc(hookspecs) or "", "\n## Registration hooks\n"]
    lifecycle = False
    for name, function in vars(hookspecs).items():
        if not name.startswith("luthier_"):
            continue
        stage = next((stage for stage in STAGES if stage.hook == name), None)
        if stage is None and not lifecycle:
            lifecycle = True
            lines.append("## Lifecycle hooks\n")
        lines.append(f"### `{name}{inspect.signature(function)}`\n".replace("'", ""))
        lines.append((inspect.getdoc(function) or "") + "\n")
        if stage:
            lines.append(
                f"In recipes: {f'`{stage.name}`' if stage.name else 'the reserved key `runtime`'}. "
                f"A component may ask for: {stage.offer or 'nothing'}. It gives: {stage.gives or 'a Generator'}.\n"
            )
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


def components(registry: Registry) -> str:
    """The page of the first-party components, with every parameter."""
    lines = [
        NOTE,
        "# Components\n",
        "What our own plugins give. `luthier plugins show NAME` prints the same of any installed plugin.\n",
    ]
    for stage in STAGES:
        lines.append(f"## {stage.title}\n")
        for component in registry.components:
            if component.stage is not stage or component.distribution not in FIRST_PARTY:
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


def recipe() -> str:
    """The page of the recipe format: stages and reserved keys, as the code has them."""
    lines = [NOTE, "# Recipes: keys and stages\n", "| stage | a component may ask for | gives |", "|---|---|---|"]
    lines += [f"| `{stage.name}` | {stage.offer or 'nothing'} | {stage.gives} |" for stage in STAGES if stage.name]
    lines += ["", f"Reserved keys of a step: {', '.join(f'`{key}`' for key in RESERVED_KEYS)}.", ""]
    lines += [
        f"A {kind} is loaded by the runtime `{name}` unless the step says `runtime:`."
        for kind, name in DEFAULT_RUNTIMES.items()
    ]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Write or check every page; gives the exit status."""
    registry = load_plugins()
    pages: dict[str, Callable[[], str]] = {
        "hooks.md": hooks,
        "components.md": lambda: components(registry),
        "recipe.md": recipe,
    }
    REFERENCE.mkdir(exist_ok=True)
    stale = []
    for name, make in pages.items():
        path, text = REFERENCE / name, make()
        if "--check" not in sys.argv:
            path.write_text(text, encoding="utf-8")
        elif not path.exists() or path.read_text(encoding="utf-8") != text:
            stale.append(str(path))
    if stale:
        print(f"not what the code says: {', '.join(stale)}; run `make docs`", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
