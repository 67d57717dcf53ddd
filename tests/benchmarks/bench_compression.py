"""A tuned model, compressed in the ways that Luthier has, beside llama.cpp's: size, loss, task, and speed.

    make bench-models                                    all but the part `curve` and the model `pruned`: hours
    bench_compression.py --parts speed --only int8 q8_0  some; the other rows stay as they were measured before

The common source is SmolLM2-135M with its weights moved off the grid that they come from, and tuned; see
`compression_models`. Each model is made and measured by a recipe of its own, so its steps are cached and one that fails
leaves the others. The parts, whose tables are written into docs/compression.md as soon as a row is known:

    loss     size; divergence from PyTorch in float32 and perplexity on held-out descriptions
    task     ROUGE-L on held-out prompts, with the paired interval to the model in float32
    speed    times as `luthier optimize` takes them: in rounds, each model in a process of its own
    profile  where the time of a token goes in ours, by operator
    curve    the recipe `pruned-curve`: models of three depths, healed and delivered; hours, so only where it is named

What the rounds measured is kept in the store's directory, so that a part that was stopped goes on. llama.cpp takes part
where llama-cpp-python is installed. Exit code 1 if a target is missed, or a model or a part failed; the last lines say
which. The targets of speed are for a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import runpy
import sys
from collections.abc import Callable
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import compression_curve
from bench_quality import finished, interval
from compression_models import (
    BASELINE,
    DELIVERED,
    INT4,
    INT8,
    MOVED,
    PRUNED,
    PURPOSES,
    Q4_K_M,
    Q8_0,
    SMOLLM2,
    SOURCE,
    TASK_DATA,
    TEXT_DATA,
    VARIANTS,
    WHOLE,
    Variant,
    runnable,
    source,
)
from compression_speed import bandwidth, profile, weight_bytes
from failures import noted
from tables import Table
from targets import Outcome

import luthier
from luthier import LuthierError, Recipe, Run, load_plugins
from luthier_optimize.outcome import Tried
from luthier_optimize.timing import Trial, libraries_of, machine, prompts_of, take_times
from luthier_optimize.trying import BASELINE as FLOAT32

PAGE = Path(__file__).parents[2] / "docs" / "compression.md"
TEXTS, TOKENS = 200, 16_000
"""Descriptions that divergence is measured on, and the tokens that they have at the least."""
PROMPTS = 1000
NEW_TOKENS = 64
LONG = 4000
"""Characters that a prompt may have; the long one has half of them."""


class Bench:
    """What is measured, and what came of it.

    Attributes:
        options: of the command line.
        outcomes: figures beside their targets.
        failures: why a model could not be made or measured, or a part ended early.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.variants = [VARIANTS[name] for name in options.only]
        self.outcomes: list[Outcome] = []
        self.failures: list[str] = []
        page = options.page
        begin = "<!-- the table of bench_compression.py: {} -->".format
        self.losses = Table(page, begin("loss"), ("model", "MB", "mean KL", "top-1", "perplexity", "measured"))
        self.tasks = Table(
            page, begin("task"), ("model", "prompts", "float32", "ROUGE-L", "difference (95%)", "measured")
        )
        self.speeds = Table(
            page,
            begin("speed"),
            (
                *("model", "threads", "MB", "decode, tok/s", "to float32", "of the bandwidth"),
                *("prefill, tok/s", "first token, ms", "load, s", "peak memory, MB", "measured"),
            ),
            keys=2,
        )
        self.profiles = Table(page, begin("profile"), ("model", "a token, ms", "operators", "measured"))
        self.curves = Table(page, begin("curve"), compression_curve.HEADINGS)
        self.targets = Table(page, begin("targets"), ("figure", "measured", "target", "reached", "on"))

    def make(self, variant: Variant, measure: Callable[[Recipe], object] = lambda recipe: None) -> Run | None:
        """Run a variant's recipe with some measures; None, and a failure noted, if it fails."""
        try:
            if variant.recipe:
                return finished(variant.recipe, self.options.home)
            recipe = source(self.options.model, self.options.steps)
            variant.add(recipe)
            measure(recipe)
            return luthier.run(recipe, home=self.options.home, plugins=[MOVED])
        except LuthierError as error:
            self.fail(variant, error.message)
            return None

    def fail(self, variant: Variant, why: str) -> None:
        """Note why a model is missing."""
        self.failures.append(f"{variant.label}: {why}")
        print(f"FAILED {self.failures[-1]}", flush=True)

    def judge(self, variant: Variant, what: str, value: float, target: float, *, at_most: bool = False) -> None:
        """Hold a figure against a target, and write it down."""
        outcome = Outcome(f"{variant.label}: {what}", value, target, at_most)
        self.outcomes.append(outcome)
        reached = "yes" if outcome.reached else "no"
        row = [outcome.name, outcome.shown, outcome.bound, reached, today()]
        self.targets.write([row], "The targets that Luthier has set itself, on an idle machine.")

    def loss(self) -> None:
        """Size, divergence and perplexity."""
        divergences: dict[str, float] = {}
        caption = f"{self.options.texts} descriptions that took no part in training. {where()}"
        for variant in self.variants:
            run = self.make(variant, lambda recipe, step=variant.step: self.measure_loss(recipe, step))
            if run is None:
                continue
            size = weight_bytes(run.model(variant.step).path) / 1e6
            if variant is PRUNED:
                # Its tokens are others, so neither figure would compare.
                self.losses.write([[variant.label, f"{size:.1f}", "", "", "", today()]], caption, order=order())
                self.judge(variant, "megabytes", size, 60, at_most=True)
                continue
            perplexity = values(run, "perplexity")["perplexity"]["value"]
            if variant is BASELINE:
                row = [variant.label, f"{size:.1f}", "", "", f"{perplexity:.2f}", today()]
                self.losses.write([row], caption, order=order())
                continue
            found = values(run, "parity")
            kl, top1 = found["mean_kl"]["value"], found["top1_agreement"]["value"]
            divergences[variant.step] = kl
            row = [variant.label, f"{size:.1f}", f"{kl:.4f}", f"{top1:.3f}", f"{perplexity:.2f}", today()]
            self.losses.write([row], caption, order=order())
            print(" ".join(row), flush=True)
            if variant in (INT8, INT4):
                self.judge(variant, "tokens measured on", sum(found["mean_kl"]["weights"]), TOKENS)
                self.judge(variant, "megabytes", size, 150 if variant is INT8 else 110, at_most=True)
                self.judge(variant, "mean KL", kl, 0.01 if variant is INT8 else 0.06, at_most=True)
            if variant is INT8:
                self.judge(variant, "top-1 agreement", top1, 0.94)
        if {INT4.step, Q4_K_M.step} <= divergences.keys():
            ratio = divergences[INT4.step] / divergences[Q4_K_M.step]
            self.judge(INT4, f"mean KL to that of {Q4_K_M.label}", ratio, 1.0, at_most=True)

    def measure_loss(self, recipe: Recipe, step: str) -> None:
        """Add what measures the loss of the model that a step gives."""
        measured = {"from_": [step, TEXT_DATA], "max_examples": self.options.texts}
        recipe.step("validate", "perplexity", subjects=["candidate"], **measured)
        if step != SOURCE:
            recipe.step("validate", "parity", **measured)

    def task(self) -> None:
        """ROUGE-L beside the model in float32, on the same prompts."""
        for variant in self.variants:
            if not variant.task:
                continue
            run = self.make(variant, lambda recipe, step=variant.step: self.measure_task(recipe, step))
            if run is None:
                continue
            mine, theirs = (DELIVERED, (WHOLE, "candidate")) if variant is PRUNED else ("rouge", ("rouge", "reference"))
            ours, others = values(run, mine), values(run, *theirs)
            after, before = ours["rougeL"], others["rougeL"]
            low, high = interval("rougeL", list(ours.values()), list(others.values()), run.data.seed)
            prompts = len(after["per_example"])
            difference = f"{after['value'] - before['value']:+.4f} ({low:+.4f} to {high:+.4f})"
            row = [
                *(variant.label, f"{prompts:,}", f"{before['value']:.4f}", f"{after['value']:.4f}"),
                *(difference, today()),
            ]
            self.tasks.write([row], "Summaries of packages of groups that took no part in training.", order=order())
            print(" ".join(row), flush=True)
            if variant is INT4:
                self.judge(variant, "prompts of the task", prompts, PROMPTS)
                self.judge(variant, "lower end of the difference in ROUGE-L", low, -0.01)
            if variant is PRUNED:
                self.judge(variant, "ROUGE-L to that of the whole", after["value"] / before["value"], 0.95)

    def measure_task(self, recipe: Recipe, step: str) -> None:
        """Add what measures the task on the model that a step gives."""
        measured = {"max_examples": self.options.prompts, "max_new_tokens": 32, "subjects": ["candidate", "reference"]}
        recipe.step("validate", "rouge", from_=[step, TASK_DATA], **measured)

    def speed(self) -> None:
        """Decode, prefill, first token, load and memory, for each number of threads."""
        found = [(each, run) for each in self.variants if each is not BASELINE and (run := self.make(each))]
        if not found:
            return
        run = found[0][1]
        prompts, long_prompt = prompts_of(run.dataset(TASK_DATA), LONG)
        models = {each: tried(each, run) for each, run in found}
        kinds = {("model", run.model(SOURCE).form), *(("onnx", each.form) for each in models.values())}
        libraries = libraries_of(load_plugins(), kinds)
        names = "-".join(each.step for each in models)
        for threads in self.options.threads:
            trial = Trial(prompts, long_prompt, NEW_TOKENS, self.options.rounds, threads, "cpu", [], libraries)
            read = bandwidth(threads)
            print(f"threads: {threads}, which read {read / 1e9:.1f} GB/s", flush=True)
            baseline = tried(BASELINE, run)
            timed = {each: Tried(**vars(model)) for each, model in models.items()}
            kept = self.options.home / "bench-compression" / f"{names}-{threads}"
            take_times(baseline, list(timed.values()), trial, kept, lambda line: print(line, flush=True))
            self._tell_speeds({BASELINE: baseline, **timed}, threads, read)

    def _tell_speeds(self, timed: dict[Variant, Tried], threads: int, read: float) -> None:
        for variant, model in timed.items():
            if not model.times:
                self.fail(variant, model.error)
                continue
            times = model.times
            row = [
                *(variant.label, str(threads), f"{model.bytes / 1e6:.1f}", f"{times['decode']:.1f}"),
                *(
                    f"{model.ratios['decode']:.2f}",
                    f"{model.bytes * times['decode'] / read:.0%} of {read / 1e9:.1f} GB/s",
                ),
                *(f"{times['prefill']:.0f}", f"{times['first_token_ms']:.0f}", f"{times['load_seconds']:.2f}"),
                *(f"{times['peak_megabytes']:.0f}", today()),
            ]
            caption = f"Medians of the rounds; a token reads all weights. {where()}"
            self.speeds.write([row], caption, order=[(*key, str(n)) for key in order() for n in (1, 2)])
            print(" ".join(row), flush=True)
        decode = {variant: model.ratios["decode"] for variant, model in timed.items() if model.ratios}
        said = f"decode on {threads} {'thread' if threads == 1 else 'threads'} to"
        if INT8 in decode:
            self.judge(INT8, f"{said} transformers in float32", decode[INT8], 3.5)
        for ours, theirs, least in ((INT8, Q8_0, 1.0), (INT4, Q4_K_M, 1.2)):
            if ours in decode and theirs in decode:
                self.judge(ours, f"{said} {theirs.label}", decode[ours] / decode[theirs], least)
        if PRUNED in decode and INT4 in decode:
            self.judge(PRUNED, f"{said} {INT4.label}", decode[PRUNED] / decode[INT4], 1.5)

    def profile(self) -> None:
        """Where the time of a token goes on one thread, in the models that ONNX Runtime runs."""
        for variant in self.variants:
            if variant not in (INT8, INT4) or (run := self.make(variant)) is None:
                continue
            whole, shares = profile(run.model(variant.step).path)
            operators = ", ".join(f"{name} {taken:.2f} ms ({taken / whole:.0%})" for name, taken in shares[:6])
            row = [variant.label, f"{whole:.2f}", operators, today()]
            self.profiles.write(
                [row], "One thread, by ONNX Runtime's profiler, which takes time itself.", order=order()
            )
            print(" ".join(row), flush=True)

    def curve(self) -> None:
        """Quality by size, of models that were healed."""
        run = finished(compression_curve.RECIPE, self.options.home)
        found = list(compression_curve.rows(run))
        self.curves.write(found, "Each but the first healed for 400 steps of 4 packages; ROUGE-L on the same 200.")
        print("\n".join(" ".join(row) for row in found), flush=True)


