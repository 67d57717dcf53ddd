"""Write a new plugin: a whole distribution, or one file, with a small working component of a stage."""

from __future__ import annotations

import ast
import builtins
import keyword
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from string import Template

from luthier.core_stages import STAGES, Stage
from luthier.errors import InputError
from luthier.stages import PluginStage
from luthier.suggest import did_you_mean

TEMPLATES = Path(__file__).parent / "cli" / "templates"
PREFIX = "luthier-"
YAML_WORDS = frozenset(("null", "true", "false", "yes", "no", "on", "off", "y", "n"))
"""Names that are something else in YAML: in recipes, or for the editors and tools that still read YAML 1.1."""

_TORCH = ("torch>=2.6", "transformers>=5.0,<6")
_NEEDS_TINY_MODEL = ("tune", "export", "quantize", "runtime")
_HEAVY: Mapping[str, tuple[str, ...]] = {
    "architecture": (*_TORCH, "tokenizers>=0.22"),
    "tune": _TORCH,
    "export": (*_TORCH, "onnx>=1.19", "onnxruntime-genai>=0.18,<0.19"),
    "quantize": (*_TORCH, "annotated-types>=0.7", "safetensors>=0.5"),
    "runtime": _TORCH,
}
"""What a stage's component imports, besides luthier and polars."""

_EXAMPLES: Mapping[str, str] = {
    "source": "  - source: $component\n    path: corpus.txt",
    "runtime": "  - validate: perplexity\n    runtime: $component",
}
_TAKEN = frozenset(("annotations", "component", "hookimpl", "luthier", "re", "tempfile", "pl", "np", "pytest"))
"""Names that the templates' modules use for something else."""
_ROWS = "rows"
"""The template for stages of plugins that make rows of rows."""


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
        if plugin in YAML_WORDS:
            raise InputError(f"{name!r} means something else in YAML", f"Choose another name: {plugin}-text.")
        if function.startswith("test"):
            raise InputError(f"pytest would take {name!r} for a test", f"Choose another name: my-{plugin}.")
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
    return tuple(dict.fromkeys((stage.label, plural.removesuffix("s"), plural, stage.hook)))


def find_stage(name: str, stages: Sequence[Stage] = STAGES) -> Stage:
    """The stage that people mean, of the core's or of all that plugins add too.

    Raises:
        InputError: with the closest match.
    """
    wanted = name.strip().lower().replace("_", "-")
    for stage in stages:
        if wanted in (known.replace("_", "-") for known in stage_names(stage)):
            return stage
    known = [each for stage in stages for each in stage_names(stage)]
    remedy = did_you_mean(name, known) or f"There are: {', '.join(stage_names(stage)[0] for stage in stages)}."
    raise InputError(f"there is no stage {name!r}", remedy)


def write(
    naming: Naming, stage: Stage, directory: Path, *, single_file: bool = False, added: Sequence[PluginStage] = ()
) -> list[Path]:
    """Write the plugin below `directory`; gives the files.

    Args:
        naming: what everything is called.
        stage: of the core, or of `added`.
        directory: the one that the user is in.
        single_file: only `plugins.d/NAME.py`.
        added: the stages that plugins add; the new distribution requires the one that adds its stage.

    Raises:
        InputError: if the name means something else in the files, or there is no template for the stage; if
            something is there already, or cannot be written. Nothing is overwritten.
    """
    giver = next((each for each in added if each.stage == stage), None)
    if not has_template(stage):
        raise _no_template(stage, giver)

    def filled(naming: Naming) -> dict[str, str]:
        return single_file_plugin(naming, stage) if single_file else _distribution(naming, stage, giver)

    _refuse_identifiers(naming, filled(replace(naming, function="_of_the_plugin")))
    files = filled(naming)
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
    return {f"plugins.d/{naming.plugin}.py": _fill(f"{_template(stage)}.py.in", naming, stage)}


