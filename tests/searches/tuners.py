"""Tuners whose validation loss is known beforehand, and what they need around them."""

from __future__ import annotations

import json
import time
from typing import Annotated, Any, Literal

import polars as pl
from annotated_types import Ge, Gt

from luthier import Context, Dataset, InputError, Location, Model, Score, Search, component, hookimpl


@component(gives="prompt-completion")
def pairs(*, valid: int = 2) -> pl.DataFrame:
    """Make eight examples, of which `valid` are for validation."""
    rows = [
        {
            "id": f"row-{row}",
            "group": f"row-{row}",
            "split": "valid" if row < valid else "train",
            "prompt": str(row),
            "completion": str(2 * row),
        }
        for row in range(8)
    ]
    return pl.DataFrame(rows)


@component(gives="toy-lm")
def blank(ctx: Context) -> None:
    """A model that knows nothing."""
    (ctx.output / "model.json").write_text("{}")


def check_validated(*, measured: bool, **_: object) -> None:
    """Refuse to compare what is not validated."""
    if not measured:
        raise InputError("nothing is validated, so candidates cannot be compared", "Leave `measured` out.")


BUDGETS = {"max_steps": "steps", "max_minutes": "minutes"}


@component(search=Search("valid_loss", budgets=BUDGETS, check=check_validated))
def fit(
    model: Model,
    data: Dataset,
    ctx: Context,
    *,
    rank: Annotated[int, Ge(1)] = 8,
    rate: Annotated[float, Gt(0)] = 0.1,
    targets: Literal["all"] | list[str] = "all",
    words: Location | None = None,
    measured: bool = True,
    pause: float = 0.0,
    max_steps: Annotated[int, Ge(1)] | None = None,
    max_minutes: Annotated[float, Gt(0)] | None = None,
) -> None:
    """Pretend to learn: the loss falls with the steps, to what the distance of `rank` from 12 leaves."""
    with open("/dev/null" if not words else ctx.open(words)) as file:
        file.read()
    budget = max_steps or max_minutes or 9
    time.sleep(pause)
    ctx.progress(budget, budget)
    if rate > 1:
        raise InputError(f"training diverged: the loss is nan at the rate {rate:g}", "Lower the rate.")
    if rank == 13 and budget >= 9:
        raise InputError("training diverged late", "Lower the rank.")
    if rank == 666:
        raise ValueError("a bug")
    loss = abs(rank - 12) + rate + 10 / budget + (0.5 if targets == ["q"] else 0.0)
    if measured:
        ctx.metric("valid_loss", loss)
    ctx.metric("steps", budget)
    (ctx.output / "model.json").write_text(json.dumps({"rank": rank, "rate": rate, "budget": budget}))


@component(search=Search("score", better="higher", split=None))
def climb(model: Model, ctx: Context, *, height: int = 1) -> None:
    """Report the height as the score, without any data; of height 0 nothing."""
    if height:
        ctx.metric("score", height)
    (ctx.output / "model.json").write_text(json.dumps({"height": height}))


def plain(model: Model, ctx: Context, *, size: int = 1) -> None:
    """A tuner that does not say how its results compare."""
    (ctx.output / "model.json").write_text(json.dumps({"size": size}))


class Told:
    """Says of a model what it holds."""

    def __init__(self, known: dict[str, Any]) -> None:
        self._known = known

    def generate(self, prompts, *, max_new_tokens=128, stop=()):
        return [json.dumps(self._known) for _ in prompts]

    def score(self, prompts, completions):
        return [Score((0.0,)) for _ in prompts]

    def logits(self, prompts, completions):
        raise NotImplementedError


def transformers(model: Model) -> Told:
    """Load what it holds."""
    return Told(json.loads((model.path / "model.json").read_text()))


def judge(subject: Told, ctx: Context) -> None:
    """Report the rank of the model that it is given."""
    ctx.metric("rank", json.loads(subject.generate(["?"])[0]).get("rank", 0))


@hookimpl
def luthier_sources():
    return [pairs]


@hookimpl
def luthier_architectures():
    return [blank]


@hookimpl
def luthier_tuners():
    return [fit, climb, plain]


@hookimpl
def luthier_runtimes():
    return [transformers]


@hookimpl
def luthier_validators():
    return [judge]