USUAL = ("loss", "task", "speed", "profile")
PARTS = (*USUAL, "curve")


def main() -> int:
    """Measure, print and write; exit code 1 if a target is missed, or a model or a part failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    there = runnable()
    parser.add_argument("--parts", choices=PARTS, nargs="+", default=list(USUAL))
    usual = [name for name in there if VARIANTS[name].recipe is None]
    parser.add_argument("--only", choices=there, nargs="+", default=usual, help="`pruned` takes hours to make")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--prompts", type=int, default=PROMPTS, help="that the task is measured on")
    parser.add_argument("--texts", type=int, default=TEXTS, help="that divergence is measured on")
    parser.add_argument("--model", default=SMOLLM2, help="the source before it is tuned, as a recipe names it")
    parser.add_argument("--steps", type=int, default=150, help="that it is tuned for")
    parser.add_argument("--home", type=Path, default=PURPOSES / ".luthier", help="the store")
    parser.add_argument("--page", type=Path, default=PAGE, help="with the tables' markers")
    options = parser.parse_args()
    if not (PURPOSES / "catalogues").is_dir():
        runpy.run_path(str(PURPOSES / "catalogues.py"), run_name="__main__")
    bench = Bench(options)
    for part in options.parts:
        with noted(part, bench.failures):
            getattr(bench, part)()
    for outcome in bench.outcomes:
        print(f"{'reached' if outcome.reached else 'MISSED '} {outcome}")
    for failure in bench.failures:
        print(f"FAILED {failure}")
    return 0 if all(outcome.reached for outcome in bench.outcomes) and not bench.failures else 1


def tried(variant: Variant, run: Run) -> Tried:
    """A model as `luthier optimize` takes times of it."""
    model = run.model(variant.step)
    label = FLOAT32 if variant is BASELINE else variant.label
    return Tried(label, form=model.form, model=model.hash, path=str(model.path), bytes=weight_bytes(model.path))


def values(run: Run, step: str, subject: str = "candidate") -> dict[str, dict[str, Any]]:
    """What a validator measured, by metric."""
    report = run.report(step, subject)
    assert report is not None  # The run is done.
    return {record["name"]: dict(record) for record in report.metric_records()}


def order() -> list[tuple[str]]:
    """The rows' keys in the order of the tables."""
    return [(each.label,) for each in VARIANTS.values()]


def today() -> str:
    """The day, in UTC."""
    return datetime.datetime.now(datetime.UTC).date().isoformat()


def where() -> str:
    """The machine and the libraries."""
    names = ["torch", "onnxruntime-genai", *(["llama-cpp-python"] if find_spec("llama_cpp") else [])]
    versions = [f"{name} {metadata.version(name)}" for name in names]
    return f"{machine()['processor']}, {os.cpu_count()} cores, {platform.system()}; {', '.join(versions)}."


if __name__ == "__main__":
    sys.exit(main())
