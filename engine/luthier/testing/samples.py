"""The kit's own inputs: documents, examples of each form, and rows that no component may fall over.

Only functions import polars here: the names are needed where tests are collected.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from luthier.artifacts import DATASET_FORMS, Artifact, Dataset, Model, OnnxModel
from luthier.components import Component

if TYPE_CHECKING:
    import polars as pl

MEGABYTE = 1 << 20
MADE_HERE = ("frame", "data", "other", "subject", "reference", "ctx")
"""The inputs that the kit makes; models are the author's to give."""

ORDINARY = 240
"""How many ordinary texts there are: enough for a split of a few per cent to have rows on each side."""

_TOPICS = ("tables", "rivers", "engines", "letters", "harvests", "weather", "maps", "bridges")
_SENTENCES = (
    "Return the number of {} that were counted since the first day, or nothing if there were none.",
    "A short history of {}: who made them, who paid for them, and what is left of them today.",
    "The committee on {} met twice; it decided that the report should be written again, and better.",
    "See https://example.org/{}?page=2 or write to office@example.org.",
)


def texts() -> list[str]:
    """Ordinary texts: of one line and of several, with markup, code, other languages, and some of them twice."""
    written = [sentence.format(topic) for topic in _TOPICS for sentence in _SENTENCES]
    written += [
        f"{written[number % len(written)]}\n\nChapter {number}. {written[(7 * number + 3) % len(written)]}"
        for number in range(ORDINARY - len(written))
    ]
    written += [
        "Short.",
        "DO NOT PRESS THE BUTTON MARKED STOP, WHATEVER THE VOICE SAYS.",
        "<p>Fish &amp; chips, <b>twice</b> a week.</p>",
        "def area(width, height):\n    return width * height  # square metres\n",
        "Die Brücke über den Fluss wurde 1907 gebaut und seither dreimal erneuert.",
        "Le café était fermé, mais la fenêtre restait ouverte toute la nuit.",
        "這座橋建於一九零七年",
        "Two  spaces, a\ttab, and trailing blanks   \n   and an indented line.",
        written[0],
        written[5].upper(),
    ]
    return written


