"""Models of bigrams of characters, with every kind of route that a plugin may give; no heavy library."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from annotated_types import Gt

from luthier import Context, Dataset, InputError, Model, OnnxModel, Score, component, hookimpl

ALPHABET = "\n abcdefghijklmnopqrstuvwxyz.:,"
END = 0
PLENTY = 5_000


@component(gives="bigrams")
def bigrams(ctx: Context) -> None:
    """Write a table of random logits; the end is never the most likely."""
    table = np.random.default_rng(ctx.seed).normal(size=(len(ALPHABET), len(ALPHABET))).astype(np.float32) * 2
    table[:, END] -= 20
    np.save(ctx.output / "table.npy", table)
    (ctx.output / "config.json").write_text(json.dumps({"max_position_embeddings": 512}))


@component(gives="table", needs={"model": {"bigrams"}})
def plain(model: Model, ctx: Context, *, padding: Literal["much", "none"] = "much") -> None:
    """Write the table with a lot of padding, as graphs have it; what was chosen before is written as it is."""
    packed = model.path / "packed.npz"
    if packed.exists():
        (ctx.output / "table.npz").write_bytes(packed.read_bytes())
        return
    if padding == "much":
        (ctx.output / "padding").write_bytes(bytes(PLENTY))
    np.savez(ctx.output / "table.npz", values=np.load(model.path / "table.npy"), scale=np.float32(1))
    if (model.path / "shift.npy").exists():
        (ctx.output / "shift.npy").write_bytes((model.path / "shift.npy").read_bytes())


@component(gives="odd", needs={"model": {"bigrams"}})
def odd(model: Model, ctx: Context, *, kind: Literal["a", "b"] = "a") -> None:
    """Write what nothing loads."""
    raise AssertionError("nobody may run this: no runtime loads it")


@component(gives="wide-table", needs={"model": {"bigrams"}})
def deaf(model: Model, ctx: Context) -> None:
    """Write the table in float32, whatever was chosen before."""
    (ctx.output / "padding").write_bytes(bytes(PLENTY))
    np.savez(ctx.output / "table.npz", values=np.load(model.path / "table.npy"), scale=np.float32(1))


def write_rounded(table: np.ndarray, scale: float, path: Path) -> None:
    """A table in 8 bits."""
    values = np.clip(np.round(table / scale), -127, 127).astype(np.int8)
    np.savez_compressed(path, values=values, scale=np.float32(scale))


@component(needs={"onnx": {"table"}})
def rounded(onnx: OnnxModel, ctx: Context, *, grid: Literal["fine", "coarse"] = "fine", block_size: int = 32) -> None:
    """Round to a fine or a coarse grid."""
    with np.load(onnx.path / "table.npz") as file:
        table = file["values"] * file["scale"]
    write_rounded(table, 0.2 if grid == "fine" else 1.5, ctx.output / "table.npz")


@component(needs={"onnx": {"table"}})
def broken(onnx: OnnxModel, ctx: Context, *, kind: Literal["a", "b"] = "a") -> None:
    """Refuse."""
    raise InputError("this processor has no such kernel", "Take another one.")


@component(needs={"onnx": {"table"}})
def picky(onnx: OnnxModel, ctx: Context) -> None:
    """Round what has no padding, and nothing else."""
    if (onnx.path / "padding").exists():
        raise InputError("padding", "Export it without.")
    with np.load(onnx.path / "table.npz") as file:
        write_rounded(file["values"] * file["scale"], 0.1, ctx.output / "table.npz")


@component(needs={"onnx": {"table"}})
def mute(onnx: OnnxModel, ctx: Context) -> None:
    """Make the end the most likely everywhere."""
    with np.load(onnx.path / "table.npz") as file:
        table = file["values"] * file["scale"]
    table[:, END] = 50
    np.savez_compressed(ctx.output / "table.npz", values=table, scale=np.float32(1))


def check_budget(*, max_kl: float | None, **_: object) -> None:
    if max_kl is None:
        raise InputError("needs a budget", "Set `max_kl`.")


@component(needs={"model": {"bigrams"}, "data": {"language-modelling"}}, check=check_budget)
def careful(model: Model, data: Dataset, ctx: Context, *, max_kl: Annotated[float, Gt(0)] | None = None) -> None:
    """Round as finely as a budget of loss wants it; it reads the training split alone."""
    assert data.frame("train").height
    for file in ("table.npy", "config.json"):
        (ctx.output / file).write_bytes((model.path / file).read_bytes())
    write_rounded(np.load(model.path / "table.npy"), 0.1, ctx.output / "packed.npz")
    ctx.metric("asked_kl", max_kl)


@component(needs={"model": {"bigrams"}}, traits=lambda **_: {"prepares": True})
def steady(model: Model, ctx: Context, *, grid: float = 0.2) -> None:
    """Shift each row, which changes no probability, to where rounding what is likely costs least."""
    table = np.load(model.path / "table.npy")
    shifts = np.linspace(0, grid, 40, endpoint=False, dtype=np.float32)
    shifted = table + shifts[:, None, None]
    likely = np.exp(table) / np.exp(table).sum(axis=1, keepdims=True)
    lost = (likely * (np.round(shifted / grid) * grid - shifted) ** 2).sum(axis=2)
    shift = shifts[lost.argmin(axis=0)]
    np.save(ctx.output / "table.npy", table + shift[:, None])
    np.save(ctx.output / "shift.npy", shift)
    (ctx.output / "config.json").write_bytes((model.path / "config.json").read_bytes())


@component(needs={"model": {"bigrams"}})
def sparse(model: Model, ctx: Context) -> None:
    """Set the smallest logits to zero, which makes nothing smaller."""
    table = np.load(model.path / "table.npy")
    np.save(ctx.output / "table.npy", np.where(np.abs(table) < 0.01, 0, table).astype(np.float32))
    (ctx.output / "config.json").write_bytes((model.path / "config.json").read_bytes())


@component(needs={"model": {"bigrams"}})
def lopped(model: Model, ctx: Context) -> None:
    """Forget the last letters, which makes the packed table smaller, whatever is lost by it."""
    table = np.load(model.path / "table.npy")
    table[-8:] = 0
    np.save(ctx.output / "table.npy", table)
    (ctx.output / "config.json").write_bytes((model.path / "config.json").read_bytes())


class Bigrams:
    """A generator over a table of logits; characters are tokens."""

    def __init__(self, table: np.ndarray) -> None:
        self.table = table

    def generate(self, prompts, *, max_new_tokens=128, stop=()):
        return [self._complete(prompt, max_new_tokens) for prompt in prompts]

    def _complete(self, prompt, count):
        last, text = self._ids(prompt)[-1], ""
        for _ in range(count):
            last = int(self.table[last].argmax())
            if last == END:
                break
            text += ALPHABET[last]
        return text

    def score(self, prompts, completions):
        return [
            Score(tuple(self._log_probabilities(*pair).tolist())) for pair in zip(prompts, completions, strict=True)
        ]

    def _log_probabilities(self, prompt, completion):
        rows, targets = self._rows(prompt, completion)
        normaliser = np.log(np.exp(rows.astype(np.float64)).sum(axis=1))
        return rows[np.arange(len(targets)), targets] - normaliser

    def logits(self, prompts, completions):
        for pair in zip(prompts, completions, strict=True):
            yield self._rows(*pair)[0]

    def _rows(self, prompt, completion):
        given, targets = self._ids(prompt), self._ids(completion)
        if not prompt:
            given, targets = targets[:1], targets[1:]
        read = [given[-1], *targets][: len(targets)]
        return self.table[np.array(read, dtype=int)].astype(np.float32), targets

    def _ids(self, text):
        return [max(1, ALPHABET.find(letter)) for letter in text] or [1]


@component(needs={"model": {"bigrams"}})
def tables(model: Model) -> Bigrams:
    """Load the table."""
    return Bigrams(np.load(model.path / "table.npy"))


@component(needs={"onnx": {"table", "wide-table"}})
def packed_tables(onnx: OnnxModel) -> Bigrams:
    """Load the packed table."""
    with np.load(onnx.path / "table.npz") as file:
        return Bigrams(file["values"] * file["scale"])


@component(metrics=("letters", "vowels"))
def vowels(subject: Bigrams, data: Dataset, ctx: Context) -> None:
    """Count what the model writes after some held-out texts."""
    texts = subject.generate(data.frame("test")["text"].to_list()[:4], max_new_tokens=8)
    ctx.metric("letters", sum(map(len, texts)))
    ctx.metric("vowels", sum(letter in "aeiou" for text in texts for letter in text))


@hookimpl
def luthier_validators():
    return [vowels]


@hookimpl
def luthier_architectures():
    return [bigrams]


@hookimpl
def luthier_exporters():
    return [plain, odd, deaf]


@hookimpl
def luthier_quantizers():
    return [rounded, broken, picky, mute, careful, steady]


@hookimpl
def luthier_pruners():
    return [sparse, lopped]


@hookimpl
def luthier_runtimes():
    return [tables, packed_tables]
