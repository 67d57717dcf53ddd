"""A realistic run: real store, real records, the tables that the first-party plugins write."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from luthier import Run
from luthier.context import Metric
from luthier.gates import judge, parse_gate
from luthier.runrecord import GateResult, NodeResult, RunData, StepResult
from luthier.runs import create_run
from luthier.store import StepRecord, Store
from luthier.testing import make_context

EXAMPLES = 120
RECIPE = """luthier: 1
name: docstring-summaries
seed: 7
steps:
  - source: docstrings
    packages: installed
  - clean: unicode
  - clean: near-duplicates
    threshold: 0.8
  - bias: toxicity
  - format: summarization
  - architecture: pretrained
    model: hf:HuggingFaceTB/SmolLM2-135M-Instruct@0123456789abcdef0123456789abcdef01234567
  - tune: lora
    rank: 16
    max_minutes: 4
  - export: genai
  - quantize: int8
  - validate: rouge
    gate: {rougeL: {at_least: base + 0.10, confidence: 0.95}}
  - validate: parity
    gate: {mean_kl: {at_most: 0.02}}
"""
HOSTILE = "<script>alert('x')</script><img src=x onerror=alert(1)> \x00 \u202etxet & \"quotes\""
FIGURE = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 300 60" width="300"><script>alert(2)</script>'
    '<text x="8" y="20">Groups that are mentioned</text>'
    '<rect x="8" y="30" width="200" height="18" fill="#2f6f9f"/></svg>'
)

Counts = Mapping[str, int]


class RunBuilder:
    """Makes steps one by one, each committed to the store as the engine does it."""

    def __init__(self, root: Path) -> None:
        self.store = Store(root / "store")
        self.store.prepare()
        self.scratch = root / "scratch"
        self._number = 0
        environment = {
            "python": "3.11.9",
            "platform": "Linux-6.1-x86_64",
            "distributions": {"luthier": "0.1.0", "luthier-text": "0.1.0", "polars": "1.35.0", "Jinja2": "3.1.6"},
        }
        self.data = RunData(
            id="20261122-224000-docstring-summaries",
            recipe="docstring-summaries",
            recipe_file="/home/someone/recipe.yaml",
            seed=7,
            started="2026-11-22T22:40:00+00:00",
            finished="2026-11-22T22:49:31+00:00",
            seconds=571.3,
            environment=environment,
            state="done",
        )

    def step(
        self, id: str, stage: str, component: str, *, seconds: float = 1.0, config: Any = None, **more: Any
    ) -> StepResult:
        result = StepResult(id, stage, component, state="done", seconds=seconds, **more)
        self.data.steps.append(result)
        self._config = config or {}
        return result

    def note(
        self,
        step: StepResult,
        *,
        subject: str = "",
        metrics: Mapping[str, Any] | None = None,
        tables: Mapping[str, pl.DataFrame] | None = None,
        figures: Mapping[str, str] | None = None,
        outcome: Mapping[str, Any] | None = None,
        quarantine: list[tuple[str, str]] | None = None,
        seconds: float = 1.0,
        model: str = "",
        reference: str = "",
    ) -> None:
        """Write notes with the engine's own context, and commit them."""
        self._number += 1
        work = self.scratch / str(self._number)
        context = make_context(work)
        notes = work / "notes" / "0"
        notes.mkdir(parents=True)
        context.notes = notes
        for name, values in (metrics or {}).items():
            metric = values if isinstance(values, Metric) else Metric(name, float(values))
            context.metric(
                name, metric.value, per_example=metric.per_example, weights=metric.weights, aggregate=metric.aggregate
            )
            step.metrics[f"{subject}.{name}" if subject not in ("", "candidate") else name] = metric.value
        for name, table in (tables or {}).items():
            context.table(name, table)
        for name, svg in (figures or {}).items():
            context.figure(name, svg)
        for record, reason in quarantine or []:
            context.quarantine(record, reason, where="corpus.jsonl:17")
        context.save_metrics()
        if outcome is not None:
            (notes / "outcome.json").write_text(json.dumps(outcome), encoding="utf-8")
            step.counts = dict(outcome["counts"])
        report = self.store.commit(work / "notes", "report", "report")
        if step.stage == "validate" and not step.artifact:
            step.artifact = report.hash
        key = f"{self._number:064x}"
        models = {"subject": model, "reference": reference}
        ingredients = {
            "parts": [
                {
                    "component": step.component,
                    "plugin": "report",
                    "code": "ab" * 32,
                    "requires": {"polars": "1.35.0"},
                    "config": self._config,
                }
            ],
            "inputs": {"data": "cd" * 32, **{name: of for name, of in models.items() if of}},
            "runtimes": {},
            "seed": 7,
        }
        step.nodes.append(NodeResult(f"{step.id}@{subject}", subject, key, report.hash, 0, ingredients))
        self.store.record(StepRecord(key, step.stage, step.component, {}, report.hash, report.hash, seconds))

    def give(self, step: StepResult, kind: Any, form: str, files: Mapping[str, bytes]) -> None:
        """Commit what a step gave."""
        work = self.scratch / f"{step.id}-output"
        for name, content in files.items():
            (work / name).parent.mkdir(parents=True, exist_ok=True)
            (work / name).write_bytes(content)
        step.artifact = self.store.commit(work, kind, form).hash
        step.kind, step.form = kind, form

    def finish(self) -> Run:
        run = create_run(self.store, self.data)
        (run.path / "recipe.yaml").write_text(RECIPE, encoding="utf-8")
        if run.state == "done" and any(step.kind in ("model", "onnx") for step in run.steps):
            self.store.export(run.model(), run.model_path)
        run.save()
        return run


