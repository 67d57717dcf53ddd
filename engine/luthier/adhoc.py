"""Work without a recipe: run one component on a file, ask a model."""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from luthier import environments
from luthier.artifacts import ARTIFACTS, ROW_FILES, Artifact
from luthier.components import Component
from luthier.errors import InputError, WorkerError
from luthier.files import remove_tree
from luthier.location_syntax import scheme_of
from luthier.locations import fetch
from luthier.plugins import load_plugins
from luthier.pool import Message, Pool
from luthier.registry import Champions, is_champion
from luthier.runs import LATEST, find_run
from luthier.store import Store
from luthier.streaming import Sampling
from luthier.suggest import did_you_mean

Listen = Callable[[Message], None]

LOGS = "logs"


def run_component(
    component: Component,
    configuration: Mapping[str, Any],
    source: Path | None,
    target: Path,
    *,
    local: Sequence[Path] = (),
    seed: int = 0,
    listen: Listen = lambda message: None,
) -> dict[str, Any]:
    """Run one data component on the rows of a file, and write its rows to another.

    Returns:
        What became of the rows: `documents_in`, `kept`, `changed`, `dropped`, `quarantined`, `added`.

    Raises:
        InputError: if the component does not work on rows, the environment of its own that its plugin declares is
            not built, or a file cannot be read or written.
    """
    if component.stage.gives != "dataset":
        raise InputError(
            f"{component} does not work on rows", "plugins run takes sources, cleaners, bias filters and formatters."
        )
    if _takes_rows(component) and (source is None or not source.is_file()):
        raise InputError(
            f"there is no file {source}", "--input names a .jsonl, .parquet or .csv file of rows with a `text`."
        )
    if "other" in component.inputs:
        raise InputError(f"{component} takes two datasets", "Use it in a recipe: plugins run has one file of rows.")
    for name in ("frame", "data"):
        if name in component.inputs and not component.accepts(name, "documents"):
            forms = " or ".join(sorted(component.declared.needs[name]))
            raise InputError(
                f"{component} takes {name} of the form {forms}, and the rows of a file are documents",
                "Use it in a recipe, after a step that gives that form.",
            )
    if not target.parent.is_dir():
        raise InputError(f"there is no directory {target.parent}", "Make it, or name another file with --output.")
    # Before a component has worked for an hour.
    for path in filter(None, (source, target)):
        if path.suffix not in ROW_FILES:
            raise InputError(f"{path}: rows are in {', '.join(ROW_FILES)} files", "Name a file that ends in one.")
    component.configure(configuration)
    python = _interpreter(component)
    with _workplace(local) as (room, pool):
        for name in ("data", "input", "output", "notes", "checkpoint"):
            (room / name).mkdir()
        request = {
            "stage": component.stage.name,
            "component": component.name,
            "config": dict(configuration),
            "form": component.form(configuration) or "documents",
            "seed": seed,
            "device": "auto",
        }
        unread = 0
        if _takes_rows(component):
            places = {"target": str(room / "data"), "notes": str(room / "input")}
            unread = pool.call({"task": "convert", "input": str(source), **places}, listen)["quarantined"]
        if "frame" in component.inputs:
            counts = _over_shards(pool, request, room, listen, python)
        else:
            data = {"kind": "dataset", "form": "documents", "path": str(room / "data"), "hash": ""}
            places = {name: str(room / name) for name in ("output", "checkpoint")}
            inputs = {"data": data} if "data" in component.inputs else {}
            whole = {"task": "dataset", **request, **places, "notes": str(room / "notes" / "0"), "inputs": inputs}
            pool.call(whole, listen, python)
            counts = room / "notes" / "0" / "outcome.json"
        pool.call({"task": "convert", "input": str(room / "output"), "target": str(target)}, listen)
        _keep_quarantined([room / "input", counts.parent], target)
        return _read_counts(counts, unread)


