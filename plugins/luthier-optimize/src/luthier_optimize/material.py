"""What is optimized and what it is measured on: the model and the held-out text, as the steps of a recipe."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import luthier
from luthier import InputError, LuthierError, Run
from luthier_optimize.local import plugins_for
from luthier_optimize.outcome import make_directory
from luthier_optimize.steps import Step, ancestors, id_of, overrides_of, renamed, seed_of, written

FORMS = ("prompt-completion", "chat", "language-modelling")
"""The forms of examples that a model's text can be scored on."""
TEXT_FILES = (".txt", ".md")
GGUF = ".gguf"
HELD_OUT = "held-out-"
"""What the ids of steps begin with that make the user's texts beside those of the model's own run."""
PASSAGE = 400
"""Characters that a passage of a text file has at the least; paragraphs are joined until it has."""
SPLIT = {"valid": 0.1, "test": 0.4}
"""How a user's own texts are divided: calibration reads `train`, choices are checked on `valid`, `test` is held out."""
REMEDY_DATA = (
    "Name held-out text with --data: a recipe or a step of it (recipe.yaml/summarization), a .jsonl or .txt file, or a "
    "directory of them."
)


@dataclass(frozen=True)
class Task:
    """A validator of the recipe's own.

    Attributes:
        step: its step, gate included.
        metric: what it is there for: what its gate asks for, else the first that it says it records.
    """

    step: Step
    metric: str

    @property
    def id(self) -> str:
        """Of its step."""
        return id_of(self.step)

    @property
    def alone(self) -> Step:
        """The step that measures the newest model and nothing else, and refuses nothing."""
        kept = {key: value for key, value in self.step.items() if key not in ("gate", "reference")}
        return {**kept, "subjects": ["candidate"]}


@dataclass(frozen=True)
class Texts:
    """Steps that make examples.

    Attributes:
        steps: in order; the last one that makes a dataset gives the examples.
        id, form: of the step that gives the examples.
        seed: of the recipe that they are of.
        tasks: validators that the recipe measures models with on them.
    """

    steps: list[Step]
    id: str
    form: str
    seed: int
    tasks: list[Task] = field(default_factory=list)


@dataclass(frozen=True)
class Material:
    """The model with its held-out text.

    Attributes:
        name: for the names of runs: that of the model's step, or of its directory.
        steps: of a recipe that makes the examples and the model; the model is its newest.
        model, form: the id of the step that gives the model, and its form.
        texts: the examples.
        newest: whether the examples are the newest dataset of `steps`, so that no step need name them.
    """

    name: str
    steps: list[Step]
    model: str
    form: str
    texts: Texts
    newest: bool = True

    @property
    def seed(self) -> int:
        """The seed of the recipes."""
        return self.texts.seed

    def reading(self, step: Step) -> Step:
        """A step that reads examples, made to read these."""
        return step if self.newest else {**step, "from": [self.texts.id]}


def find_material(name: str, data: str | None, *, home: Path | None, output: Path, plugins: Sequence[Path]) -> Material:
    """The model that MODEL|STEP names, with the held-out text of its run or the one that `data` names.

    Raises:
        InputError: if there is no such model, it is exported already, there is no text, or the run's recipe has
            changed since.
    """
    run, step = _run_of(name, home)
    texts = read_texts(data, output, plugins) if data else None
    if run is None:
        location, form = _located(name, home)
        if texts is None:
            raise InputError(f"there is no held-out text to measure {name} on: it is no step of a run", REMEDY_DATA)
        pretrained = {"architecture": "pretrained", "model": location, "form": form}
        short = re.sub(r"[^\w.-]+", "-", Path(name).stem).strip("-.") or "model"
        return Material(short, [*texts.steps, pretrained], "pretrained", form, texts)
    return _of_run(run, step, texts, name, plugins)


def _located(name: str, home: Path | None) -> tuple[str, str]:
    """The location of a model that is of no run, a path absolute, and its form."""
    location = str(Path(name).absolute()) if Path(name).exists() else name
    if name.endswith(GGUF):
        return location, "causal-lm"  # What `pretrained` reads of such files.
    model = luthier.find_model(name, home=home)
    _check_kind(model.kind, name)
    return location, model.form


