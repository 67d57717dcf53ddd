"""What a worker does for each kind of request. Runs inside worker processes only."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import polars as pl

from luthier import frames, provenance, rowfiles
from luthier.artifacts import ARTIFACTS, Artifact, Dataset, Generator
from luthier.components import Component, describe
from luthier.context import Context
from luthier.errors import PartFailed, PluginError
from luthier.files import remove_tree, settle
from luthier.generations import Remembering
from luthier.locations import fetch
from luthier.outcomes import SAMPLES, Counts, Outcome, compare
from luthier.plugins import Registry
from luthier.shards import ShardWriter, join_shards, write_shard
from luthier.streaming import Sampling, completed, streaming

Request = Mapping[str, Any]
Emit = Callable[[Mapping[str, Any]], None]


class Tasks:
    """Carries out requests, one after the other, with the components of one registry."""

    def __init__(self, registry: Registry, emit: Emit, spread: Callable[[Request], None] | None = None) -> None:
        self._registry = registry
        self._emit = emit
        self._spread = spread

    def carry_out(self, request: Request) -> dict[str, Any]:
        """Do what the request asks for; gives the result's payload, and the seconds that it was `busy`."""
        began = time.perf_counter()
        handlers: dict[str, Callable[[Request], dict[str, Any]]] = {
            "dataset": self._dataset,
            "shard": self._shard,
            "join": self._join,
            "directory": self._directory,
            "validate": self._validate,
            "count": self._count,
            "check-device": self._check_device,
            "generate": self._generate,
            "convert": self._convert,
        }
        result = handlers[request["task"]](request)
        return {**result, "busy": round(time.perf_counter() - began, 4)}

    def _check_device(self, request: Request) -> dict[str, Any]:
        """Let a component say whether it can compute on a device."""
        check = self._registry.find(request["stage"], request["component"]).declared.check_device
        assert check is not None
        check(request["device"])
        return {}

    def _component(self, request: Request) -> tuple[Component, dict[str, Any]]:
        component = self._registry.find(request["stage"], request["component"])
        return component, component.arguments(request["config"])

    def _context(self, request: Request, component: Component) -> Context:
        for name in ("output", "notes", "checkpoint"):
            Path(request[name]).mkdir(parents=True, exist_ok=True)
        pins: Mapping[str, str] = request.get("pins", {})
        return Context(
            seed=request["seed"],
            output=Path(request["output"]),
            checkpoint=Path(request["checkpoint"]),
            notes=Path(request["notes"]),
            emit=self._emit,
            fetch=lambda location: fetch(pins.get(location, location)),
            device=request["device"],
            name=component.name,
            rank=request.get("rank", 0),
            processes=request.get("processes", 1),
        )

    def _call(self, component: Component, configuration: Mapping[str, Any], inputs: Mapping[str, Any]) -> Any:
        return component.function(*(inputs[name] for name in component.inputs), **configuration)

    def _dataset(self, request: Request) -> dict[str, Any]:
        """A source, or a data component that must see everything: frames in any number, shards out."""
        component, configuration = self._component(request)
        context = self._context(request, component)
        origin = describe(component.function)
        inputs: dict[str, Any] = {name: _artifact(record) for name, record in request["inputs"].items()}
        data = inputs.get("data")
        # A component of any stage that makes documents out of no data is as free as a source to leave ids to us.
        makes_documents = data is None and request["form"] == "documents"
        source = frames.SourceRows(component.name, origin) if makes_documents else None
        writer = ShardWriter(context.output)
        results = self._call(component, configuration, {**inputs, "ctx": context})
        for frame in frames.as_frames(results, component):
            rows = source.complete(frame) if source else frame
            writer.write(frames.check_form(rows, request["form"], origin), origin)
        writer.close(frames.empty_schema(request["form"]))
        result = Dataset.at(context.output, request["form"])
        frames.check_rows(result.scan(), request["form"], origin)
        _finish_notes(context, _dataset_outcome(component, data, result, context, writer.total))
        return {"rows": writer.total}

    def _shard(self, request: Request) -> dict[str, Any]:
        """Neighbouring frame components over one shard; finished shards survive a kill."""
        done = Path(request["done"])
        if (done / "rows.json").exists():
            return dict(json.loads((done / "rows.json").read_text(encoding="utf-8")))
        attempt = Path(request["attempt"])
        remove_tree(attempt)
        frame = pl.read_parquet(request["input"])
        components = [self._component(part) for part in request["parts"]]
        for index, (part, (component, configuration)) in enumerate(zip(request["parts"], components, strict=True)):
            directories = {name: str(attempt / name / str(index)) for name in ("output", "notes", "checkpoint")}
            context = self._context({**request, **directories}, component)
            try:
                frame, outcome = frames.run_frame_component(component, configuration, frame, context, part["form"])
            except (Exception, SystemExit) as error:
                raise PartFailed(index, error) from error
            _finish_notes(context, outcome)
        write_shard(frame, attempt / "shard.parquet")
        answering = _answers_for_rows([component for component, _ in components])
        rows = {
            "rows": frame.height,
            "form": request["parts"][-1]["form"],
            "part": answering,
            "origin": describe(components[answering][0].function),
        }
        (attempt / "rows.json").write_text(json.dumps(rows), encoding="utf-8")
        settle(attempt)  # After a power cut, what is there must be whole.
        attempt.rename(done)
        return rows

    def _join(self, request: Request) -> dict[str, Any]:
        """Put the shards of a pass together: shards in order, notes of each component joined."""
        output, notes = Path(request["output"]), Path(request["notes"])
        shards = [Path(path) for path in request["shards"]]
        component = self._registry.find(request["stage"], request["component"])
        # Copied, not moved: a kill in the middle must find every finished shard again.
        join_shards([shard / "shard.parquet" for shard in shards], output, describe(component.function))
        for part in range(request["parts"]):
            _join_notes([shard / "notes" / str(part) for shard in shards], notes / str(part))
        records = [json.loads((shard / "rows.json").read_text(encoding="utf-8")) for shard in shards]
        form, origin = records[0]["form"], records[0]["origin"]
        try:
            frames.check_rows(Dataset.at(output, form).scan(), form, origin)
        except PluginError as error:
            raise PartFailed(records[0]["part"], error) from error
        return {"rows": sum(record["rows"] for record in records)}

    def _directory(self, request: Request) -> dict[str, Any]:
        """What gives a model or an ONNX model: it writes a directory."""
        component, configuration = self._component(request)
        context = self._context(request, component)
        if self._spread and (request.get("executor") or component.needs_executor(request["config"])):
            self._spread(request)
            return {}  # The first of the processes has written everything.
        inputs = {name: _artifact(record) for name, record in request["inputs"].items()}
        self._call(component, configuration, {**inputs, "ctx": context})
        if context.rank == 0 and not any(context.output.iterdir()):
            raise PluginError(
                f"{describe(component.function)} wrote nothing", "It writes its result into `ctx.output`."
            )
        _finish_notes(context, None)
        return {}

    def _validate(self, request: Request) -> dict[str, Any]:
        """What gives a report: it measures a subject that is loaded for it, or only looks at its inputs."""
        component, configuration = self._component(request)
        context = self._context(request, component)
        inputs: dict[str, Any] = {"ctx": context}
        for name, record in request["inputs"].items():
            runtime = request["runtimes"].get(name)
            if runtime:
                inputs[name] = self._remember(self._load(runtime, record, context), runtime, record, request)
            else:
                inputs[name] = _artifact(record)
        self._call(component, configuration, inputs)
        _check_metrics(component, request["config"], context)
        _finish_notes(context, None)
        return {}

    def _load(self, runtime: Mapping[str, Any], record: Mapping[str, Any], context: Context) -> Generator:
        component = self._registry.runtime(runtime["name"])
        artifact = _artifact(record)
        generator: Generator = self._call(
            component, component.arguments(runtime["config"]), {artifact.kind: artifact, "ctx": context}
        )
        return generator

    def _remember(
        self, generator: Generator, runtime: Mapping[str, Any], record: Mapping[str, Any], request: Request
    ) -> Generator:
        component = self._registry.runtime(runtime["name"])
        identity = json.dumps([dict(runtime), provenance.code_of(component), provenance.versions_of(component)])
        return Remembering(generator, Path(request["generations"]) / record["hash"], identity)

    def _count(self, request: Request) -> dict[str, Any]:
        """How many rows of a dataset a split has."""
        data = _artifact(request["input"])
        assert isinstance(data, Dataset)
        rows = data.scan().filter(pl.col("split") == request["split"]).select(pl.len()).collect()
        return {"rows": int(rows.item())}

    def _generate(self, request: Request) -> dict[str, Any]:
        subject, runtime = request["subject"], request["runtime"]
        context = self._context(request, self._registry.runtime(runtime["name"]))
        generator = self._load(runtime, subject, context)
        prompts, limit, sampling = request["prompts"], request["max_new_tokens"], Sampling(**request["sampling"])
        if not sampling.temperature:
            return {"completions": generator.generate(prompts, max_new_tokens=limit)}
        model = streaming(generator, runtime["name"])
        streams = (model.open(prompt, max_new_tokens=limit, sampling=sampling) for prompt in prompts)
        return {"completions": ["".join(token.text for token in completed(stream)) for stream in streams]}

    def _convert(self, request: Request) -> dict[str, Any]:
        """Read rows from a user's file into shards, or write shards to one: for `plugins run`."""
        source, target = Path(request["input"]), Path(request["target"])
        if source.is_dir():
            rowfiles.write_rows(pl.concat(list(Dataset.at(source, "").frames())), target)
            return {}
        notes = Path(request["notes"])
        context = Context(seed=0, output=target, checkpoint=target, notes=notes, emit=self._emit, fetch=fetch)
        writer = ShardWriter(target)
        rows = frames.SourceRows(source.name, str(source)).complete(rowfiles.read_documents(source, context))
        # Some rows of a file may say where they are from and what belongs to them, and others not.
        rows = rows.with_columns(pl.col("source").fill_null(source.name), pl.col("group").fill_null(pl.col("id")))
        writer.write(rows, str(source))
        writer.close()
        return {"rows": writer.total, "quarantined": _quarantined_lines(context)}