def _interpreter(component: Component) -> Path | None:
    """Of the environment that the component's plugin declares; None for the main one.

    Raises:
        InputError: if it is not built, or the component's extra is not installed, with the command that does it.
    """
    needed = component.distribution
    if environments.declares(needed):
        return environments.require(needed).python
    component.require_extra()
    return None


def _takes_rows(component: Component) -> bool:
    return bool({"frame", "data"} & set(component.inputs))


@contextlib.contextmanager
def _workplace(local: Sequence[Path]) -> Iterator[tuple[Path, Pool]]:
    """A directory and a worker for as long as the block lasts; of a worker that died the log stays."""
    room = Path(tempfile.mkdtemp(prefix="luthier-"))
    kept: frozenset[str] = frozenset()
    try:
        with Pool(room / LOGS, jobs=1, local_plugins=local, timeout=None) as pool:
            yield room, pool
    except WorkerError:
        kept = frozenset({LOGS})
        raise
    finally:
        for entry in room.iterdir():
            if entry.name not in kept:
                remove_tree(entry)
        if not kept:
            room.rmdir()


def quarantine_of(target: Path) -> Path:
    """Where the records go that could not be read, or a component set aside: beside the rows that it gave."""
    return target.with_name(f"{target.name}.quarantine.jsonl")


def _keep_quarantined(notes: Sequence[Path], target: Path) -> None:
    found = [path for path in (place / "quarantine.jsonl" for place in notes) if path.exists()]
    if found:
        with quarantine_of(target).open("wb") as kept:
            for path in found:
                with path.open("rb") as records:
                    shutil.copyfileobj(records, kept)


def _over_shards(pool: Pool, request: Mapping[str, Any], room: Path, listen: Listen, python: Path | None) -> Path:
    shards = sorted((room / "data").glob("shard-*.parquet"))
    done = [room / "checkpoint" / shard.stem for shard in shards]
    for shard, finished in zip(shards, done, strict=True):
        attempt = str(finished.with_suffix(".attempt"))
        pool.call(
            {
                "task": "shard",
                "parts": [request],
                **request,
                "input": str(shard),
                "done": str(finished),
                "attempt": attempt,
            },
            listen,
            python,
        )
    join = {
        "task": "join",
        "stage": request["stage"],
        "component": request["component"],
        "output": str(room / "output"),
        "notes": str(room / "notes"),
        "shards": list(map(str, done)),
        "parts": 1,
    }
    pool.call(join, listen, python)
    return room / "notes" / "0" / "outcome.json"


def _read_counts(path: Path, unread: int) -> dict[str, Any]:
    """A component's counts, and the rows that never reached it: they came in too, and were set aside."""
    counts: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))["counts"]
    return {**counts, "documents_in": counts["documents_in"] + unread, "quarantined": counts["quarantined"] + unread}


def find_model(name: str, store: Store) -> Artifact:
    """The model that a directory, a GGUF file, a location, a run or a step of one names.

    A location is `hf:…`, `wheel:…` or another that recipes know; a run is its id, a unique beginning of that, or
    `latest`, and stands for its newest model; a step is `RUN:STEP`, or the id of one of the latest run's. The model of
    the `champion` (or `champion:NAME`) is compared with its hash, byte by byte; with `:STEP` it is what a step of its
    run gave.

    Raises:
        InputError: if it is none of them, or holds no model.
    """
    path = Path(name)
    if path.is_dir() or (path.is_file() and _is_gguf(path)):
        return _model_at(path)
    if is_champion(name):
        return _champions_model(name, store)
    runs = sorted(entry.name for entry in store.runs.glob("*"))
    if _names_run(name, runs):
        return find_run(store, name).model()
    run, colon, step = name.partition(":")
    if colon and _names_run(run, runs):
        return find_run(store, run).model(step)
    if scheme_of(name):
        return _model_at(fetch(name))
    if runs and not path.exists() and name in (each.id for each in find_run(store, LATEST).steps):
        return find_run(store, LATEST).model(name)
    there = f"{name} is no directory" if path.exists() else f"there is no directory {name}"
    remedy = "Name the directory that holds the model, its location (`hf:…`), or a run that made one: "
    remedy += did_you_mean(name, runs) or ("see `luthier runs list`." if runs else "luthier run RECIPE")
    raise InputError(f"{there}, nor a run {name!r} in {store.root}", remedy)


