"""A component of every stage, small enough to see through: what the engine's tests run."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import polars as pl

from luthier import Context, Dataset, Location, Model, OnnxModel, Score, component, hookimpl

WORDS = ["amber", "birch", "cedar", "delta", "ember", "fjord", "grove", "haven", "islet", "junco"]


def words(ctx: Context, *, count: int = 300, path: Location | None = None) -> Iterator[pl.DataFrame]:
    """Make documents of words, some of them twice."""
    extra = ctx.open(path).read_text().split() if path else []
    vocabulary = [*WORDS, *extra]
    for start in range(0, count, 100):
        rows = range(start, min(count, start + 100))
        texts = [" ".join(vocabulary[(row * step) % len(vocabulary)] for step in range(1, 4 + row % 5)) for row in rows]
        ctx.progress(start, count)
        yield pl.DataFrame({"text": texts, "source": [f"book-{row % 7}" for row in rows]})


def longer(frame: pl.DataFrame, ctx: Context, *, at_least: int = 20) -> pl.DataFrame:
    """Drop documents shorter than `at_least` characters."""
    gone = frame.filter(pl.col("text").str.len_chars() < at_least)
    ctx.table("gone", gone.select("id", "text"))
    ctx.metric("gone", gone.height)
    return frame.filter(pl.col("text").str.len_chars() >= at_least)


def capitals(frame: pl.DataFrame, *, word: str = "cedar") -> pl.DataFrame:
    """Write one word in capitals."""
    return frame.with_columns(pl.col("text").str.replace_all(word, word.upper(), literal=True))


def unique(data: Dataset) -> pl.DataFrame:
    """Keep the first of documents of the same text."""
    return data.frame().unique("text", keep="first", maintain_order=True)


@component(gives="prompt-completion")
def riddles(frame: pl.DataFrame) -> pl.DataFrame:
    """Ask for the last word."""
    words = pl.col("text").str.split(" ")
    return frame.select(
        "id",
        "group",
        pl.when(pl.col("id").str.slice(0, 1) < "4").then(pl.lit("test")).otherwise(pl.lit("train")).alias("split"),
        words.list.head(words.list.len() - 1).list.join(" ").alias("prompt"),
        words.list.last().alias("completion"),
    )


@component(gives="toy-lm")
def parrot(ctx: Context) -> None:
    """A model that knows nothing."""
    (ctx.output / "model.json").write_text(json.dumps({}))


@component(needs={"data": {"prompt-completion"}, "model": {"toy-lm"}})
def teach(model: Model, data: Dataset, ctx: Context, *, steps: int = 5, pause: float = 0.0, fail: str = "") -> None:
    """Learn answers by heart, a share a step, with a checkpoint after each."""
    if fail == "value":
        raise ValueError("the teacher is ill")
    if fail == "exit":
        import os

        os._exit(7)
    if fail == "memory":
        raise MemoryError("no room for the answers")
    if fail == "killed":
        import os
        import signal

        os.kill(os.getpid(), signal.SIGKILL)
    if fail == "hang":
        time.sleep(600)
    known = json.loads((model.path / "model.json").read_text())
    rows = data.frame("train").select("prompt", "completion").rows()
    saved = ctx.checkpoint / "known.json"
    done = 0
    if saved.exists():
        done, known = json.loads(saved.read_text())
    for step in range(done, steps):
        known |= dict(rows[step::steps])
        time.sleep(pause)
        temporary = ctx.checkpoint / "known.tmp"
        temporary.write_text(json.dumps([step + 1, known]))
        temporary.replace(saved)
        ctx.progress(step + 1, steps, known=len(known))
    ctx.metric("steps", steps)
    (ctx.output / "model.json").write_text(json.dumps(known, sort_keys=True))


@component(gives="toy-onnx")
def freeze(model: Model, ctx: Context, *, lossy: bool = False) -> None:
    """Write the answers down, without the last of them if `lossy`."""
    known = json.loads((model.path / "model.json").read_text())
    kept = dict(list(known.items())[:-5] if lossy else known)
    (ctx.output / "frozen.json").write_text(json.dumps(kept, sort_keys=True))


class Memory:
    """A Generator that says what it has by heart, and otherwise the first word of the prompt."""

    def __init__(self, path: Path) -> None:
        self._known: dict[str, str] = json.loads(path.read_text())

    def generate(self, prompts, *, max_new_tokens=128, stop=()):
        return [self._known.get(prompt, WORDS[len(prompt) % len(WORDS)]) for prompt in prompts]

    def score(self, prompts, completions):
        return [Score((0.0,)) for _ in prompts]

    def logits(self, prompts, completions):
        raise NotImplementedError


def transformers(model: Model, ctx: Context) -> Memory:
    """Load what was learnt."""
    return Memory(model.path / "model.json")


def onnxruntime_genai(onnx: OnnxModel) -> Memory:
    """Load what was written down."""
    return Memory(onnx.path / "frozen.json")


def accuracy(subject: Memory, data: Dataset, ctx: Context, *, split: str = "test") -> None:
    """The share of right answers."""
    rows = data.frame(split)
    answers = subject.generate(rows["prompt"].to_list())
    right = [float(answer == wanted) for answer, wanted in zip(answers, rows["completion"], strict=True)]
    ctx.metric("accuracy", sum(right) / len(right), per_example=right)
    ctx.table("answers", pl.DataFrame({"prompt": rows["prompt"], "answer": answers}))


def agreement(subject: Memory, reference: Memory, data: Dataset, ctx: Context) -> None:
    """The share of answers that are the reference's."""
    prompts = data.frame("train")["prompt"].to_list()
    pairs = zip(subject.generate(prompts), reference.generate(prompts), strict=True)
    same = [float(mine == theirs) for mine, theirs in pairs]
    ctx.metric("agreement", sum(same) / len(same), per_example=same)


@hookimpl
def luthier_sources():
    return [words]


@hookimpl
def luthier_cleaners():
    return [longer, capitals, unique]


@hookimpl
def luthier_formatters():
    return [riddles]


@hookimpl
def luthier_architectures():
    return [parrot]


@hookimpl
def luthier_tuners():
    return [teach]


@hookimpl
def luthier_exporters():
    return [freeze]


@hookimpl
def luthier_runtimes():
    return [transformers, onnxruntime_genai]


@hookimpl
def luthier_validators():
    return [accuracy, agreement]
