"""What huge pages of memory do for the work of a worker: writing tokens with an 8-bit model, and a step of LoRA.

Each is measured in processes of its own, with and without the variable that workers are started with, in turns; CPU
time, one thread. Where the kernel gives no huge pages (`never` in /sys/kernel/mm/transparent_hugepage/enabled), or the
C library is not glibc, the two are alike.

Run: python tests/benchmarks/bench_pages.py [--model DIRECTORY] [--rounds 5]
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from bench_tuning import MODEL, peak_megabytes  # first: it sets what the libraries read of the environment
from tuning_contenders import LEAN, make_step
from tuning_examples import debian_pairs, docstring_pairs, make_batches

from luthier import Model, OnnxModel, worker_environment
from luthier.locations import fetch
from luthier.testing import make_context
from luthier_models.normalise import write_pretrained
from luthier_models.prompts import PromptEncoder
from luthier_onnx import genai
from luthier_onnx.runtime import GenaiGenerator
from luthier_quantize import int8

PROMPT, WRITTEN = 32, 64
WORK = {"tokens written": "writing", "steps of LoRA": "tuning"}


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="a model directory; SmolLM2-135M-Instruct if not given")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--measure", nargs=2, metavar=("WORK", "DIRECTORY"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        work, directory = options.measure
        rate = {"writing": writing, "tuning": tuning}[work](Path(directory))
        print(rate, peak_megabytes())
        return 0
    with tempfile.TemporaryDirectory() as scratch:
        room = Path(scratch)
        model = options.model or room / "model"
        if options.model is None:
            write_pretrained(fetch(MODEL), model)
        exact, small = make_context(room / "genai"), make_context(room / "int8")
        genai(Model.at(model, "causal-lm"), exact)
        int8(OnnxModel.at(exact.output, "genai"), small)
        print(f"| a CPU second | {' | '.join(ENVIRONMENTS)} | ratio | peak MB |\n|---|---|---|---|---|")
        for (called, work), directory in zip(WORK.items(), (small.output, model), strict=True):
            report(called, work, directory, options.rounds)
    return 0


def four_kilobytes() -> dict[str, str]:
    """The variables of a worker, without the one in question."""
    return {name: value for name, value in worker_environment(1).items() if name != "GLIBC_TUNABLES"}


ENVIRONMENTS: dict[str, Callable[[], dict[str, str]]] = {
    "pages of 4 KB": four_kilobytes,
    "huge pages": lambda: worker_environment(1),
}


def report(called: str, work: str, directory: Path, rounds: int) -> None:
    """Measure one kind of work in both environments, in turns, and print a row."""
    rates: dict[str, list[float]] = {name: [] for name in ENVIRONMENTS}
    peaks: dict[str, int] = {}
    for _ in range(rounds):
        for name, environment in ENVIRONMENTS.items():
            command = [sys.executable, __file__, "--measure", work, str(directory)]
            done = subprocess.run(command, env=environment(), stdout=subprocess.PIPE, text=True, check=True)
            rate, peak = done.stdout.splitlines()[-1].split()
            rates[name].append(float(rate))
            peaks[name] = max(int(peak), peaks.get(name, 0))
    old, new = rates.values()
    ratio = statistics.median(b / a for a, b in zip(old, new, strict=True))
    middle = " | ".join(f"{statistics.median(each):.3g}" for each in (old, new))
    print(f"| {called} | {middle} | {ratio:.2f} | {' to '.join(map(str, peaks.values()))} |", flush=True)
    print(*(f"{name}: {' '.join(f'{rate:.3g}' for rate in each)}" for name, each in rates.items()), sep="; ")


def writing(directory: Path) -> float:
    """Tokens a CPU second, the best of three times 64."""
    generator = GenaiGenerator(directory)
    prompt = np.arange(1000, 1000 + PROMPT, dtype=np.int32)
    best = 0.0
    for _ in range(3):
        session = generator._start(PROMPT + WRITTEN)
        session.read(prompt, 1)
        session.write()
        start = time.process_time()
        for _ in range(WRITTEN - 1):
            session.write()
        best = max(best, (WRITTEN - 1) / (time.process_time() - start))
    return best


def tuning(directory: Path) -> float:
    """Steps of eight examples a CPU second, of three after one that warms up."""
    encoder = PromptEncoder.from_directory(directory)
    with tempfile.TemporaryDirectory() as scratch:
        pairs = debian_pairs(encoder, Path(scratch)) or docstring_pairs(encoder, Path(scratch))
        warming, *batches = make_batches(pairs, 4, 8)
        step = make_step(LEAN, directory, encoder, warming, Path(scratch))
        step(warming)
        start = time.process_time()
        for batch in batches:
            step(batch)
        return len(batches) / (time.process_time() - start)


if __name__ == "__main__":
    sys.exit(main())