def hostile_texts() -> dict[str, str]:
    """Texts that break naive code, by what is odd about them."""
    return {
        "empty text": "",
        "blank text": " \n\t ",
        "one character": "x",
        "NUL": "before\0after\0",
        "control characters": "\x1b[31mred\x07\x08\x7f\x85",
        "right to left": "\u05e9\u05dc\u05d5\u05dd \u202eabc\u202c \u0645\u0631\u062d\u0628\u0627",
        "emoji": "\U0001f469\u200d\U0001f469\u200d\U0001f467 \U0001f3f3\ufe0f\u200d\U0001f308 \U0001f44d\U0001f3fd",
        "zero width": "\ufeffzero\u200bwidth\u200c\u200d\u2060\u00ad",
        "only zero width": "\u200b\u200b",
        "combining marks": "z" + "\u0301\u0316" * 500,
        "line separators": "one\u2028two\u2029three\r\nfour\rfive\x0b\x0c",
        "ends of Unicode": "\U0010ffff\ufffe\ufffd\ue000",
        "braces and templates": "{text} {0} {{x}} %s %(y)s ${z} <|im_end|></s>[INST] \\1 \\u0000",
        "regular expression": "(a+)+$ [^] *** ??? \\",
        "numbers": "1e999 -0 NaN inf 0x1F ١٢٣",
        "a long token": "a" * 100_000,
        "a megabyte": ("the same words come again and again " * (MEGABYTE // 36 + 1))[:MEGABYTE],
        "a megabyte without a break": "\u00e9" * (MEGABYTE // 2),
    }


def form_of(component: Component, name: str) -> str:
    """The form of rows to try the component on: the one it declares, else its stage's."""
    accepted = component.declared.needs.get(name, frozenset())
    usual = "documents" if component.stage.gives == "dataset" else "prompt-completion"
    if not accepted or usual in accepted:
        return usual
    return next((form for form in DATASET_FORMS if form in accepted), sorted(accepted)[0])


def rows(form: str, written: Sequence[str]) -> pl.DataFrame:
    """Rows of a form, one a text; every sixth is for validation, every fifth for the test."""
    import polars as pl

    ids = [f"row-{number:04d}" for number in range(len(written))]
    splits = ["valid" if number % 6 == 1 else "test" if number % 5 == 2 else "train" for number in range(len(written))]
    strings: dict[str, Any] = {
        "id": ids,
        "group": ids,
        "split": splits,
        "source": [f"source-{number % 3}" for number in range(len(written))],
        "text": list(written),
        "prompt": [f"In one line: {text}" for text in written],
        "completion": [text[:80] for text in written],
        "chosen": [text[:80] for text in written],
        "rejected": [text[-40:] for text in written],
        "label": [("plain", "odd")[number % 2] for number in range(len(written))],
    }
    frame = pl.DataFrame(strings, schema=dict.fromkeys(strings, pl.String))
    turn = pl.List(pl.Struct({"role": pl.String, "content": pl.String}))
    turns = [_turns(text) for text in written]
    frame = frame.with_columns(pl.Series("messages", turns, dtype=turn))
    if DATASET_FORMS[form].get("label") == "Boolean":
        frame = frame.with_columns(pl.col("label") == "plain")
    return frame.select(list(DATASET_FORMS[form]))


def _turns(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}, {"role": "assistant", "content": text[:80]}]


def hostile_rows(form: str, *, together: bool) -> dict[str, pl.DataFrame]:
    """Frames that a component must survive, by what is odd about them.

    Args:
        form: of the rows.
        together: give the odd texts among ordinary ones in one frame, for what is slow to start.
    """
    import polars as pl

    ordinary = rows(form, texts()[:8])
    empty = pl.lit(None)
    frames = {
        "no rows": ordinary.clear(),
        "columns of nulls": ordinary.with_columns(
            empty.alias("untyped"),
            empty.cast(pl.String).alias("note"),
            empty.cast(pl.Int64).alias("stars"),
            empty.cast(pl.List(pl.String)).alias("tags"),
        ),
        "one row": ordinary.head(1),
    }
    odd = hostile_texts()
    if together:
        return {"no rows": frames["no rows"], "odd texts": rows(form, [*texts()[:24], *odd.values()])}
    return frames | {name: rows(form, [text]) for name, text in odd.items()}


def write_dataset(directory: Path, frames: Sequence[pl.DataFrame], form: str) -> Dataset:
    """A dataset of one shard a frame."""
    directory.mkdir(parents=True)
    for number, frame in enumerate(frames):
        frame.write_parquet(directory / f"shard-{number:05d}.parquet")
    return Dataset.at(directory, form, "0" * 64)


def write_toy_model(directory: Path, seed: int) -> Model:
    """What the kit's runtime loads where a validator asks for a loaded model."""
    directory.mkdir(parents=True)
    (directory / "toy.json").write_text(json.dumps({"seed": seed}), encoding="utf-8")
    return Model.at(directory, "causal-lm", f"{seed:064x}")


def chosen(component: Component, name: str, given: Mapping[str, Any]) -> Artifact | None:
    """The author's sample for an input: of several, the first of a form that the component takes; None if none is."""
    samples = given.get(name, ())
    for sample in samples if isinstance(samples, list | tuple) else (samples,):
        artifact = sample if isinstance(sample, Artifact) else _artifact(component, name, Path(sample))
        if component.accepts(name, artifact.form):
            return artifact
    return None


def _artifact(component: Component, name: str, path: Path) -> Artifact:
    if name in ("frame", "data", "other"):
        return Dataset.at(path, form_of(component, name))
    kind: type[Artifact] = OnnxModel if name == "onnx" else Model
    return kind.at(path, next(iter(sorted(component.declared.needs.get(name, ()))), ""))


def lacking(component: Component, given: Mapping[str, Any]) -> list[str]:
    """The inputs that the component asks for and that neither the kit nor the author gives."""
    return [name for name in component.inputs if name not in MADE_HERE and chosen(component, name, given) is None]