def outcome(
    documents_in: int, dropped: int = 0, changed: int = 0, added: int = 0, quarantined: int = 0
) -> dict[str, Any]:
    counts = {
        "documents_in": documents_in,
        "kept": documents_in - dropped,
        "changed": changed,
        "dropped": dropped,
        "quarantined": quarantined,
        "added": added,
    }
    samples: dict[str, list[dict[str, str]]] = {}
    if dropped:
        samples["dropped"] = [
            {"id": "d1", "before": HOSTILE},
            {"id": "d2", "before": "Return the value.\nReturn the value."},
        ]
    if changed:
        samples["changed"] = [
            {"id": "c1", "before": "The cafÃ© is  open, donâ€™t wait.\t", "after": "The café is open, don't wait."},
            {"id": "c2", "before": HOSTILE, "after": HOSTILE.replace("alert", "warn")},
        ]
    return {"counts": counts, "samples": samples}


def generations(rng: random.Random, quality: float) -> tuple[pl.DataFrame, Metric]:
    scores = [min(max(rng.gauss(quality, 0.12), 0.0), 1.0) for _ in range(EXAMPLES)]
    frame = pl.DataFrame(
        {
            "id": [f"row-{index:03d}" for index in range(EXAMPLES)],
            "prompt": [
                f"Summarize in one line:\nReturn the number {index} as a string. {HOSTILE if index == 3 else ''}"
                for index in range(EXAMPLES)
            ],
            "reference": [f"Return {index} as a string." for index in range(EXAMPLES)],
            "output": [f"The function returns {index}. {HOSTILE}" for index in range(EXAMPLES)],
            "rougeL": scores,
        }
    )
    return frame, Metric("rougeL", sum(scores) / EXAMPLES, tuple(scores))


def data_part(builder: RunBuilder) -> None:
    source = builder.step("docstrings", "source", "docstrings", seconds=9.2, config={"packages": "installed"})
    builder.note(
        source,
        outcome=outcome(0, added=24310, quarantined=3),
        quarantine=[(HOSTILE, "not UTF-8"), ("\ud800 half", "lone surrogate"), ("{", "not JSON")],
    )
    unicode = builder.step("unicode", "clean", "unicode", seconds=0.0)
    builder.note(unicode, outcome=outcome(24310, changed=412))
    near = builder.step("near-duplicates", "clean", "near-duplicates", seconds=4.4, config={"threshold": 0.8})
    builder.note(near, outcome=outcome(24310, dropped=6120))
    toxic = builder.step("toxicity", "bias", "toxicity", seconds=2.0, config={"lexicon": "wheel:alt==1.0/words.csv"})
    table = pl.DataFrame({"term": ["<b>bad</b>", "worse"], "category": ["insult", "threat"], "documents": [4, 1]})
    builder.note(
        toxic,
        outcome=outcome(18190, dropped=5),
        tables={"toxicity": table},
        figures={"representation": FIGURE},
        metrics={"documents_dropped": 5},
    )
    formatted = builder.step(
        "summarization",
        "format",
        "summarization",
        seconds=1.1,
        config={"prompt": "Summarize in one line:\n{text}", "split": {"valid": 0.02, "test": 0.05}},
    )
    builder.note(formatted, outcome=outcome(18185, dropped=4100))
    shard = builder.scratch / "shard.parquet"
    builder.scratch.mkdir(exist_ok=True)
    pl.DataFrame(
        {"id": [str(n) for n in range(100)], "split": ["train"] * 90 + ["valid"] * 4 + ["test"] * 6}
    ).write_parquet(shard)
    builder.give(formatted, "dataset", "prompt-completion", {"shard-00000.parquet": shard.read_bytes()})


