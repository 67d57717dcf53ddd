"""A component of every stage, small enough to see through: what the engine's tests run."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import polars as pl

from luthier import Context, Dataset, InputError, Location, Model, OnnxModel, Score, component, hookimpl

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


def check_device(name: str) -> None:
    """There is a loom."""
    if name != "loom":
        raise InputError(f"there is no {name} here", "Use the loom.")


@component(needs={"data": {"prompt-completion"}, "model": {"toy-lm"}}, check_device=check_device)
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


@component(processes=True, check_device=check_device)
def choir(model: Model, ctx: Context, *, processes: int = 2, fail: str = "") -> None:
    """Each of the processes says where it is; the first waits for the others and writes down what they said.

    Args:
        fail: what befalls the last process: `refuse`, `value`, `exit` or `sleep`.
    """
    import os

    said = ctx.checkpoint / "said"
    said.mkdir(exist_ok=True)
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
    text = json.dumps({name: int(os.environ[name]) for name in names if name in os.environ})
    (said / f"{ctx.rank}.tmp").write_text(text)
    (said / f"{ctx.rank}.tmp").rename(said / f"{ctx.rank}.json")
    ctx.log.warning("process %d sings", ctx.rank)
    if fail and ctx.rank == processes - 1:
        if fail == "refuse":
            raise InputError("the last voice is hoarse", "Give it honey.")
        if fail == "exit":
            os._exit(7)
        if fail == "sleep":
            time.sleep(3600)
        raise ValueError("the last voice is hoarse")
    while ctx.rank == 0 and len(list(said.glob("*.json"))) < processes:
        time.sleep(0.01)
    heard = {path.stem: json.loads(path.read_text()) for path in sorted(said.glob("*.json"))}
    ctx.progress(ctx.rank, processes)
    ctx.metric("voices", len(heard))
    if ctx.rank == 0:
        (ctx.output / "model.json").write_text(json.dumps(heard, sort_keys=True))


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


@component(metrics=("accuracy", "initials"))
def accuracy(subject: Memory, data: Dataset, ctx: Context, *, split: str = "test") -> None:
    """The share of right answers, and of those that begin rightly."""
    rows = data.frame(split)
    answers = subject.generate(rows["prompt"].to_list())
    right = [float(answer == wanted) for answer, wanted in zip(answers, rows["completion"], strict=True)]
    ctx.metric("accuracy", sum(right) / len(right), per_example=right)
    begun = [float(answer[:1] == wanted[:1]) for answer, wanted in zip(answers, rows["completion"], strict=True)]
    ctx.metric("initials", sum(begun) / len(begun), per_example=begun)
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
    return [teach, choir]


def one_by_one(job):
    """One process after the other, the first one last, since it waits for the others."""
    for rank in reversed(range(job.processes)):
        heard = []
        job.do(rank, heard.append)
        yield from heard


def forgetful(job, *, told: int = 1):
    """Only some of the processes."""
    for rank in range(told):
        job.do(rank + 1, lambda message: None)
        yield {"type": "done", "rank": rank + 1}


@hookimpl
def luthier_executors():
    return [one_by_one, forgetful]


@hookimpl
def luthier_exporters():
    return [freeze]


@hookimpl
def luthier_runtimes():
    return [transformers, onnxruntime_genai]


@hookimpl
def luthier_validators():
    return [accuracy, agreement]