def _run_of(name: str, home: Path | None) -> tuple[Run | None, str]:
    """The run that a name is of, and the step that it names; no run for a directory or a location."""
    if Path(name).is_dir():
        return None, ""
    first, _, step = name.rpartition(":")
    # `champion:NAME` is a run, and not a step of one.
    for run, of_it in ((name, ""), (first, step)) if first else ((name, ""),):
        with contextlib.suppress(InputError):
            return luthier.find_run(run, home=home), of_it
    with contextlib.suppress(InputError):
        latest = luthier.find_run(home=home)
        if name in [each.id for each in latest.steps]:
            return latest, name
    return None, ""


def _check_kind(kind: str, name: str) -> None:
    if kind != "model":
        what = "is exported already" if kind == "onnx" else f"is a {kind}, not a model"
        raise InputError(f"{name} {what}", "Name a step that gave a model (`latest:lora`), or a model's directory.")


def _of_run(run: Run, step: str, texts: Texts | None, name: str, plugins: Sequence[Path]) -> Material:
    planned = _plan_of(run, plugins)
    nodes = [each.node for each in planned]
    lossy = next((i for i, node in enumerate(nodes) if node.kind == "onnx" or node.step.stage.lossy), len(nodes))
    models = [each for each in planned[:lossy] if each.node.kind == "model"]
    if step:
        wanted = run.step(step).id
        found = next((each for each in planned if each.node.step.id == wanted), None)
        if found is not None:
            _check_kind(found.node.kind, name)
    else:
        found = models[-1] if models else None
    if found is None:
        raise InputError(f"the run {run.id} has made no model", "Run the recipe to the end: luthier run RECIPE")
    if found.record is None or found.record.output != run.step(found.node.step.id).artifact:
        raise InputError(
            f"{found.node.step.id!r} of the run {run.id} is not what its recipe gives now ({found.why or 'changed'})",
            f"Run the recipe again; or optimize the model as it is, with --data: {run.model(found.node.step.id).path}",
        )
    kept = ancestors([found.node])
    if texts is None:
        texts = _texts_of(nodes, run.data.seed, FORMS)
        if texts is None:
            raise InputError(f"the run {run.id} has no examples to measure on", REMEDY_DATA)
        together = kept | ancestors([node for node in nodes if node.step.id == texts.id])
        steps = _written(nodes, together)
        newest = [node for node in nodes if node.step.id in together and node.kind == "dataset"][-1].step.id == texts.id
    else:
        own = renamed(texts.steps, HELD_OUT)
        texts = Texts(own, f"{HELD_OUT}{texts.id}", texts.form, run.data.seed, texts.tasks)
        steps, newest = [*_written(nodes, kept), *own], True
    return Material(found.node.step.id, steps, found.node.step.id, found.node.form, texts, newest)


def _plan_of(run: Run, plugins: Sequence[Path]) -> Any:
    """The plan of the recipe that a run ran, as the recipe is now."""
    kept = run.path / "recipe.yaml"
    overrides = overrides_of(kept.read_text(encoding="utf-8"))
    written_by_hand = Path(run.data.recipe_file)
    recipe = written_by_hand if run.data.recipe_file and written_by_hand.is_file() else kept
    try:
        return luthier.plan(recipe, overrides=overrides, plugins=plugins_for(recipe, plugins), home=run.store.root)
    except LuthierError as error:
        error.message = f"the recipe of the run {run.id} cannot be planned any more: {error.message}"
        raise


def _written(nodes: Sequence[Any], ids: set[str]) -> list[Step]:
    steps = {step.id: step for node in nodes for step in node.parts if step.stage.gives != "report"}
    return [written(step) for name, step in steps.items() if name in ids]