def _artifact(record: Mapping[str, Any]) -> Artifact:
    return ARTIFACTS[record["kind"]].at(Path(record["path"]), record["form"], record["hash"])


def _answers_for_rows(parts: Sequence[Component]) -> int:
    """The place of the one that is named where the shards of a pass do not fit together.

    Within a shard each part is checked by itself. New ids and splits come from parts that may add rows, nearly
    always one: the last of them, or else the last part.
    """
    adding = [index for index, part in enumerate(parts) if part.stage.name not in frames.STAGES_THAT_KEEP_IDS]
    return adding[-1] if adding else len(parts) - 1


def _dataset_outcome(
    component: Component, data: Artifact | None, result: Dataset, context: Context, added: int
) -> Outcome:
    if isinstance(data, Dataset):
        redacts = component.declared.redacts
        return compare(data.scan(), result.scan(), context.quarantined, redacts=redacts)
    return Outcome(Counts(added=added, quarantined=_quarantined_lines(context)))


def _quarantined_lines(context: Context) -> int:
    path = context.quarantine_file
    if not path.exists():
        return 0
    with path.open("rb") as file:
        return sum(1 for _ in file)


def _check_metrics(component: Component, configuration: Mapping[str, Any], context: Context) -> None:
    """Hold a validator to what it says of its metrics: gates are planned by that."""
    said = component.metrics(configuration)
    unsaid = sorted(set(context.metrics) - set(said)) if said is not None else []
    if unsaid:
        raise PluginError(
            f"{describe(component.function)} records {', '.join(unsaid)}, which its `metrics` do not name",
            "Name every metric that it may record in `@component(metrics=…)`, or leave that out.",
        )