def model_part(builder: RunBuilder) -> None:
    rng = random.Random(5)
    base = builder.step(
        "pretrained",
        "architecture",
        "pretrained",
        seconds=6.0,
        config={"model": "hf:HuggingFaceTB/SmolLM2-135M-Instruct@0123456789abcdef0123456789abcdef01234567"},
    )
    builder.note(base)
    builder.give(base, "model", "causal-lm", {"model.safetensors": bytes(2_690_000), "config.json": b"{}"})
    lora = builder.step(
        "lora",
        "tune",
        "lora",
        seconds=251.0,
        config={"rank": 16, "learning_rate": 5e-4, "max_minutes": 4.0, "max_steps": None},
    )
    steps = range(1, 181)
    curve = pl.DataFrame(
        {
            "step": list(steps),
            "loss": [3.4 * 0.992**step + 1.2 + rng.gauss(0, 0.2) for step in steps],
            "tokens": [512] * 180,
            "seconds": [1.3] * 180,
        }
    )
    validation = pl.DataFrame({"step": [0, 60, 120, 180], "loss": [3.9, 2.9, 2.5, 2.37]})
    builder.note(
        lora,
        tables={"learning-curve": curve, "validation-losses": validation},
        metrics={"steps": 180, "train_loss": 2.1, "valid_loss": 2.37},
    )
    builder.give(lora, "model", "causal-lm", {"model.safetensors": b"t" * 2_690_000, "config.json": b"{}"})
    genai = builder.step("genai", "export", "genai", seconds=31.0)
    builder.note(genai)
    builder.give(genai, "onnx", "genai", {"model.onnx": b"o" * 9000, "model.onnx.data": b"o" * 2_690_000})
    packed = builder.step("int8", "quantize", "int8", seconds=12.0, config={"block_size": 64})
    builder.note(packed)
    builder.give(
        packed,
        "onnx",
        "genai",
        {"model.onnx": b"o" * 9000, "model.onnx.data": b"o" * 1_700_000, "README.md": b"the base's card"},
    )


def validation_part(builder: RunBuilder, base_quality: float = 0.148) -> None:
    rouge = builder.step("rouge", "validate", "rouge", seconds=160.0, kind="report", config={"split": "test"})
    records: dict[str, list[dict[str, Any]]] = {}
    for subject, quality, seconds in (
        ("candidate", 0.31, 21.0),
        ("base", base_quality, 83.0),
        ("reference", 0.312, 80.0),
    ):
        frame, metric = generations(random.Random(subject), quality)
        builder.note(rouge, subject=subject, tables={"generations": frame}, metrics={"rougeL": metric}, seconds=seconds)
        records[subject] = [
            {
                "name": "rougeL",
                "value": metric.value,
                "per_example": metric.per_example,
                "weights": None,
                "aggregate": "mean",
            }
        ]
    parity = builder.step("parity", "validate", "parity", seconds=40.0, kind="report")
    kl = tuple(abs(random.Random(9).gauss(0.005, 0.002)) for _ in range(EXAMPLES))
    builder.note(
        parity,
        subject="candidate",
        metrics={"mean_kl": Metric("mean_kl", sum(kl) / EXAMPLES, kl), "decode_tokens_per_second": 71.5},
    )
    parity_records = {"candidate": [{"name": "mean_kl", "value": sum(kl) / EXAMPLES, "per_example": list(kl)}]}
    decide(builder, "rouge", {"rougeL": {"at_least": "base + 0.10", "confidence": 0.95}}, records)
    decide(builder, "parity", {"mean_kl": {"at_most": 0.02}}, parity_records)


def decide(builder: RunBuilder, step: str, gate: Mapping[str, Any], records: Mapping[str, Any]) -> None:
    for bound in parse_gate(gate):
        decision = judge(bound, records["candidate"], records.get(bound.subject or ""), seed=7)
        builder.data.gates.append(GateResult.of(step, decision))


@pytest.fixture
def builder(tmp_path: Path) -> RunBuilder:
    return RunBuilder(tmp_path)


@pytest.fixture
def whole_run(builder: RunBuilder) -> Run:
    """Data, model, validation: a run that is done."""
    data_part(builder)
    model_part(builder)
    validation_part(builder)
    return builder.finish()


@pytest.fixture
def parts() -> dict[str, Callable[..., None]]:
    """The parts of a run, for those that are made in another way."""
    return {"data": data_part, "model": model_part, "validation": validation_part}
