"""Times of several models, interleaved: in every round each is loaded and run once, in a process of its own.

So what slows the machine down for a while slows all of them, and the ratio to the model in float32 of the same round
means more than the times do. What is measured is kept at once: a search that was interrupted goes on with the next
model, and one that is repeated on the same models takes no times at all.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import re
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from luthier import InputError, Registry, worker_environment
from luthier_optimize.outcome import Tried, write_json
from luthier_optimize.trying import BASELINE

if TYPE_CHECKING:
    from luthier import Dataset, Prompt

FILE = "times.json"
SPEEDS = ("decode", "prefill")
"""Of what is measured, what has a ratio to the float32 model's."""
PROMPTS = 4
LONG_CHARACTERS = 2000
TIMEOUT = 1800
"""Seconds after which a model's process counts as hung."""


@dataclass(frozen=True)
class Trial:
    """How times are taken.

    Attributes:
        prompts, long_prompt: what is completed; the long one for the time of reading.
        new_tokens: that each completion has at most.
        rounds: how often each model is measured.
        threads: that a process may use.
        device: where models run.
        plugins: one-file plugins.
        libraries: the versions of what the runtimes require.
    """

    prompts: list[Prompt]
    long_prompt: str
    new_tokens: int
    rounds: int
    threads: int
    device: str
    plugins: list[str]
    libraries: dict[str, str]


def libraries_of(registry: Registry, models: Iterable[tuple[str, str]]) -> dict[str, str]:
    """The versions of what the runtimes of these kinds and forms require directly: other ones have other times."""
    runtimes = [registry.default_runtime(kind, form) for kind, form in models]
    found: dict[str, str] = {}
    for distribution in {runtime.distribution for runtime in runtimes}:
        with contextlib.suppress(metadata.PackageNotFoundError):  # A local file's is its path.
            for requirement in metadata.requires(distribution) or ():
                match = re.match(r"[\w.-]+", requirement)
                if match:
                    with contextlib.suppress(metadata.PackageNotFoundError):  # Of an extra that is not installed.
                        found[match[0]] = metadata.version(match[0])
    return found


def machine() -> dict[str, Any]:
    """What times depend on, of this machine."""
    return {
        "node": platform.node(),
        "system": platform.system(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
    }


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        named = (line for line in cpuinfo.read_text(encoding="utf-8").splitlines() if line.startswith("model name"))
        return next(named, "").partition(":")[2].strip() or platform.machine()
    return platform.processor() or platform.machine()


def prompts_of(data: Dataset, context: int) -> tuple[list[Prompt], str]:
    """Some held-out prompts, spread over the split, and a long text of their characters.

    Args:
        data: the examples.
        context: characters that a prompt may have.
    """
    rows = data.frame("test").sort("id")
    rows = rows[:: max(1, rows.height // PROMPTS)][:PROMPTS]
    if data.form == "chat":
        prompts: list[Prompt] = [messages[:-1] for messages in rows["messages"].to_list()]
        texts = [message["content"] for prompt in prompts for message in prompt if isinstance(message, dict)]
    else:
        texts = rows["prompt" if data.form == "prompt-completion" else "text"].to_list()
        prompts = [text[: context // 2] for text in texts]
    joined = " ".join(texts).strip() or "-"
    while len(joined) < LONG_CHARACTERS:
        joined += f" {joined}"
    return prompts, joined[: min(LONG_CHARACTERS, context // 2)]


def context_of(model: Path) -> int:
    """The tokens that a model's configuration allows, each of which stands for a character at the least."""
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    names = ("max_position_embeddings", "n_positions")
    return int(next((config[name] for name in names if config.get(name)), 2 * LONG_CHARACTERS))


def take_times(
    baseline: Tried, tried: Sequence[Tried], trial: Trial, directory: Path, tell: Callable[[str], None]
) -> None:
    """Enter the times of each model, medians over the rounds, and its ratios to the float32 model.

    A model whose process fails keeps its other measures, and its error is entered; the next search tries it again.

    Raises:
        InputError: if the process of the model in float32 fails.
    """
    everyone = [baseline, *tried]
    kept = _Kept(directory / FILE, everyone, trial)
    for number in range(trial.rounds):
        for place in range(len(everyone)):
            # Nobody always runs after the same one.
            each = everyone[(place + number) % len(everyone)]
            if each.error or kept.get(number, each):
                continue
            tell(f"times, round {number + 1} of {trial.rounds}: {each.label}")
            answer = _run(each, trial)
            if "measured" in answer:
                kept.put(number, each, answer["measured"])
                continue
            each.error = f"it was exported, but its times could not be taken: {answer['error']}"
            if each is baseline:
                remedy = "See whether `luthier generate` can run it."
                raise InputError(f"the times of the model in float32 could not be taken: {answer['error']}", remedy)
    theirs = kept.all_of(baseline)
    for each in everyone:
        if not each.error:
            mine = kept.all_of(each)
            each.times = {name: statistics.median(sample[name] for sample in mine) for name in mine[0]}
            each.ratios = {
                name: statistics.median(own[name] / other[name] for own, other in zip(mine, theirs, strict=True))
                for name in SPEEDS
            }


class _Kept:
    """What was measured so far, on disk: for these models, in this way, on this machine."""

    def __init__(self, path: Path, everyone: Sequence[Tried], trial: Trial) -> None:
        self._path = path
        what = {
            "models": sorted(each.model for each in everyone),
            "trial": asdict(trial),
            "machine": machine(),
            "waiting": environment_of(trial.threads).get("OMP_WAIT_POLICY", ""),
        }
        self._identity = hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()
        self._rounds = trial.rounds
        self._samples: dict[str, dict[str, float]] = {}
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            self._samples = record["samples"] if record["identity"] == self._identity else {}
        except (OSError, ValueError, KeyError, TypeError):
            self._samples = {}  # None yet, or a damaged one: times are taken anew.

    def get(self, number: int, tried: Tried) -> dict[str, float] | None:
        return self._samples.get(f"{number}/{tried.model}")

    def all_of(self, tried: Tried) -> list[dict[str, float]]:
        return [self._samples[f"{number}/{tried.model}"] for number in range(self._rounds)]

    def put(self, number: int, tried: Tried, sample: dict[str, float]) -> None:
        self._samples[f"{number}/{tried.model}"] = sample
        write_json(self._path, {"identity": self._identity, "samples": self._samples})


def environment_of(threads: int) -> dict[str, str]:
    """A worker's, but threads wait as their library has them wait: in its turn a model has the machine to itself.

    Where they sleep at each barrier of OpenMP, as workers' do, llama.cpp was seen to write 43 tokens a second on two
    threads, and 87 on one.
    """
    environment = worker_environment(threads)
    if "OMP_WAIT_POLICY" not in os.environ:
        del environment["OMP_WAIT_POLICY"]
    return environment


def _run(tried: Tried, trial: Trial) -> dict[str, Any]:
    """One model in a process of its own: what it `measured`, or its `error`."""
    request = {
        "kind": "model" if tried.label == BASELINE else "onnx",
        "form": tried.form,
        "path": tried.path,
        "hash": tried.model,
        **asdict(trial),
    }
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "luthier_optimize.measure"],
            input=json.dumps(request),
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            env=environment_of(trial.threads),
            timeout=TIMEOUT,
            check=False,
        )
        return dict(json.loads(done.stdout))
    except subprocess.TimeoutExpired:
        return {"error": f"it did not end within {TIMEOUT} s"}
    except ValueError:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        return {"error": lines[-1] if lines else f"its process ended with {done.returncode}"}
