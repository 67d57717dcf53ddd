"""The model card: `README.md` in Hugging Face form, in the directory of the model that a run exported.

The form of the metadata: https://huggingface.co/docs/hub/model-cards. The licence is left out, because
it depends on the base model's and the data's, which the run does not know.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from luthier import Run, StepResult
from luthier_report import _values
from luthier_report._comparison import SUBJECT_TITLES, Comparison, comparisons
from luthier_report._funnel import data_steps, splits
from luthier_report._limitations import limitations
from luthier_report._lineage import configuration_of, environment, flatten, lineage
from luthier_report._page import templates
from luthier_report._recipe import base_model, hub_id
from luthier_report._sizes import model_sizes

TASK = "text-generation"
HUB_METRICS = {"rouge": "rouge", "bleu": "bleu", "perplexity": "perplexity", "accuracy": "accuracy", "f1": "f1"}


@dataclass(frozen=True)
class Usage:
    """How the model is loaded: kind and form name the snippet; `path` is where the run put it."""

    kind: str
    form: str
    path: str


def model_card(run: Run) -> str:
    """The card's text."""
    compared = comparisons(run)
    data = data_steps(run)
    context = {
        "run": run.data,
        "front_matter": front_matter(metadata(run, compared)),
        "base": _shown_base(run),
        "sources": [(step, _parameters(run, step.id)) for step in data if step.stage == "source"],
        "data": data,
        "formatters": [(step, flatten(configuration_of(step))) for step in _of(run, "format")],
        "splits": splits(run),
        "tuned": [(step, flatten(configuration_of(step))) for step in _of(run, "tune")],
        "pruned": [(step, flatten(configuration_of(step))) for step in _of(run, "prune")],
        "exported": [(step, flatten(configuration_of(step))) for step in _of(run, "export", "quantize")],
        "comparisons": [one for one in compared if one.rows],
        "subject_titles": SUBJECT_TITLES,
        "limitations": limitations(run, compared, data),
        "sizes": model_sizes(run),
        "usage": Usage(_newest_model(run).kind, _newest_model(run).form, str(run.model_path)),
        "lineage": [step for step in lineage(run) if step.keys],
        "environment": environment(run),
    }
    return templates().get_template("card.md").render(context)


def metadata(run: Run, compared: list[Comparison]) -> dict[str, Any]:
    """The card's metadata, in the hub's terms."""
    model = _newest_model(run)
    found: dict[str, Any] = {
        "pipeline_tag": TASK,
        "library_name": "onnx" if model.kind == "onnx" else "transformers",
        "tags": [
            "luthier",
            *(["onnx"] if model.kind == "onnx" else []),
            *(["onnxruntime-genai"] if model.form == "genai" else []),
            *(_plain(step.component) for step in _of(run, "tune")),
        ],
    }
    hub = hub_id(base_model(run))
    if hub:
        found["base_model"] = hub
    results = _results(run, compared)
    if results:
        found["metrics"] = sorted({metric["type"] for result in results for metric in result["metrics"]})
        found["model-index"] = [{"name": _plain(run.data.recipe), "results": results}]
    return found


def front_matter(values: Mapping[str, Any]) -> str:
    """The metadata as YAML, without the lines that fence it.

    Strings are quoted as in JSON, which YAML 1.1 and 1.2 read alike: a plain `yes` is a truth to the one
    and a text to the other.
    """
    return "".join(f"{line}\n" for line in _yaml_lines(values))


def _yaml_lines(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if isinstance(inner, (Mapping, list)):
                yield f"{key}:"
                yield from (f"  {line}" for line in _yaml_lines(inner))
            else:
                yield f"{key}: {json.dumps(inner, ensure_ascii=False)}"
    elif isinstance(value, list):
        for inner in value:
            first, *others = _yaml_lines(inner)
            yield f"- {first}"
            yield from (f"  {line}" for line in others)
    else:
        yield json.dumps(value, ensure_ascii=False)


def _results(run: Run, compared: list[Comparison]) -> list[dict[str, Any]]:
    """One result for each split, with the metrics of all validators on it."""
    found: dict[str, list[dict[str, Any]]] = {}
    for one in compared:
        for row in one.rows:
            value = row.values["candidate"]
            if math.isfinite(value) and not row.is_baseline:
                name = f"{_plain(one.step)} {_plain(row.name)}"
                found.setdefault(one.split, []).append({"type": _hub_metric(row.name), "value": value, "name": name})
    return [
        {"task": {"type": TASK}, "dataset": _dataset(run, split), "metrics": metrics}
        for split, metrics in found.items()
    ]


def _hub_metric(name: str) -> str:
    return next((hub for word, hub in HUB_METRICS.items() if _is_of(name.lower(), word)), _plain(name))


def _is_of(name: str, family: str) -> bool:
    """Whether `rouge1` or `rougeL` is of `rouge`; `perplexity_ratio` is no perplexity."""
    return re.fullmatch(rf"{re.escape(family)}[a-z0-9]*", name) is not None


def _dataset(run: Run, split: str) -> dict[str, str]:
    names = [_plain(step.component) for step in _of(run, "source")] or [_plain(run.data.recipe)]
    return {"type": "-".join(names), "name": ", ".join(names), **({"split": split} if split else {})}


def _plain(text: str) -> str:
    return " ".join(_values.displayable(text).split())


def _of(run: Run, *stages: str) -> list[StepResult]:
    return [step for step in run.steps if step.stage in stages]


def _newest_model(run: Run) -> StepResult:
    return next(step for step in reversed(run.steps) if step.kind in ("model", "onnx") and step.artifact)


def _parameters(run: Run, step: str) -> list[tuple[str, str]]:
    return flatten(configuration_of(run.step(step)))


def _shown_base(run: Run) -> str:
    """The base model's location; of an absolute path the name only, for a card travels."""
    location = base_model(run)
    return PurePath(location).name if PurePath(location).is_absolute() else location
