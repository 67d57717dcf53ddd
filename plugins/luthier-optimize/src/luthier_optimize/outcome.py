"""What came out: what was measured of each route, as it is kept in optimize.json."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from luthier import InputError
from luthier_report.pages import write

VERSION = 1
FILE = "optimize.json"


@dataclass
class Tried:
    """A route with what was measured of it.

    Attributes:
        label: the route for people; `float32` is the model as it is.
        steps: its steps, as a recipe has them.
        form: of the exported model.
        error: why it could not be gone to its end, or why it was left out; empty where it was measured.
        left_out: whether it was left out before its model was measured, and not failed.
        model: the hash of the exported model.
        path: where it lies.
        bytes: of its files.
        mean_kl: from the model in float32, in nats a token, with half of its 95% interval.
        mean_kl_margin: that half.
        top1: the share of tokens where both find the same token most probable.
        perplexity: on the held-out text.
        task: the metrics of the recipe's own validators, by name.
        tokens: of the held-out text that it was measured on.
        times: medians over the rounds; see `timing`.
        ratios: of speeds, medians of the rounds' ratios to the model in float32 in the same round.
    """

    label: str
    steps: list[dict[str, Any]] = field(default_factory=list)
    form: str = ""
    error: str = ""
    left_out: bool = False
    model: str = ""
    path: str = ""
    bytes: int = 0
    mean_kl: float | None = None
    mean_kl_margin: float | None = None
    top1: float | None = None
    perplexity: float | None = None
    task: dict[str, float] = field(default_factory=dict)
    tokens: int = 0
    times: dict[str, float] = field(default_factory=dict)
    ratios: dict[str, float] = field(default_factory=dict)


@dataclass
class Outcome:
    """The whole search.

    Attributes:
        model, texts: what was optimized, and what was held out.
        goal: what a model was looked for.
        limits: what it has to keep to, by name.
        baseline: the model as it is.
        tried: the routes, in the order in which they were tried.
        chosen: the label of the chosen one; empty where none keeps to the limits.
        refused: why a gate of the user's own recipe refuses the chosen one; empty where none does.
        missed: where none does, the nearest one and by how much it misses.
        front: the labels on the Pareto front.
        machine, timing: where and how times were taken.
        failures: why a route's step failed, by its key: the same input would fail again.
    """

    model: str
    texts: str
    goal: str
    limits: dict[str, float]
    baseline: Tried
    tried: list[Tried] = field(default_factory=list)
    chosen: str = ""
    refused: str = ""
    missed: str = ""
    front: list[str] = field(default_factory=list)
    machine: dict[str, Any] = field(default_factory=dict)
    timing: dict[str, Any] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)

    @property
    def measured(self) -> list[Tried]:
        """The routes that were gone to their end."""
        return [each for each in self.tried if not each.error]

    def named(self, label: str) -> Tried:
        """The one of that label."""
        return next(each for each in (self.baseline, *self.tried) if each.label == label)


def write_json(path: Path, record: Mapping[str, Any]) -> None:
    """Write a JSON file whole or not at all; makes its directory.

    Raises:
        InputError: if it cannot be written.
    """
    make_directory(path.parent)
    write(path, json.dumps(record, ensure_ascii=False, indent=1) + "\n")


def make_directory(path: Path) -> None:
    """Make a directory for what comes out, if it is not there.

    Raises:
        InputError: if it cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{path} cannot be made: {error.strerror}", "Name another directory: --output DIR") from error


def save(outcome: Outcome, directory: Path) -> None:
    """Write optimize.json."""
    write_json(directory / FILE, {"version": VERSION, **asdict(outcome)})


def known_failures(directory: Path) -> dict[str, str]:
    """Why steps failed in an earlier search, by their key; empty where there was none, or it is of another version."""
    try:
        record = json.loads((directory / FILE).read_text(encoding="utf-8"))
        return dict(record["failures"]) if record["version"] == VERSION else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}