def _texts_of(nodes: Sequence[Any], seed: int, forms: Sequence[str]) -> Texts | None:
    """The newest examples of a plan that can be scored, with the validators that read them."""
    found = [node for node in nodes if node.kind == "dataset" and node.form in forms]
    if not found:
        return None
    examples = found[-1]
    tasks = dict.fromkeys(node.step.id for node in nodes if _is_task(node, examples))
    steps = {node.step.id: node.step for node in nodes if node.task == "validate"}
    return Texts(
        _written(nodes, ancestors([examples])),
        examples.step.id,
        examples.form,
        seed,
        [Task(_without_source(written(steps[name])), _metric_of(steps[name])) for name in tasks],
    )


def _without_source(step: Step) -> Step:
    return {key: value for key, value in step.items() if key != "from"}


def _is_task(node: Any, examples: Any) -> bool:
    """Whether a node measures what the model does with the examples, alone and as text."""
    if node.task != "validate" or node.inputs.get("data") is not examples:
        return False
    component = node.step.component
    return "reference" not in component.inputs and component.name not in ("perplexity", "bits-per-byte")


def _metric_of(step: Any) -> str:
    return next(iter(step.gate or step.component.metrics(step.config) or ()), "")


# --- text that the user names -------------------------------------------------------------------------


def read_texts(data: str, output: Path, plugins: Sequence[Path]) -> Texts:
    """The examples that `--data` names: a recipe's, or a user's own texts.

    Args:
        data: a recipe, `RECIPE/STEP`, a file of texts or a directory of them.
        output: where passages of a text file are written.
        plugins: the recipe's one-file plugins.

    Raises:
        InputError: if it is none of them.
    """
    path, step = Path(data), ""
    if not path.exists() and path.parent.is_file():
        path, step = path.parent, path.name
    if path.suffix in (".yaml", ".yml") and path.is_file():
        return _recipe_texts(path, step, plugins)
    if path.is_dir() and any(path.rglob("*.txt")):
        return _own({"source": "text-files", "path": str(path.absolute())})
    if path.is_dir() or (path.is_file() and path.name.endswith((".jsonl", ".jsonl.gz"))):
        return _own({"source": "jsonl", "path": str(path.absolute())})
    if path.is_file() and path.suffix in TEXT_FILES:
        return _own({"source": "jsonl", "path": str(write_passages(path, output / "texts.jsonl"))})
    raise InputError(f"--data {data}: there is no such recipe, file or directory of texts", REMEDY_DATA)


def _own(source: Step) -> Texts:
    formatted = {"format": "language-modelling", "split": SPLIT}
    return Texts([source, formatted], "language-modelling", "language-modelling", 0)


def _recipe_texts(recipe: Path, step: str, plugins: Sequence[Path]) -> Texts:
    nodes = [each.node for each in luthier.plan(recipe, plugins=plugins_for(recipe, plugins))]
    if step:
        wanted = [node for node in nodes if step in [part.id for part in node.parts]]
        if not wanted or wanted[0].kind != "dataset":
            ids = ", ".join(node.step.id for node in nodes if node.kind == "dataset")
            raise InputError(f"--data: {recipe} has no step {step!r} that gives examples", f"It has: {ids or 'none'}.")
        nodes = [node for node in nodes if node.kind != "dataset" or node.step.id in ancestors(wanted)]
    found = _texts_of(nodes, seed_of(recipe), FORMS)
    if found is None:
        raise InputError(f"--data: {recipe} makes no examples of the forms {', '.join(FORMS)}", REMEDY_DATA)
    return found


def write_passages(path: Path, target: Path) -> Path:
    """Cut a text file into passages of whole paragraphs, a JSON line each, so that some can be held out.

    Raises:
        InputError: if it is no UTF-8, or the target's directory cannot be made.
    """
    import json

    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"--data {path} is not UTF-8: {error}", "Save it as UTF-8.") from None
    passages, piece = [], ""
    for paragraph in re.split(r"\n\s*\n", text.replace("\r\n", "\n")):
        piece = f"{piece}\n\n{paragraph.strip()}".strip()
        if len(piece) >= PASSAGE:
            passages.append(piece)
            piece = ""
    passages += [piece] if piece else []
    make_directory(target.parent)
    lines = (json.dumps({"text": passage}, ensure_ascii=False) for passage in passages)
    target.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return target.absolute()