def has_template(stage: Stage) -> bool:
    """Whether a plugin for the stage can be written: for one of the core's, and for one from rows to rows."""
    return (TEMPLATES / f"{_template(stage)}.py.in").exists()


def _template(stage: Stage) -> str:
    """The name of the stage's template; of one that is not there, if there is none."""
    label = stage.label
    if stage in STAGES:
        return label
    rows_to_rows = stage.gives == "dataset" and {"frame", "data"} & set(stage.inputs) and "ctx" in stage.inputs
    return _ROWS if rows_to_rows and set(stage.needs) <= {"frame", "data", "ctx"} else f"{label}-of-a-plugin"


def _no_template(stage: Stage, giver: PluginStage | None) -> InputError:
    whose = f", which {giver.giver} adds" if giver else ""
    return InputError(
        f"there is no template for the stage {stage.label!r}{whose}",
        "Templates are for the steps of recipes and for runtimes, and of the stages that plugins add for those from "
        f"rows to rows. Write the hook {stage.hook} by hand: "
        "its docstring, where it is specified, says what it takes and gives.",
    )


def _refuse_identifiers(naming: Naming, files: Mapping[str, str]) -> None:
    """The function would hide, or be hidden by, what has its name in the plugin's own code and tests."""
    code = [text for path, text in files.items() if path.endswith(".py")]
    if naming.function in {name for text in code for name in _identifiers(text)}:
        raise InputError(
            f"{naming.plugin!r} means something else in the files that would be written",
            f"Choose another name: {naming.plugin}-text.",
        )


def _identifiers(code: str) -> Iterable[str]:
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.alias):
            yield node.asname or node.name.partition(".")[0]


def _distribution(naming: Naming, stage: Stage, giver: PluginStage | None) -> dict[str, str]:
    label, template = stage.label, _template(stage)
    if giver and not giver.version:
        raise InputError(
            f"the stage {label!r} is of {giver.distribution}, which no distribution can require", "Add --single-file."
        )
    requires = (f"{giver.distribution}>={giver.version}",) if giver else ()
    templates = {
        "pyproject.toml": "pyproject.toml.in",
        "README.md": "README.md.in",
        ".gitignore": "gitignore.in",
        ".github/workflows/test.yml": "test.yml.in",
        f"src/{naming.package}/__init__.py": f"{template}.py.in",
        f"tests/test_{naming.function}.py": f"{template}_test.py.in",
    }
    if label in _NEEDS_TINY_MODEL:
        templates["tests/conftest.py"] = "tiny_model.py.in"
    files = {path: _fill(source, naming, stage, requires) for path, source in templates.items()}
    return {**files, f"src/{naming.package}/py.typed": ""}


def example_steps(naming: Naming, stage: Stage) -> str:
    """The part of a recipe that uses the plugin's component."""
    label = stage.label
    step = Template(_EXAMPLES.get(label, f"  - {label}: $component")).substitute(component=naming.component)
    return f"steps:\n{step}"


def _fill(template: str, naming: Naming, stage: Stage, requires: Iterable[str] = ()) -> str:
    label = stage.label
    module = (TEMPLATES / f"{_template(stage)}.py.in").read_text(encoding="utf-8")
    requirements = sorted(["luthier>=0.1,<0.2", "polars>=1.30", *_HEAVY.get(label, ()), *requires])
    sharded = "frame" in stage.inputs
    return Template((TEMPLATES / template).read_text(encoding="utf-8")).substitute(
        distribution=naming.distribution,
        package=naming.package,
        plugin=naming.plugin,
        component=naming.component,
        function=naming.function,
        stage=label,
        hook=stage.hook,
        argument="frame: Frame" if sharded else "data: Dataset",
        rows="frame" if sharded else "data.frame()",
        types="Context, Frame" if sharded else "Context, Dataset, Frame",
        summary=module.splitlines()[0].strip('"').partition(": ")[2],
        example=example_steps(naming, stage),
        dependencies="\n".join(f'    "{requirement}",' for requirement in requirements),
    )
