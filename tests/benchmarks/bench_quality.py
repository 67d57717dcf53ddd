"""What each purpose reaches: the recipes are run, and a table is written of them.

    make bench-quality                            all; prints the table and writes it into docs/quality.md
    bench_quality.py --only manual-pages …        some; the rows of the others stay as they were measured before

Every step is cached in the recipes' store, so a second run prints at once. `before` is the base model on the same
examples unless the row says otherwise; the interval is that of the difference, by the gates' paired bootstrap.

Rows are written as soon as their recipe has run. Exit code 1 if a recipe failed; the last lines say which.
"""

from __future__ import annotations

import argparse
import os
import platform
import runpy
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from failures import noted
from tables import Table, markdown

import luthier
from luthier.api import open_store
from luthier.errors import GateRefused
from luthier.gates import Bound, judge

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
PAGE = ROOT / "docs" / "quality.md"
HEADINGS = (
    "purpose",
    "model",
    "data",
    "examples",
    "minutes",
    "metric",
    "before",
    "after",
    "difference (95%)",
    "beside",
    "measured",
)
TABLE = Table(PAGE, "<!-- the table of make bench-quality -->", HEADINGS, keys=3)


@dataclass(frozen=True)
class Row:
    """A row of the table: which steps of which recipe it is read off.

    Attributes:
        recipe: the path below `examples`.
        purpose, model, data: for people.
        tuner: the step that trained.
        validator: the step that measured.
        metric: of it; it must be recorded for single examples, or the row has no interval.
        against: another validator's step, whose candidate is `before`; by default the base model.
        beside: other metrics of the same report, by what they are called.

    No two rows are alike in purpose, model and data: these three find a row in the page again.
    """

    recipe: str
    purpose: str
    model: str
    data: str
    tuner: str
    validator: str
    metric: str
    against: str = ""
    beside: Mapping[str, str] = field(default_factory=dict)

    @property
    def path(self) -> Path:
        """The recipe's file."""
        return EXAMPLES / self.recipe