def _champions_model(name: str, store: Store) -> Artifact:
    registry = Champions(store)
    try:
        found = registry.resolve(name)
    except InputError:
        run, _, step = name.rpartition(":")
        if is_champion(run) and registry.has(run):
            made = find_run(store, run)
            if step in (each.id for each in made.steps):
                return made.model(step)
        raise
    return registry.model(*found, verify=True)


def _names_run(name: str, runs: Sequence[str]) -> bool:
    return name == LATEST or (bool(name) and any(run.startswith(name) for run in runs))


def _model_at(path: Path) -> Artifact:
    if (path / "genai_config.json").exists():
        return ARTIFACTS["onnx"].at(path, "genai")
    if (path / "interface.json").exists():
        return ARTIFACTS["onnx"].at(path, str(_record(path / "interface.json").get("form", "")))
    if (path / "model.onnx").exists():
        return ARTIFACTS["onnx"].at(path, "decoder")
    if (path / "config.json").exists():
        return ARTIFACTS["model"].at(path, _form_of(path / "config.json"))
    if _is_gguf(path) or any(map(_is_gguf, path.glob("*"))):
        return ARTIFACTS["onnx"].at(path, "gguf")
    raise InputError(
        f"{path} holds no model",
        "A model directory has a config.json, an exported one a genai_config.json, a model.onnx or a .gguf file.",
    )


def _is_gguf(path: Path) -> bool:
    return path.suffix == ".gguf"


def _form_of(config: Path) -> str:
    record = _record(config)
    if any(str(name).endswith("ForSequenceClassification") for name in record.get("architectures") or ()):
        return "sequence-classifier"
    return "seq2seq-lm" if record.get("is_encoder_decoder") else "causal-lm"


def _record(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        return {**record}
    except (ValueError, TypeError) as error:
        raise InputError(f"{path} is no JSON object: {error}", "Restore it from where the model came.") from error


def generate(
    model: Artifact,
    prompts: Sequence[str],
    *,
    runtime: str | None = None,
    parameters: Mapping[str, Any] | None = None,
    max_new_tokens: int = 128,
    sampling: Sampling = Sampling(),
    local: Sequence[Path] = (),
    device: str = "auto",
) -> list[str]:
    """The model's completion of each prompt, by the runtime that is named or that loads such models.

    Args:
        model: what completes them.
        prompts: as a user writes them; the chat template is put around each.
        runtime: its name.
        parameters: of the runtime, as a recipe's `runtime: {name: …, …}` has them.
        max_new_tokens: where it stops at the latest.
        sampling: how tokens are chosen; of each prompt from the seed on.
        local: one-file plugins.
        device: where the model runs.

    Raises:
        InputError: if there is no such runtime, it does not load the model, the environment of its own that its plugin
            declares is not built, or it cannot sample.
        ConfigurationError: if it has no such parameters.
    """
    registry = load_plugins(local=local)
    component = registry.runtime_for(model.kind, model.form, runtime)
    config = dict(parameters or {})
    component.configure(config)
    if sampling.temperature:
        registry.check_streams(component)
    python = _interpreter(component)
    with _workplace(local) as (room, pool):
        request = {
            "task": "generate",
            "runtime": {"name": component.name, "config": config},
            "subject": {"kind": model.kind, "form": model.form, "path": str(model.path.absolute()), "hash": model.hash},
            "prompts": list(prompts),
            "max_new_tokens": max_new_tokens,
            "sampling": asdict(sampling),
            "seed": 0,
            "device": device,
            **{name: str(room / name) for name in ("output", "notes", "checkpoint")},
        }
        completions: list[str] = pool.call(request, lambda message: None, python)["completions"]
        return completions
