"""Write a new plugin: a whole distribution, or one file, with a small working component of a stage."""

from __future__ import annotations

import builtins
import keyword
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from string import Template

from luthier.components import STAGES, Stage
from luthier.errors import InputError
from luthier.suggest import did_you_mean

TEMPLATES = Path(__file__).parent / "cli" / "templates"
PREFIX = "luthier-"

_TORCH = ("torch>=2.6", "transformers>=5.0,<6")
_NEEDS_TINY_MODEL = ("tune", "export", "runtime")
_HEAVY: Mapping[str, tuple[str, ...]] = {
    "architecture": (*_TORCH, "tokenizers>=0.22"),
    "tune": _TORCH,
    "export": (*_TORCH, "onnx>=1.19", "onnxruntime-genai>=0.18,<0.19"),
    "runtime": _TORCH,
}
"""What a stage's component imports, besides luthier and polars."""

_EXAMPLES: Mapping[str, str] = {
    "source": "  - source: $component\n    path: corpus.txt",
    "runtime": "  - validate: perplexity\n    runtime: $component",
}
_TAKEN = frozenset(("annotations", "component", "hookimpl", "luthier", "re", "tempfile", "pl", "np", "pytest"))
"""Names that the templates' modules use for something else."""


@dataclass(frozen=True)
class Naming:
    """What everything is called.

    Attributes:
        directory: the distribution's, as the user named it.
        plugin: the entry point.
        component: as recipes name it.
        function: as Python does.
    """

    directory: str
    plugin: str
    component: str
    function: str

    @classmethod
    def of(cls, name: str) -> Naming:
        """From what the user typed; `luthier-shout` and `shout` are both the plugin `shout`.

        Raises:
            InputError: if no function, distribution and component can have that name.
        """
        plugin = re.sub(r"[-_.]+", "-", name.lower()).removeprefix(PREFIX)
        function = plugin.replace("-", "_")
        if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", plugin):
            raise InputError(
                f"{name!r} cannot be a plugin's name", "Use letters, digits and hyphens, a letter first: my-cleaner."
            )
        if keyword.iskeyword(function) or function in _TAKEN or hasattr(builtins, function):
            raise InputError(f"{name!r} means something else in Python", f"Choose another name: {plugin}-text.")
        return cls(name, plugin, plugin, function)

    @property
    def distribution(self) -> str:
        """As pip knows it."""
        return PREFIX + self.plugin

    @property
    def package(self) -> str:
        """As Python imports it."""
        return self.distribution.replace("-", "_")


def stage_names(stage: Stage) -> tuple[str, ...]:
    """What people call a stage: its key in recipes, its hook, and what it is made of, one or many."""
    plural = stage.hook.removeprefix("luthier_").replace("_", "-")
    return tuple(dict.fromkeys((stage.name or "runtime", plural.removesuffix("s"), plural, stage.hook)))


def find_stage(name: str) -> Stage:
    """The stage that people mean.

    Raises:
        InputError: with the closest match.
    """
    wanted = name.strip().lower().replace("_", "-")
    for stage in STAGES:
        if wanted in (known.replace("_", "-") for known in stage_names(stage)):
            return stage
    known = [each for stage in STAGES for each in stage_names(stage)]
    remedy = did_you_mean(name, known) or f"There are: {', '.join(stage_names(stage)[0] for stage in STAGES)}."
    raise InputError(f"there is no stage {name!r}", remedy)


def write(naming: Naming, stage: Stage, directory: Path, *, single_file: bool = False) -> list[Path]:
    """Write the plugin below `directory`; gives the files.

    Raises:
        InputError: if something is there already, or cannot be written; nothing is overwritten.
    """
    files = single_file_plugin(naming, stage) if single_file else _distribution(naming, stage)
    root = directory if single_file else directory / naming.directory
    taken = root / next(iter(files)) if single_file else root
    if taken.is_file() or (not single_file and taken.is_dir() and any(taken.iterdir())):
        raise InputError(f"{taken} exists already", "Choose another name, or another directory.")
    for path, text in files.items():
        try:
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            with (root / path).open("x", encoding="utf-8") as file:
                file.write(text)
        except FileExistsError:
            raise InputError(f"{root / path} exists already", "Choose another name.") from None
        except OSError as error:
            raise InputError(
                f"{root / path} cannot be written: {error.strerror}", "Choose another directory."
            ) from None
    return [root / path for path in files]


def single_file_plugin(naming: Naming, stage: Stage) -> dict[str, str]:
    """A plugin of one file: its path within a project, and what it holds."""
    return {f"plugins.d/{naming.plugin}.py": _fill(f"{_label(stage)}.py.in", naming, stage)}


def _distribution(naming: Naming, stage: Stage) -> dict[str, str]:
    label = _label(stage)
    templates = {
        "pyproject.toml": "pyproject.toml.in",
        "README.md": "README.md.in",
        ".gitignore": "gitignore.in",
        ".github/workflows/test.yml": "test.yml.in",
        f"src/{naming.package}/__init__.py": f"{label}.py.in",
        f"tests/test_{naming.function}.py": f"{label}_test.py.in",
    }
    if label in _NEEDS_TINY_MODEL:
        templates["tests/conftest.py"] = "tiny_model.py.in"
    files = {path: _fill(template, naming, stage) for path, template in templates.items()}
    return {**files, f"src/{naming.package}/py.typed": ""}


def example_steps(naming: Naming, stage: Stage) -> str:
    """The part of a recipe that uses the plugin's component."""
    label = _label(stage)
    step = Template(_EXAMPLES.get(label, f"  - {label}: $component")).substitute(component=naming.component)
    return f"steps:\n{step}"


def _fill(template: str, naming: Naming, stage: Stage) -> str:
    label = _label(stage)
    module = (TEMPLATES / f"{label}.py.in").read_text(encoding="utf-8")
    requirements = sorted(["luthier>=0.1,<0.2", "polars>=1.30", *_HEAVY.get(label, ())])
    return Template((TEMPLATES / template).read_text(encoding="utf-8")).substitute(
        distribution=naming.distribution,
        package=naming.package,
        plugin=naming.plugin,
        component=naming.component,
        function=naming.function,
        stage=label,
        summary=module.splitlines()[0].strip('"').partition(": ")[2],
        example=example_steps(naming, stage),
        dependencies="\n".join(f'    "{requirement}",' for requirement in requirements),
    )


def _label(stage: Stage) -> str:
    label = stage.name or "runtime"
    if not (TEMPLATES / f"{label}.py.in").exists():
        raise InputError(f"there is no template for the stage {label!r} yet", f"Its hook is {stage.hook}.")
    return label