SMOLLM = "SmolLM2-135M"
LEAD = {"first sentence": "lead_rougeL"}
CLASSIC = {"xz": "xz_bits_per_byte", "byte 5-gram": "ngram_bits_per_byte"}
MAJORITY = {"commonest class": "majority_accuracy"}
ROWS = (
    Row("quickstart/recipe.yaml", "summaries, int8", SMOLLM, "docstrings", "lora", "rouge", "rougeL", beside=LEAD),
    Row("purposes/debian-summaries.yaml", "summaries", SMOLLM, "Debian", "lora", "rouge", "rougeL", beside=LEAD),
    Row("purposes/debian-chat.yaml", "chat", SMOLLM, "Debian", "lora", "rouge", "rougeL", beside=LEAD),
    Row(
        "purposes/debian-sections.yaml",
        "classification",
        SMOLLM,
        "Debian sections",
        "lora",
        "classification",
        "accuracy",
        beside=MAJORITY,
    ),
    Row(
        "purposes/section-heads.yaml",
        "head alone; before: lora",
        SMOLLM,
        "Debian sections",
        "frozen",
        "of-frozen",
        "accuracy",
        against="of-adapted",
        beside=MAJORITY,
    ),
    Row(
        "purposes/encoder-transfer.yaml",
        "transfer; before: direct",
        "encoder, 1M",
        "Debian sections",
        "transferred",
        "of-transferred",
        "accuracy",
        against="of-direct",
        beside=MAJORITY,
    ),
    Row("purposes/manual-pages.yaml", "adaptation: in it", SMOLLM, "manual pages", "lora", "in-domain", "perplexity"),
    Row("purposes/manual-pages.yaml", "adaptation: outside", SMOLLM, "Debian", "lora", "out-of-domain", "perplexity"),
    Row(
        "purposes/transfer.yaml",
        "transfer; before: direct",
        SMOLLM,
        "docstrings",
        "transferred",
        "rouge-transferred",
        "rougeL",
        against="rouge-direct",
        beside=LEAD,
    ),
    *(
        Row(
            "purposes/translation.yaml",
            "translation from scratch",
            f"{model}, 5M",
            "Debian, en to fr",
            tuner,
            f"of-{tuner}",
            "sentence_chrf",
        )
        for tuner, model in (("transformer", "encoder-decoder"), ("recurrent", "GRU with attention"))
    ),
    Row(
        "purposes/translation.yaml",
        "recurrent; before: transformer",
        "GRU with attention, 5M",
        "Debian, en to fr",
        "recurrent",
        "of-recurrent",
        "sentence_chrf",
        against="of-transformer",
    ),
    *(
        Row(
            "purposes/from-scratch.yaml",
            purpose,
            model,
            "Debian, English",
            tuner,
            f"of-{tuner}",
            "bits_per_byte",
            against=against,
            beside=CLASSIC,
        )
        for purpose, model, tuner, against in (
            ("from scratch", "LSTM on bytes, 800K", "recurrent", ""),
            ("from scratch", "transformer on BPE, 2M", "transformer", ""),
            ("transformer; before: recurrent", "transformer on BPE, 2M", "transformer", "of-recurrent"),
        )
    ),
    *(
        Row(
            "purposes/summaries-from-scratch.yaml",
            purpose,
            model,
            "Debian",
            tuner,
            f"of-{tuner}",
            "rougeL",
            against=against,
            beside=LEAD,
        )
        for purpose, model, tuner, against in (
            ("summaries from scratch", "encoder-decoder, 3M", "transformer", ""),
            ("summaries from scratch", "GRU with attention, 3M", "recurrent", ""),
            ("recurrent; before: transformer", "GRU with attention, 3M", "recurrent", "of-transformer"),
        )
    ),
    *(
        Row(
            "purposes/preferences.yaml",
            "preferences; before: lora",
            SMOLLM,
            f"Debian, {data}",
            tuner,
            f"of-{tuner}",
            "rougeL",
            against="of-lora",
            beside=LEAD,
        )
        for tuner, data in (("dpo", "pairs"), ("kto", "thumbs"))
    ),
    Row(
        "purposes/distillation.yaml",
        "distillation; before: alone",
        "transformer on BPE, 500K",
        "Debian, English",
        "distilled",
        "of-distilled",
        "bits_per_byte",
        against="of-alone",
        beside=CLASSIC,
    ),
    Row(
        "purposes/vocabulary.yaml",
        "new tokens; before: without",
        "transformer on BPE, 2M",
        "manual pages",
        "with",
        "of-with",
        "bits_per_byte",
        against="of-without",
        beside=CLASSIC,
    ),
    *(
        Row(
            "purposes/pruned.yaml",
            f"{purpose}; before: the whole",
            SMOLLM,
            "Debian",
            "distill",
            validator,
            "rougeL",
            against="of-the-whole",
            beside=LEAD,
        )
        for purpose, validator in (
            ("pruned and healed", "of-the-pruned"),
            ("pruned, healed, 4 bits", "of-the-delivered"),
        )
    ),
    *(
        Row(
            "purposes/pruned-curve.yaml",
            f"{depth} of 30 layers, 4 bits; before: the whole",
            SMOLLM,
            "Debian",
            f"healed-{depth}",
            f"delivered-{depth}",
            "rougeL",
            against="of-the-whole",
            beside=LEAD,
        )
        for depth in (27, 20, 15)
    ),
    *(
        Row(
            "purposes/quantization-aware.yaml",
            f"{purpose}; before: {before}",
            SMOLLM,
            "Debian",
            tuner,
            f"of-{tuner}-int4",
            "rougeL",
            against=against,
            beside=LEAD,
        )
        for purpose, before, tuner, against in (
            ("4 bits", "lora", "plain", "of-plain"),
            ("trained for 4 bits", "lora", "aware", "of-plain"),
            ("trained for 4 bits", "4 bits", "aware", "of-plain-int4"),
        )
    ),
    *(
        Row(
            "purposes/layers-or-lora.yaml",
            "top layers; before: lora",
            SMOLLM,
            data,
            f"{task}-layers",
            f"{task}-layers-rouge",
            "rougeL",
            against=f"{task}-lora-rouge",
            beside=LEAD,
        )
        for task, data in (("debian", "Debian"), ("docstring", "docstrings"))
    ),
)