def _finish_notes(context: Context, outcome: Outcome | None) -> None:
    context.save_metrics()
    if outcome is not None:
        text = json.dumps(asdict(outcome), ensure_ascii=False, indent=1)
        (context.notes / "outcome.json").write_text(text, encoding="utf-8")


def _join_notes(shards: Sequence[Path], target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    total = Outcome()
    metrics: dict[str, float] = {}
    for shard in shards:
        record = json.loads((shard / "outcome.json").read_text(encoding="utf-8"))
        total.counts += Counts(**record["counts"])
        for name, samples in record["samples"].items():
            total.samples[name] = [*total.samples.get(name, []), *samples][:SAMPLES]
        for metric in json.loads((shard / "metrics.json").read_text(encoding="utf-8")):
            metrics[metric["name"]] = metrics.get(metric["name"], 0.0) + metric["value"]
    _join_files(shards, "quarantine.jsonl", target)
    _join_tables(shards, target)
    for figure in sorted({path.name for shard in shards for path in shard.glob("figures/*.svg")}):
        raise PluginError(
            f"a frame component drew the figure {figure!r}", "It sees one shard only: draw from a `data` component."
        )
    records = [
        {"name": name, "value": value, "per_example": None, "weights": None, "aggregate": "mean"}
        for name, value in metrics.items()
    ]
    (target / "metrics.json").write_text(json.dumps(records, indent=1), encoding="utf-8")
    (target / "outcome.json").write_text(json.dumps(asdict(total), ensure_ascii=False, indent=1), encoding="utf-8")


def _join_files(shards: Iterable[Path], name: str, target: Path) -> None:
    parts = [shard / name for shard in shards if (shard / name).exists()]
    if parts:
        with (target / name).open("wb") as joined:
            for part in parts:
                joined.write(part.read_bytes())


def _join_tables(shards: Sequence[Path], target: Path) -> None:
    for name in sorted({path.name for shard in shards for path in shard.glob("tables/*.parquet")}):
        (target / "tables").mkdir(exist_ok=True)
        parts = [pl.read_parquet(shard / "tables" / name) for shard in shards if (shard / "tables" / name).exists()]
        pl.concat(parts).write_parquet(target / "tables" / name)