def finished(recipe: Path, home: Path | None = None) -> luthier.Run:
    """The recipe's run, also where a gate refused it: a disappointing figure is one of the table."""
    try:
        return luthier.run(recipe, home=home)
    except GateRefused as refusal:
        return luthier.Run.at(open_store(recipe.parent, home).runs / refusal.run)


def cells(row: Row, run: luthier.Run) -> list[str]:
    """A row's cells, read off a run."""
    after = records(run, row.validator, "candidate")
    before = records(run, row.against or row.validator, "candidate" if row.against else "base")
    value, old = value_of(after, row.metric), value_of(before, row.metric)
    low, high = interval(row.metric, after, before, run.data.seed)
    beside = ", ".join(f"{called} {value_of(after, name):.3f}" for called, name in row.beside.items())
    examples = f"{run.metrics[row.tuner]['examples']:,.0f}"
    minutes = f"{(run.seconds(row.tuner) or 0) / 60:.1f}"
    difference = f"{value - old:+.3f} ({low:+.3f} to {high:+.3f})"
    day = run.data.started[:10]
    return [*_described(row), examples, minutes, row.metric, f"{old:.3f}", f"{value:.3f}", difference, beside, day]


def _described(row: Row) -> list[str]:
    return [row.purpose, row.model, row.data]


def records(run: luthier.Run, validator: str, subject: str = "candidate") -> Sequence[Mapping[str, Any]]:
    """What a validator measured of a subject, metric by metric."""
    report = run.report(validator, subject)
    if report is None:
        raise LookupError(f"the run {run.id} has no report of {validator} on {subject}")
    return report.metric_records()


def value_of(measured: Iterable[Mapping[str, Any]], metric: str) -> float:
    """A metric's value."""
    return float(next(record["value"] for record in measured if record["name"] == metric))


def interval(
    metric: str, after: Sequence[Mapping[str, Any]], before: Sequence[Mapping[str, Any]], seed: int
) -> tuple[float, float]:
    """Of the difference; a bound names a subject, and which one changes nothing."""
    found = judge(Bound(metric, "at_least", "base", 0.0, 0.95), after, before, seed).interval
    assert found is not None
    return found


def write(rows: Iterable[list[str]], table: Table) -> None:
    """Put rows into the table, with the machine."""
    where = f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()}"
    table.write(rows, f"`make bench-quality`, {where}.", order=map(_described, ROWS))


def main() -> int:
    """Run the recipes and show what they reached; exit code 1 if one failed."""
    names = sorted({row.path.parent.name if row.path.stem == "recipe" else row.path.stem for row in ROWS})
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="NAME", help=", ".join(names))
    parser.add_argument("--page", type=Path, default=PAGE, help="with the table's markers")
    options = parser.parse_args()
    table = replace(TABLE, page=options.page)
    if not (EXAMPLES / "purposes" / "catalogues").is_dir():
        runpy.run_path(str(EXAMPLES / "purposes" / "catalogues.py"), run_name="__main__")
    chosen = [row for row in ROWS if {row.path.stem, row.path.parent.name} & set(options.only)]
    rows: list[list[str]] = []
    failures: list[str] = []
    for path in dict.fromkeys(row.path for row in chosen):
        with noted(str(path.relative_to(EXAMPLES)), failures):
            run = finished(path)
            found = [cells(row, run) for row in chosen if row.path == path]
            write(found, table)
            rows += found
    print(markdown(HEADINGS, rows))
    for failure in failures:
        print(f"FAILED {failure}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
